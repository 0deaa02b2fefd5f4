"""Routing: where rows go, products of sorted rows, and their gradients, against plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from archdsl.kernels.common import buckets
from archdsl.kernels.routing import (
    Place,
    Plan,
    choose_top,
    combine_rows,
    gather_rows,
    grouped_linear,
    join_rows,
    rank_in_member,
    refuse,
    route,
    routed_filter,
    spread_rows,
    take_rows,
)

COPIES, SEQUENCES, LENGTH, TOP = 5, 3, 7, 2
TOKENS = SEQUENCES * LENGTH


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def a_plan(weights: Tensor | None = None) -> tuple[Tensor, Plan]:
    """Random choices of four of the five copies: the third is unused."""
    scores = random(TOKENS, COPIES)
    scores[:, 2] = -10
    chosen = choose_top(scores, TOP)
    sequence = torch.arange(SEQUENCES).repeat_interleave(LENGTH)
    weights = random(TOKENS, TOP, seed=1) if weights is None else weights
    return chosen, route(chosen, weights, sequence, COPIES, SEQUENCES)


def test_members_hold_their_tokens_in_order() -> None:
    chosen, plan = a_plan()
    for copy in range(COPIES):
        for sequence in range(SEQUENCES):
            start, stop = plan.bounds[copy * SEQUENCES + sequence :][:2].tolist()
            own = range(sequence * LENGTH, (sequence + 1) * LENGTH)
            assert plan.token[start:stop].tolist() == [t for t in own if copy in chosen[t]]
    assert plan.groups.tolist() == plan.bounds[::SEQUENCES].tolist()
    assert torch.equal(plan.token[plan.inverse], torch.arange(TOKENS)[:, None].expand(-1, TOP))
    assert torch.equal(plan.copy[plan.inverse], chosen)


def test_ties_go_to_the_earlier_copy_alone_and_among_others() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    assert choose_top(scores, 2).tolist() == [[1, 2], [0, 1]]
    assert choose_top(scores[:1], 2).tolist() == [[1, 2]]


def test_refused_rows_form_a_member_of_their_own_and_count_for_nothing() -> None:
    chosen, plan = a_plan()
    less = refuse(plan, rank_in_member(plan) < 1)
    assert less.members == COPIES * SEQUENCES + 1
    assert int((less.bounds.diff()[:-1] > 1).sum()) == 0
    last = less.bounds[-2]
    assert torch.equal(less.inverse >= last, less.weights == 0)
    assert torch.equal(less.copy[less.inverse], chosen)


def test_rows_go_where_the_plan_says_with_their_gradients() -> None:
    chosen, plan = a_plan()
    x = random(TOKENS, 4).requires_grad_()
    weights = plan.weights.requires_grad_()
    sent = gather_rows(x, plan.token, plan.inverse)
    assert torch.equal(sent, x[plan.token])
    back = combine_rows(sent * plan.copy[:, None], weights, plan.inverse, plan.token)
    expected = x * (weights * chosen).sum(1, keepdim=True)
    torch.testing.assert_close(back, expected)
    index, rows = torch.tensor([3, 0, 7]), sent.detach().requires_grad_()
    for function, given in (
        (lambda x: gather_rows(x, plan.token, plan.inverse), (x,)),
        (lambda y, w: combine_rows(y, w, plan.inverse, plan.token), (rows, weights)),
        (lambda x: take_rows(x, index), (x,)),
        (lambda y: torch.ops.archdsl.put_rows(y, index, 9), (random(3, 4).requires_grad_(),)),
    ):  # fmt: skip
        assert torch.autograd.gradcheck(function, given)


def test_members_stand_in_padded_batches_and_come_back() -> None:
    """Members of 1 to 9 rows, in batches of one length each up to padding; one member is empty."""
    bounds = torch.tensor([0, 9, 9, 10, 12, 19])
    places = [Place.of(bucket, 19) for bucket in buckets(bounds, 4)]
    x = random(19, 3).requires_grad_()
    batches = spread_rows(x, places)
    assert len(batches) > 1
    rows = {tuple(row.tolist()) for batch in batches for row in batch.detach().flatten(0, 1)}
    assert rows == {tuple(row) for row in x.tolist()} | {(0.0, 0.0, 0.0)}
    assert torch.equal(join_rows(batches, places), x)
    assert torch.autograd.gradcheck(lambda x: spread_rows(x, places), (x,))
    given = [batch.detach().requires_grad_() for batch in batches]
    assert torch.autograd.gradcheck(lambda *parts: join_rows(parts, places), given)


@pytest.mark.parametrize("refusing", [False, True])
@pytest.mark.parametrize(("function", "heads"), [("silu", 2), ("none", 0)])
def test_what_a_memory_writes_is_its_projection_filtered_along_the_text(
    function: str, heads: int, refusing: bool
) -> None:
    _, plan = a_plan()
    plan = refuse(plan, rank_in_member(plan) < 2) if refusing else plan
    x, weight = random(SEQUENCES, LENGTH, 3), random(COPIES, 4, 3, seed=1)
    taps, bias = random(4, 3, seed=2), random(4, seed=3)
    inputs = [part.requires_grad_() for part in (x, weight, taps, bias)]

    def filtered(x: Tensor, weight: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        y = routed_filter(x, weight, taps, bias, plan, function, heads)
        return y[: plan.bounds[COPIES * SEQUENCES]]

    def row(copy: int, token: int) -> Tensor:
        sequence, place = divmod(token, LENGTH)
        seen = [(taps[:, 2 - j], x[sequence, place - j]) for j in range(3) if place >= j]
        y = bias + torch.stack([tap * (weight[copy] @ one) for tap, one in seen]).sum(0)
        y = y.sigmoid() * y if function == "silu" else y
        return y if not heads else (
            y.view(heads, -1) / (y.view(heads, -1).square().sum(1, keepdim=True) + 1e-6).sqrt()
        ).flatten()  # fmt: skip

    found = filtered(*inputs)
    pairs = zip(plan.copy.tolist(), plan.token.tolist(), strict=True)
    expected = torch.stack([row(*pair) for pair in pairs][: len(found)])
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(filtered, inputs)


def test_a_grouped_product_is_one_product_a_group() -> None:
    x, weight = random(10, 4).requires_grad_(), random(3, 6, 4, seed=1).requires_grad_()
    groups = torch.tensor([0, 4, 4, 10])
    expected = torch.cat([x[:4] @ weight[0].T, x[4:] @ weight[2].T])
    torch.testing.assert_close(grouped_linear(x, weight, groups), expected)
    assert torch.autograd.gradcheck(lambda x, w: grouped_linear(x, w, groups), (x, weight))


@pytest.mark.parametrize(
    "name", ["gather_rows", "combine_rows", "take_rows", "put_rows", "grouped_linear"]
)
def test_operators_keep_the_rules_of_pytorch(name: str) -> None:
    _, plan = a_plan()
    x, rows = random(TOKENS, 4).requires_grad_(), random(TOKENS * TOP, 4).requires_grad_()
    index = torch.tensor([3, 0, 7])
    given: dict[str, tuple[Any, ...]] = {
        "gather_rows": (x, plan.token, plan.inverse),
        "combine_rows": (rows, plan.weights.requires_grad_(), plan.inverse, plan.token),
        "take_rows": (x, index),
        "put_rows": (random(3, 4).requires_grad_(), index, 9),
        "grouped_linear": (rows, random(COPIES, 3, 4).requires_grad_(), plan.groups),
    }
    torch.library.opcheck(getattr(torch.ops.archdsl, name).default, given[name])
