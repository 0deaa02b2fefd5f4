"""The learner family: every form computes one definition, whose gradients are right and costs exact."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
import torch
from fresh import pretend_compiling
from tolerances import EXACT, assert_close
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from archdsl.kernels.delta.reference import reference as delta_reference
from archdsl.kernels.learner import biases, learners, retentions
from archdsl.kernels.learner.activations import ACTIVATIONS
from archdsl.kernels.learner.dispatch import Gates, Learned, learn
from archdsl.kernels.learner.flops import flops
from archdsl.kernels.learner.packed import learn_packed
from archdsl.kernels.learner.rule import Keep, Learn, Loss, Rule, Store

BATCH, LENGTH, HEADS = 2, 11, 2

STORES = {
    "matrix": Store((4, 5)),
    "linear with a norm": Store((4, 4), residual=True, norm="layer", bias=True),
    "MLP": Store((4, 8, 4), activation="gelu", residual=True, norm="rms"),
    "three layers": Store((4, 6, 6, 3), activation="silu", bias=True),
    "slots": Store((3, 5), form="slots"),
    "one number": Store((1, 1)),
}
LOSSES = [
    Loss("dot"), Loss("l2"), Loss("lp", power=3), Loss("lp", power=1.5), Loss("huber", threshold=0.7),
    Loss("huber_norm", token=True), Loss("huber_mixed", token=True), Loss("robust", threshold=0.3),
    Loss("kl"),
]  # fmt: skip
KEEPS = [
    Keep(), Keep(decay="constant"), Keep(decay="head"), Keep(decay="channel"),
    Keep("lq", power=4, decay="head"), Keep("lq_printed", power=4, decay="channel"),
    Keep("elastic_net", sparse=0.02, ridge=0.1), Keep("elastic_sum", sparse=0.02),
    Keep("simplex", decay="head"), Keep("divergence", potential="kl"),
    Keep("divergence", potential="chi_squared"), Keep("divergence", potential="reverse_kl"),
    Keep("divergence", potential="hellinger"), Keep("bregman"),
    Keep("bregman", potential="tanh", decay="head"),
]  # fmt: skip
LEARNS = [
    Learn(), Learn(chunk=4), Learn(chunk=4, clip=2.0), Learn(chunk=8, rate="channel", decay_first=False),
    Learn("momentum", chunk=4), Learn("muon", chunk=4, newton=1), Learn(chunk=4, window=3),
    Learn("momentum", chunk=4, window=3, largest=0.1), Learn("muon", window=3, chunk=4, newton=1),
]  # fmt: skip


def rules(count: int) -> list[Rule]:
    """A fixed sample of all combinations in which every part of each axis occurs, steps bounded."""
    every = list(itertools.product(STORES.values(), LOSSES, KEEPS, LEARNS))
    random.Random(0).shuffle(every)
    parts = [Rule(s, lo, k, replace(le, bound="error")) for s, lo, k, le in every[:count]]
    slots = [replace(r, keep=Keep("sphere")) if r.store.form == "slots" else r for r in parts]
    means = Learn(chunk=4, average=True, bound="error")
    return [
        *slots,
        Rule(STORES["linear with a norm"], learn=means),
        Rule(STORES["MLP"], learn=means),
    ]


Arguments = tuple[Tensor, Tensor, Tensor, Gates, Learned]


def arguments(rule: Rule, length: int = LENGTH) -> Arguments:
    """Random inputs, gates and parameters that fit a rule, in float64."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    key, value = rule.store.widths[0], rule.store.widths[-1]
    some = (BATCH, length, HEADS)
    decays = {"constant": (HEADS,), "head": some, "channel": (*some, key)}
    gates = Gates(
        rate=0.3 * torch.sigmoid(draw(*some, key) if rule.learn.rate == "channel" else draw(*some)),
        decay=None if rule.keep.decay == "none" else -0.1 * draw(*decays[rule.keep.decay]).abs(),
        momentum=functional.logsigmoid(draw(*some)) if rule.learn.carries else None,
        weight=torch.sigmoid(draw(*some)) if rule.learn.window > 1 else None,
        threshold=functional.softplus(draw(*some)) if rule.loss.token else None,
    )
    norm = rule.store.norm != "none"
    learned = Learned(
        start=[draw(HEADS, *shape) * shape[1] ** -0.5 for shape in rule.store.shapes],
        gain=1 + 0.1 * draw(HEADS, value) if norm else None,
        offset=0.1 * draw(HEADS, value) if rule.store.norm == "layer" else None,
        share=(0.3 + 0.1 * draw(rule.learn.chunk).abs()) if rule.learn.average else None,
    )
    q, k = (functional.normalize(draw(*some, key), dim=-1) for _ in range(2))
    v = draw(*some, value)
    return q, k, v.softmax(-1) if rule.loss.form == "kl" else v, gates, learned


def tensors(given: Arguments) -> list[Tensor]:
    q, k, v, gates, learned = given
    rest = (learned.gain, learned.offset, learned.share)
    return [x for x in (q, k, v, *gates, *learned.start, *rest) if x is not None]


def part(given: Arguments, span: slice) -> Arguments:
    q, k, v, gates, learned = given
    cut = Gates(*(x if x is None or x.dim() == 1 else x[:, span] for x in gates))
    return q[:, span], k[:, span], v[:, span], cut, learned


def assert_same_gradients(found: Tensor, wanted: Tensor, leaves: list[Tensor]) -> None:
    """Of one weighted sum of either."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(wanted.shape, generator=generator, dtype=wanted.dtype)
    left, right = (
        torch.autograd.grad((y * weights).sum(), leaves, allow_unused=True) for y in (found, wanted)
    )
    for index, (a, b) in enumerate(zip(left, right, strict=True)):
        if b is not None:
            assert_close(a, b, EXACT, f"gradient {index}")


@pytest.mark.parametrize(
    "rule", rules(24), ids=lambda r: f"{r.loss.form}-{r.keep.form}-{r.learn.form}"
)
def test_every_form_computes_one_definition(rule: Rule) -> None:
    given = arguments(rule)
    leaves = [x.requires_grad_() for x in tensors(given)]
    out, state = learn(rule, *given)
    wanted, last = learn(rule, *given, backend="reference")
    assert_close(out, wanted, EXACT, "output")
    for name, value in last.items():
        assert_close(state[name], value, EXACT, name)
    assert_same_gradients(out, wanted, leaves)

    rows, after, place = [], None, 0
    with torch.no_grad():
        for size in (1, 1, 5, 4):
            cut = part(given, slice(place, place + size))
            row, after = learn(rule, *cut, state=after, position=place)
            rows.append(row)
            place += size
    assert_close(torch.cat(rows, 1), out, EXACT, "steps")


@pytest.mark.parametrize("rule", rules(25)[::2], ids=str)
def test_flops_are_those_pytorch_counts(rule: Rule) -> None:
    given = arguments(rule)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        learn(rule, *given)
    assert flops(rule, BATCH, LENGTH, HEADS) == counter.get_total_flops()


@pytest.mark.parametrize("per", ["none", "constant", "head", "channel"])
def test_a_matrix_and_the_squared_error_online_are_the_delta_rule(per: str) -> None:
    rule = Rule(Store((4, 5)), Loss("l2"), Keep(decay=per), Learn())  # type: ignore[arg-type]
    q, k, v, gates, learned = arguments(rule)
    zero = Learned([torch.zeros_like(learned.start[0])])
    out, state = learn(rule, q, k, v, gates, zero)
    decay = (
        gates.decay
        if gates.decay is None or gates.decay.dim() > 1
        else gates.decay.expand(q.shape[:3])
    )
    empty = torch.zeros(BATCH, HEADS, 4, 5, dtype=q.dtype)
    wanted, last = delta_reference(q, k, v, gates.rate, k, decay, empty, 1.0, 1)
    assert_close(out, wanted, EXACT)
    assert_close(state["memory_0"].mT, last, EXACT)


def test_the_closed_form_minimises_what_it_says() -> None:
    rule = Rule(Store((4, 5)), keep=Keep(decay="head"), learn=Learn("closed", ridge=0.5))
    q, k, v, gates, learned = arguments(rule, 20)
    out, _ = learn(rule, q, k, v, gates, learned)
    assert gates.decay is not None
    total = gates.decay.cumsum(1)
    for t in (0, 7, 19):
        weigh = gates.rate[0, : t + 1, 0] * (total[0, t, 0] - total[0, : t + 1, 0]).exp()
        keys, values = k[0, : t + 1, 0], v[0, : t + 1, 0]
        memory = torch.zeros(5, 4, dtype=q.dtype, requires_grad=True)
        loss = (weigh[:, None] * (keys @ memory.mT - values) ** 2).sum() + 0.5 * (memory**2).sum()
        slope = torch.autograd.grad(loss, memory, create_graph=True)[0]
        rows = [torch.autograd.grad(s, memory, retain_graph=True)[0] for s in slope.flatten()]
        hessian = torch.stack([row.flatten() for row in rows])
        best = torch.linalg.solve(hessian, -slope.flatten()).view(5, 4)
        assert_close(out[0, t, 0], (best @ q[0, t, 0]).detach(), EXACT)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.form}-{loss.power}")
def test_the_gradient_of_a_loss_is_its_own(loss: Loss) -> None:
    generator = torch.Generator().manual_seed(0)
    p, v = (torch.randn(7, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    threshold = torch.rand(7, 1, generator=generator, dtype=torch.float64) + 0.5
    gradient, value = biases.pair(loss)
    p.requires_grad_()
    wanted = torch.autograd.grad(value(p, v, threshold).sum(), p)[0]
    assert_close(gradient(p, v, threshold), wanted, EXACT)


def test_the_exact_lq_rule_minimises_and_the_printed_one_does_not() -> None:
    """W = argmin -<A, W> + |W|_q² / (2 (q - 1)); the two agree at q = 2 alone."""
    moved = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3

    def slope(form: str, q: float) -> Tensor:
        keep = Keep(form, power=q, floor=1e-3)  # type: ignore[arg-type]
        w = retentions.weights(keep, moved, moved, None).detach().requires_grad_()
        size = (w.abs() ** q).sum() ** (2 / q)
        return torch.autograd.grad(size / (2 * (q - 1)) - (moved * w).sum(), w)[0]

    assert float(slope("lq", 4.0).abs().max()) < 1e-5
    assert float(slope("lq_printed", 4.0).abs().max()) > 1e-2
    both = (
        retentions.weights(Keep(form, power=2.0, floor=1e-3), moved, moved, None)
        for form in ("lq", "lq_printed")
    )
    assert_close(*both, 1e-6)


@pytest.mark.parametrize("f", retentions.DIVERGENCES)
def test_a_divergence_keeps_distributions(f: str) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(3, 6, generator=generator, dtype=torch.float64).softmax(-1)
    moved = start + 0.3 * torch.randn(3, 6, generator=generator, dtype=torch.float64)
    w = retentions.weights(Keep("divergence", potential=f), moved, start, None)
    assert_close(w.sum(-1), torch.ones(3, dtype=w.dtype), EXACT)
    assert float(w.min()) >= 0


def test_newton_schulz_brings_singular_values_near_one() -> None:
    x = torch.randn(4, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.linalg.svdvals(learners.orthogonal(x, 8))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


def test_a_bounded_step_on_one_pair_never_leaves_a_larger_error() -> None:
    rule = Rule(
        Store((4, 16, 4), activation="gelu"), Loss("l2"), learn=Learn(bound="error", largest=1.0)
    )
    _, k, v, gates, learned = arguments(rule, 12)
    k, v = k[:, :1].expand_as(k), 30 * v[:, :1].expand_as(v)
    gates = Gates(torch.ones_like(gates.rate))
    out, _ = learn(rule, k, k, v, gates, learned)
    errors = (out - v).norm(dim=-1)
    assert float(errors[:, -1].max()) < float(errors[:, 0].max())
    assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_of_activations_are_their_derivatives(name: str) -> None:
    value, slope = ACTIVATIONS[name]
    x = torch.linspace(-3, 3, 40, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(value(x).sum(), x)
    assert_close(slope(x), wanted, 1e-12)


MEMBERS = (5, 0, 1, 11, 4)
"""Writes of packed sequences; as many are behind the last one, and nobody's, as `NOBODYS`."""
NOBODYS = 2


def packed(given: Arguments) -> Arguments:
    """The first writes of the batch's rows in one row."""
    q, k, v, gates, learned = given

    def one(x: Tensor) -> Tensor:
        return x.flatten(0, 1)[None, : sum(MEMBERS) + NOBODYS]

    cut = Gates(*(x if x is None or x.dim() == 1 else one(x) for x in gates))
    return one(q), one(k), one(v), cut, learned


def by_members(
    rule: Rule, given: Arguments, states: list[dict[str, Tensor] | None], written: list[int]
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Every member by itself, a write at a time."""
    rows, after, first = [], [], 0
    for length, state, before in zip(MEMBERS, states, written, strict=True):
        cut = part(given, slice(first, first + length))
        first += length
        if not length:
            after.append(state)
            continue
        row, kept = learn(rule, *cut, state=state, position=before, backend="reference")
        rows.append(row)
        after.append(kept)
    return torch.cat(rows, 1), after


@pytest.mark.parametrize("exact", [True, False], ids=["known", "bounded"])
@pytest.mark.parametrize(
    "rule",
    [*rules(24), Rule(STORES["matrix"], learn=Learn("closed"))],
    ids=lambda r: f"{r.loss.form}-{r.keep.form}-{r.learn.form}",
)
def test_packed_sequences_are_each_by_itself(
    rule: Rule, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a fresh start, then on from within chunks; with and without lengths that are known."""
    if not exact:
        pretend_compiling(monkeypatch)
    given = packed(arguments(rule, 12))
    leaves = [x.requires_grad_() for x in tensors(given)]
    bounds = torch.tensor([0, *itertools.accumulate(MEMBERS)])
    out, state = learn_packed(rule, *given, bounds, widest=11)
    fresh: list[dict[str, Tensor] | None] = [None] * len(MEMBERS)
    wanted, after = by_members(rule, given, fresh, [0] * len(MEMBERS))
    assert_close(out[:, :-NOBODYS], wanted, EXACT, "output")
    assert not out[:, -NOBODYS:].any()

    written = bounds.diff() % (1 if rule.learn.form == "closed" else rule.learn.chunk)
    again, _ = learn_packed(rule, *given, bounds, state=state, written=written)
    second, _ = by_members(rule, given, after, list(MEMBERS))
    assert_close(again[:, :-NOBODYS][:, :5], second[:, :5], EXACT, "output behind a state")
    both = torch.cat([wanted, second], 1)
    found = torch.cat([out[:, :-NOBODYS], again[:, :-NOBODYS]], 1)
    assert_close(found, both, EXACT, "outputs")
    assert_same_gradients(found, both, leaves)
