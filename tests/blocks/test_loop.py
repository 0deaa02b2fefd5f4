"""Recurrent depth: what a loop computes, keeps, draws and costs."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

import pytest
import torch
from blocks.written import built, complaints
from studies.depth_cost import Live
from tolerances import EXACT, assert_close
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archdsl.blocks.nn.base import Context
from archdsl.blocks.nn.loop import Loop
from archdsl.blocks.nn.noise import truncated_normal
from archdsl.blocks.nn.skip import Skip
from archdsl.blocks.op import Work
from archdsl.compiler.models.model import Model
from archdsl.compiler.models.tying import tie

BLOCK = "residual { rms_norm attention(heads = 2) } residual { rms_norm swiglu }"


def model_of(layer: str, **how: Any) -> Model:
    return built(f"embed(dim = 8, vocab = 11) {layer} rms_norm lm_head", dtype="float64", **how)


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(seed))


def loop_of(model: Model) -> Loop:
    [(_, loop)] = model.loops()
    return loop


def copied(source: Model, target: Model, places: dict[str, str]) -> Model:
    """``target`` with the weights of ``source``, whose names begin otherwise."""
    weights = {}
    for name in target.state_dict():
        [(old, new)] = [p for p in places.items() if name.startswith(p[0])] or [("", "")]
        weights[name] = source.state_dict()[new + name.removeprefix(old)]
    target.load_state_dict(weights)
    return target


# --- what it computes --------------------------------------------------------------------------------


def test_a_loop_is_layers_that_share_weights() -> None:
    loop, plain = model_of(f"loop(3) {{ {BLOCK} }}"), model_of(f"repeat(3) {{ {BLOCK} }}")
    copied(loop, plain, {f"repeat.{i}.": "loop.body.0." for i in range(3)})
    assert torch.equal(loop(tokens(2, 9)), plain(tokens(2, 9)))


def test_a_trained_loop_runs_any_number_of_iterations() -> None:
    three, five = model_of(f"loop(3) {{ {BLOCK} }}"), model_of(f"loop(5) {{ {BLOCK} }}")
    five.load_state_dict(three.state_dict())
    loop_of(three).times = 5
    assert torch.equal(three(tokens(2, 9)), five(tokens(2, 9)))
    _, state = three.prefill(tokens(2, 9), three.init_state(2))
    cost = three.cost.at(5)
    assert three.state_bytes(state) == 2 * cost.state_bytes(9, "float64")
    assert cost.total_flops(Work(9)) == five.cost.total_flops(Work(9))
    assert cost.params == three.cost.params


def test_an_order_is_not_run_more_often() -> None:
    text = f"loop(3) {{ {BLOCK} }} loop(1, chain = [0, 0]) {{ residual {{ swiglu }} }}"
    model, deeper = model_of(text), model_of(text.replace("loop(3)", "loop(7)"))
    assert model.cost.at(7).flops(9) == deeper.cost.flops(9)


def test_a_chain_is_its_children_in_that_order() -> None:
    parts = (
        "residual { rms_norm gla(heads = 2) } residual { swiglu } residual { attention(heads = 2) }"
    )
    chain = model_of(f"loop(1, chain = [0, 1, 1, 2, 0]) {{ {parts} }}")
    order = "gla(heads = 2)", "swiglu", "swiglu", "attention(heads = 2)", "gla(heads = 2)"
    norms = "rms_norm ", "", "", "", "rms_norm "
    layers = [f"residual {{ {n}{m} }}" for n, m in zip(norms, order, strict=True)]
    plain = model_of(" ".join(layers))
    names = ["residual"] + [f"residual_{i}" for i in range(1, 5)]
    places = {
        f"{name}.": f"loop.body.{child}.residual."
        for name, child in zip(names, [0, 1, 1, 2, 0], strict=True)
    }
    copied(chain, plain, places)
    assert_close(chain(tokens(2, 9)), plain(tokens(2, 9)), EXACT)


def test_the_input_joins_every_iteration() -> None:
    x = tokens(2, 5)
    for inject in ("add", "concat", "gate"):
        model = model_of(f"loop(3, inject = {inject}, init = zeros) {{ linear }}")
        w = model.state_dict()
        e = w["embed.weight"][x]
        s = torch.zeros_like(e)
        for _ in range(3):
            if inject == "add":
                joined = s + e
            elif inject == "concat":
                joined = torch.cat([s, e], -1) @ w["loop.mix"].T
            else:
                g = torch.sigmoid(torch.cat([s, e], -1) @ w["loop.mix"].T + w["loop.mix_bias"])
                joined = g * s + (1 - g) * e
            s = joined @ w["loop.body.0.linear.weight"].T
        plain = model_of("")
        plain.load_state_dict({n: t for n, t in w.items() if not n.startswith("loop")})
        expected = s / torch.sqrt((s**2).mean(-1, keepdim=True) + 1e-6) @ w["lm_head.weight"].T
        assert_close(model(x), expected, EXACT, inject)


def test_noise_is_a_function_of_where_it_stands() -> None:
    like = torch.empty(3, 50, 40, dtype=torch.float64)
    noise = truncated_normal(like, 0, seed=5)
    assert torch.equal(noise[:, 20:], truncated_normal(like[:, 20:], 20, seed=5))
    assert not torch.equal(noise, truncated_normal(like, 0, seed=6))
    assert abs(float(noise.mean())) < 5 / 6000**0.5
    assert float(noise.std()) == pytest.approx(
        0.9866, abs=0.03
    )  # of a normal cut at three deviations
    assert float(noise.abs().max()) <= 3
    flat = noise.flatten()
    assert flat.unique().numel() == flat.numel()


# --- what a gradient sees ----------------------------------------------------------------------------


def test_only_the_last_iterations_carry_a_gradient() -> None:
    x, results = tokens(2, 5), []
    for text, cut in (("backprop = 2, ", False), ("", True)):
        model = model_of(f"loop(5, {text}inject = add) {{ residual {{ linear }} }}")
        if cut:
            weight = model.get_parameter("loop.body.0.residual.linear.weight")
            e = model.get_parameter("embed.weight")[x]
            s = e
            for i in range(5):
                s = (s + e) + (s + e) @ weight.T
                s = s.detach() if i == 2 else s
            s.square().sum().backward()
        else:
            loop_of(model)(model.get_parameter("embed.weight")[x], None, Context())[
                0
            ].square().sum().backward()
        results.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert set(results[0]) == set(results[1])
    for name, grad in results[0].items():
        assert_close(grad, results[1][name], EXACT, name)


def test_training_memory_is_that_of_the_iterations_with_a_gradient() -> None:
    def saved(times: int) -> int:
        model = model_of(f"loop({times}, backprop = 2, inject = add) {{ {BLOCK} }}")
        sizes: list[int] = []

        def pack(x: Tensor) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model.loss(tokens(2, 17)[:, :-1], tokens(2, 17)[:, 1:])
        return sum(sizes)

    assert saved(64) == saved(4)


def test_sixty_four_iterations_take_the_memory_of_four() -> None:
    model, peaks = model_of(f"loop(4) {{ {BLOCK} }}"), []
    for times in (4, 64):
        loop_of(model).times = times
        with torch.no_grad(), Live() as live:
            model(tokens(2, 33))
        peaks.append(live.most)
    assert peaks[0] == peaks[1]


# --- what is drawn -----------------------------------------------------------------------------------


def trained(model: Model, steps: range) -> list[float]:
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.1), []
    for step in steps:
        x = tokens(2, 9, step)
        loss = model.loss(x[:, :-1], x[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_a_run_of_drawn_depths_replays_from_its_seed() -> None:
    text = f"loop(poisson(3), inject = add, init = noise, backprop = 2) {{ {BLOCK} }}"
    first, again, other = (model_of(text, seed=seed) for seed in (1, 1, 2))
    losses = trained(first, range(8))
    assert trained(again, range(8)) == losses
    assert trained(other, range(8)) != losses
    resumed = model_of(text, seed=1)
    trained(resumed, range(4))
    later = model_of(text, seed=1)
    later.load_state_dict(resumed.state_dict())
    later.number = 4  # what a trainer sets, that resumes
    assert trained(later, range(4, 8)) == losses[4:]


def depths(text: str, steps: int, seed: int = 0) -> list[int]:
    loop = loop_of(model_of(f"{text} {{ linear }}"))
    return [loop.depth(Context(number=number, seed=seed))[0] for number in range(steps)]


@pytest.mark.parametrize(
    "settings", ["poisson(4)", "2, init = noise, inject = add", "3, curriculum = 8"]
)
def test_a_step_that_is_computed_again_draws_what_it_drew(settings: str) -> None:
    """Activation checkpointing runs a step's forward pass once more within its backward pass."""
    body = "residual { rms_norm attention(heads = 2) }"
    text = f"embed(dim = 8, vocab = 7) loop({settings}) {{ {body} }} lm_head"
    plain, again = (built(text, dtype="float64").train() for _ in range(2))
    x = torch.arange(12).view(2, 6) % 7
    for _ in range(3):
        plain.loss(x, x).backward()
        checkpoint(again.loss, x, x, use_reentrant=False).backward()
        assert plain.number == again.number
        for name, parameter in again.named_parameters():
            assert_close(parameter.grad, plain.get_parameter(name).grad, EXACT, name)


def test_depths_are_drawn_as_they_say() -> None:
    drawn = depths("loop(poisson(32))", 4000)
    assert mean(drawn) == pytest.approx(
        33, abs=1
    )  # arXiv 2502.05171: the mean is one above the rate
    assert median(drawn) in (28, 29, 30)
    assert set(depths("loop(uniform(2, 5))", 100)) == {2, 3, 4, 5}
    assert set(depths("loop(4)", 5)) == {4}
    assert depths("loop(poisson(32))", 9) != depths("loop(poisson(32))", 9, seed=1)


def test_a_curriculum_grows_to_the_whole_depth() -> None:
    assert depths("loop(8, curriculum = 15)", 17) == [
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        5,
        5,
        6,
        6,
        7,
        7,
        8,
        8,
        8,
    ]
    rooted = depths("loop(8, curriculum = 15, curve = sqrt)", 17)
    assert rooted[0] == 1
    assert rooted[-1] == 8
    assert sum(rooted) < sum(depths("loop(8, curriculum = 15)", 17))


def test_nothing_is_drawn_where_nothing_is_trained() -> None:
    model, x = model_of(f"loop(poisson(3, test = 4)) {{ {BLOCK} }}"), tokens(2, 9)
    assert torch.equal(model(x), model(x))
    with torch.no_grad():
        losses = {float(model.loss(x[:, :-1], x[:, 1:])) for _ in range(4)}
    assert len(losses) == 1
    assert model.number == 0
    assert loop_of(model).times == 4


# --- decoding with fewer states or iterations --------------------------------------------------------


def decoded(model: Model, x: Tensor, sizes: list[int]) -> tuple[Tensor, Any]:
    state, outputs = model.init_state(len(x)), []
    with torch.no_grad():
        for piece in x.split(sizes, 1):
            logits, state = model.prefill(piece, state)
            outputs.append(logits)
    return torch.cat(outputs, 1), state


def test_a_ring_of_states_is_exact_within_a_chunk_and_as_large_as_it_says() -> None:
    model, x = model_of(f"loop(4) {{ {BLOCK} }}"), tokens(2, 6)
    whole = model(x)
    loop_of(model).ring = 2
    found, state = decoded(model, x, [6])
    assert_close(found, whole, EXACT)
    assert model.state_bytes(state) == model.cost.at(2).state_bytes(6, "float64") * 2
    stepped, _ = decoded(model, x, [1] * 6)
    assert_close(stepped[:, :1], whole[:, :1], EXACT)
    assert not torch.allclose(stepped, whole)
    loop_of(model).ring = 4
    assert_close(decoded(model, x, [1] * 6)[0], whole, EXACT)


def test_tokens_leave_a_loop_that_no_longer_changes_them() -> None:
    x = tokens(3, 6)
    for mixer in ("attention(heads = 2, window = 3)", "gla(heads = 2)"):
        model = model_of(f"loop(4) {{ residual {{ rms_norm {mixer} }} }} residual {{ {mixer} }}")
        exact, plain = decoded(model, x, [1] * 6)
        loop_of(model).exit = 0.0
        assert_close(decoded(model, x, [1] * 6)[0], exact, EXACT)
        loop_of(model).exit = 1e9
        early, state = decoded(model, x, [1] * 6)
        assert not torch.allclose(early, exact)
        assert model.state_bytes(state) == model.state_bytes(plain)
        loop_of(model).exit, loop_of(model).times = None, 2
        assert_close(early[:, :1], decoded(model, x, [1] * 6)[0][:, :1], EXACT)


def test_a_sequence_leaves_by_itself_whatever_else_is_in_the_batch() -> None:
    model, x = model_of(f"loop(6) {{ {BLOCK} }}"), tokens(4, 7)
    loop_of(model).exit = 2e-4
    together, _ = decoded(model, x, [1] * 7)
    alone = [decoded(model, row[None], [1] * 7)[0] for row in x]
    assert_close(together, torch.cat(alone), EXACT)


# --- weights of a run's own --------------------------------------------------------------------------


def test_fresh_adapters_change_nothing_and_cost_what_they_say() -> None:
    plain, relaxed = (
        model_of(f"loop(3) {{ {BLOCK} }}"),
        model_of(f"loop(3, adapter = 2) {{ {BLOCK} }}"),
    )
    missing = relaxed.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert {name.rpartition(".")[2] for name in missing} == {"down", "up"}
    assert_close(relaxed(tokens(2, 9)), plain(tokens(2, 9)), EXACT)
    matrices = [p for n, p in plain.named_parameters() if "loop" in n and p.dim() == 2]
    extra = sum(3 * 2 * (p.shape[0] + p.shape[1]) for p in matrices)
    merged = relaxed.cost.params - plain.cost.params
    assert merged >= extra  # a merged projection has an adapter for each of its parts


@pytest.mark.parametrize("how", ["average", "stepwise", "lower"])
def test_tied_at_full_rank_a_loop_is_the_model_it_came_from(how: str) -> None:
    donor = model_of(f"stack(depth = 6) {{ {BLOCK} }}")
    looped = model_of(f"loop(3, adapter = 8) {{ stack(depth = 2) {{ {BLOCK} }} }}")
    tie(looped, donor, how)  # type: ignore[arg-type]
    assert_close(looped(tokens(2, 9)), donor(tokens(2, 9)), EXACT)


def test_tying_refuses_layers_that_do_not_fit() -> None:
    donor = model_of(f"stack(depth = 5) {{ {BLOCK} }}")
    looped = model_of(f"loop(3, adapter = 1) {{ stack(depth = 2) {{ {BLOCK} }} }}")
    with pytest.raises(ValueError, match="5 layers below `stack` do not fill 2"):
        tie(looped, donor)


def test_tied_layers_share_weights_and_keep_states_of_their_own() -> None:
    kinds = "{ a: residual { gla(heads = 2) } b: residual { attention(heads = 2) } }"
    tied = model_of(f"stack(depth = 6, cycle = [a, a, b], tied = [b]) {kinds}")
    plain = model_of(f"stack(depth = 6, cycle = [a, a, b]) {kinds}")
    names = {f"stack.{i}.": f"stack.{i if i < 5 else 2}." for i in range(6)}
    copied(tied, plain, names)
    assert_close(tied(tokens(2, 9)), plain(tokens(2, 9)), EXACT)
    assert tied.cost.state_bytes(9) == plain.cost.state_bytes(9)
    attention = sum(p.numel() for n, p in plain.named_parameters() if "attention" in n)
    assert tied.cost.params == plain.cost.params - attention // 2


# --- leaving layers out ------------------------------------------------------------------------------


def test_a_router_decides_once_from_the_prompt() -> None:
    model, x = (
        model_of("skip { residual { linear } } skip { residual { gla(heads = 2) } }"),
        tokens(2, 8),
    )
    routers = [module for module in model.modules() if isinstance(module, Skip)]
    with torch.no_grad():
        routers[0].bias.fill_(-9)
        for router in routers:
            router.weight.zero_()
            router.decide = True
    left = model_of("residual { gla(heads = 2) }")
    copied(model, left, {"residual.": "skip_1.layers.residual."})
    assert_close(decoded(model, x, [5, 1, 1, 1])[0], left(x), EXACT)


def test_a_penalty_is_the_mean_gate() -> None:
    model, x = model_of("skip(penalty = 3) { linear }"), tokens(2, 8)
    without = model_of("skip(penalty = 0) { linear }")
    [router] = [module for module in model.modules() if isinstance(module, Skip)]
    with torch.no_grad():
        gap = model.loss(x[:, :-1], x[:, 1:]) - without.loss(x[:, :-1], x[:, 1:])
        seen = model.get_parameter("embed.weight")[x[:, :-1]]
        gate = torch.sigmoid(seen @ router.weight + router.bias)
    assert float(gap) == pytest.approx(3 * float(gate.mean()), rel=1e-5)


# --- what it costs and refuses -----------------------------------------------------------------------


def test_a_loop_counts_weights_once_states_and_work_each_run() -> None:
    one, four = model_of(f"loop(1) {{ {BLOCK} }}").cost, model_of(f"loop(4) {{ {BLOCK} }}").cost
    none = model_of("").cost
    assert one.params == four.params
    assert four.state_bytes(9) == 4 * one.state_bytes(9)
    inner = one.flops(9) - none.flops(9)
    assert four.flops(9) - none.flops(9) == 4 * inner
    cut = model_of(f"loop(4, backprop = 1, inject = add) {{ {BLOCK} }}").cost
    assert cut.flops(9, "train") - 3 * none.flops(9) == 4 * inner + 2 * inner


REFUSED = {
    "loop(2, chain = [0, 2]) { linear linear }": "layer-outside",
    "loop([1, 2, 3]) { linear linear }": "times-parts",
    "loop([1, 2], chain = [0, 1]) { linear linear }": "two-orders",
    "loop(4, backprop = 2) { linear }": "severed-gradient",
    "loop(4, backprop = 2, inject = add, init = learned) { linear }": "severed-gradient",
    "loop(4, init = zeros) { linear }": "unread-input",
    "loop(uniform(4, 2)) { linear }": "empty-times",
    "loop(2) { linear(dim = 5) }": "width-changes",
    "hyper { linear }": "several-streams",
    "hyper { residual { linear } rms_norm }": "several-streams",
    "mhc { hyper { residual { linear } } }": "several-streams",
    "stack(depth = 2, cycle = [a, b], tied = [c]) { a: linear b: linear }": "unknown-label",
    "stack(depth = 2, adapter = 2) { linear }": "idle-adapter",
}


@pytest.mark.parametrize("layer", REFUSED)
def test_it_refuses_what_means_nothing(layer: str) -> None:
    assert REFUSED[layer] in complaints(f"embed(dim = 8, vocab = 5) {layer} lm_head")
