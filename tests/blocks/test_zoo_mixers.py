"""The other named mixers of ``blocks/std`` are the published ones, and start as published."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from blocks import published_mixers
from blocks import published_more as published
from blocks.probe import gradients, probe, random_inputs, weigher
from blocks.written import built
from tolerances import EXACT, assert_close
from torch import Tensor

WIDTH = 8

Definition = Callable[..., Tensor]

MIXERS: dict[str, Definition] = {
    "min_lstm": published.min_lstm,
    "min_lstm(width = 8)": published.min_lstm,
    "rg_lru(heads = 2)": published.rg_lru,
    "rg_lru(heads = 1, expand = 1, conv = 2)": published.rg_lru,
    "gateloop": published.gateloop,
    "lru": published.lru,
    "lru(r_min = 0.9, r_max = 0.999, phase = 0.314)": published.lru,
    "s5": published.s5,
    "s4d(states = 3)": published.s4d,
    "mamba(states = 3, rank = 2)": published.mamba,
    "mamba(expand = 1, conv = 2, rank = 1)": published.mamba,
    "mamba(states = 3, rank = 2, norm = true)": published.mamba,
    "hgrn": published_mixers.hgrn,
    "hgrn2(heads = 2)": partial(published_mixers.hgrn2, heads=2),
    "deltaproduct(heads = 2, expand_k = 1)": partial(published.deltaproduct, heads=2, writes=2),
    "deltaproduct(heads = 2, expand_k = 1, householders = 3, beta_max = 1, retention = none)": partial(
        published.deltaproduct, heads=2, writes=3, beta_max=1.0
    ),
    "deltaproduct(heads = 2, expand_k = 1, conv = none)": partial(
        published.deltaproduct, heads=2, writes=2
    ),
    "comba(heads = 2, expand_k = 1, conv = none)": partial(published.comba, heads=2),
    "comba(heads = 2, expand_k = 1)": partial(published.comba, heads=2),
    "comba(heads = 4, expand_k = 1/2, expand_v = 1, correction = false)": partial(
        published.comba, heads=4, corrected=False
    ),
    "mlstm(heads = 2)": partial(published.mlstm, heads=2),
    "mlstm(heads = 1, input_bias = 3)": partial(published.mlstm, heads=1),
    "mlstm_block(heads = 2)": partial(published.mlstm_block, heads=2),
    "mlstm_block(heads = 1, expand = 1, conv = 2, block = 8)": partial(
        published.mlstm_block, heads=1
    ),
    "lightnet(heads = 2, rank = 3)": partial(published.lightnet, heads=2),
    "rwkv6(heads = 2, shift_rank = 3, rank = 4)": partial(published.rwkv6, heads=2),
    "rwkv7(heads = 2, rank = 3, rate_rank = 2, value_rank = 2, gate_rank = 5)": partial(
        published.rwkv7, heads=2
    ),
    "repeat(times = 2) { rwkv7(heads = 2, value_rank = 2) }": partial(
        published.rwkv7_twice, heads=2
    ),
}

LENGTHS = (1, 17, 70)
"""One token, one chunk, and more than the largest chunk of 64."""


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("layer", MIXERS)
def test_equals_its_published_definition(layer: str, length: int) -> None:
    found = probe(layer, random_inputs(1, length, WIDTH), dtype="float64")
    weights = {name: w.requires_grad_() for name, w in found.weights().items()}
    inputs = random_inputs(1, length, WIDTH).requires_grad_()
    expected = torch.stack([MIXERS[layer](weights, row) for row in inputs])
    assert_close(found.output(), expected, EXACT, "output")

    weigh = weigher()
    weigh(expected).backward()
    grads = gradients(found.model, weigh(found.output()))
    assert_close(grads["embed.weight"][:length].view_as(inputs), inputs.grad, EXACT, "inputs")
    for name, weight in weights.items():
        [full] = [n for n in grads if n.partition(".")[2] == name and not n.startswith("lm_head")]
        wanted = torch.zeros_like(weight) if weight.grad is None else weight.grad
        assert_close(grads[full], wanted, EXACT, name)


# --- how they start ---------------------------------------------------------------------------------


def fresh(layer: str, depth: int = 1, width: int = 64) -> list[dict[str, Tensor]]:
    """The weights of each of several layers, as they are drawn."""
    model = built(f"embed(dim = {width}, vocab = 5) repeat(times = {depth}) {{ {layer} }} lm_head")
    found: list[dict[str, Tensor]] = [{} for _ in range(depth)]
    for name, weight in model.state_dict().items():
        if name.startswith("repeat."):
            index, _, rest = name.removeprefix("repeat.").partition(".")
            found[int(index)][rest.partition(".")[2]] = weight
    return found


def assert_within(x: Tensor, low: float, high: float) -> None:
    """Inside the bounds, and reaching over most of what is between."""
    assert low - 1e-5 <= float(x.min()), float(x.min())
    assert float(x.max()) <= high + 1e-5, float(x.max())
    assert float(x.max() - x.min()) > 0.6 * (high - low)


def test_rg_lru_forgets_between_a_tenth_and_a_thousandth() -> None:
    [w] = fresh("rg_lru(heads = 4)")
    assert_within(torch.sigmoid(-w["layers.0.cell.rate"]) ** 8, 0.9, 0.999)


def test_lru_starts_on_its_ring_with_inputs_normalised() -> None:
    [w] = fresh("lru(r_min = 0.5, r_max = 0.9, phase = 0.3)")
    size = torch.exp(-torch.exp(w["nu"]))
    assert_within(size**2, 0.25, 0.81)
    assert_within(torch.exp(w["theta"]), 0, 0.3)
    assert_close(torch.exp(w["gamma"]), torch.sqrt(1 - size**2), 1e-5)


def test_state_spaces_start_with_published_spectra() -> None:
    [s4d], [s5], [mamba] = fresh("s4d(states = 4)"), fresh("s5"), fresh("mamba(expand = 1)")
    turns = math.pi * torch.arange(4.0)
    assert_close(s4d["turn"], turns.expand(64, 4), 1e-5)
    assert_close(torch.exp(s4d["rate"]), torch.full((64, 4), 0.5), 1e-6)
    rates = torch.exp(mamba["layers.0.cell.rate"])
    assert_close(rates, torch.arange(1.0, 17).expand(64, 16), 1e-4)
    for step in (torch.exp(s4d["step"]), torch.exp(s5["step"])):
        assert_within(step.log(), math.log(1e-3), math.log(1e-1))
    assert_within(
        torch.log1p(mamba["layers.0.cell.start"].exp()).log(), math.log(1e-3), math.log(1e-1)
    )


def test_s5_turns_at_the_frequencies_of_hippo() -> None:
    [w] = fresh("s5", width=16)
    n = torch.arange(32, dtype=torch.float64)
    root = torch.sqrt(2 * n + 1)
    legs = -torch.tril(torch.outer(root, root), -1) - torch.diag(n + 1)
    normal = legs + torch.outer(root, root) / 2
    spectrum = torch.linalg.eigvals(normal)
    assert_close(spectrum.real, torch.full((32,), -0.5), 1e-6)
    wanted = spectrum.imag[spectrum.imag > 0].sort().values
    assert_close(w["turn"].sort().values, wanted.float(), 1e-4)


def test_s4d_starts_at_the_frequencies_that_are_asked_for() -> None:
    """Of the paper's N = 8 states, the half that are not conjugates."""
    inverse = [8 / math.pi * (8 / (2 * n + 1) - 1) for n in range(4)]
    root = torch.sqrt(2 * torch.arange(8, dtype=torch.float64) + 1)
    normal = torch.outer(root, root) / 2
    legs = torch.linalg.eigvals(normal.triu(1) - normal.tril(-1)).imag.sort().values[4:]
    starts = {"s4d_inv": torch.tensor(inverse), "hippo": legs.float()}
    for name, wanted in starts.items():
        [w] = fresh(f"s4d(states = 4, frequencies = {name})")
        assert_close(w["turn"], wanted.expand(64, 4), 1e-5)


def test_bounds_of_hgrn_rise_with_depth() -> None:
    for layer in ("hgrn", "hgrn2(heads = 2)"):
        layers = fresh(layer, depth=4)
        found = [float(torch.sigmoid(w["decay_gate.bound"]).mean()) for w in layers]
        assert found == pytest.approx([0.001, 0.25, 0.5, 0.75], abs=1e-4)


def test_delta_rules_forget_at_rates_up_to_sixteen() -> None:
    for layer in ("gated_deltanet(heads = 32)", "deltaproduct(heads = 32)", "comba(heads = 32)"):
        [w] = fresh(layer, width=256)
        assert_within(torch.exp(w["decay_gate.A_log"]), 0, 16)


def test_mlstm_starts_with_its_input_closed_and_its_memory_kept() -> None:
    [w] = fresh("mlstm(heads = 4)")
    assert_close(w["decay_gate.bias"], torch.linspace(3, 6, 4), 1e-6)
    assert_close(w["rate.bias"], torch.full((4,), -10.0), 1e-6)
    assert not w["rate.weight"].any()
    assert not w["decay.weight"].any()


def test_the_first_block_of_mlstm_starts_with_open_gates_whatever_comes() -> None:
    [w] = fresh("mlstm_block(heads = 4)")
    assert_close(w["decay_gate.bias"], torch.linspace(3, 6, 4), 1e-6)
    for part in ("query", "key", "value"):
        assert not w[f"rate_{part}.weight"].any()
        assert not w[f"decay_{part}.weight"].any()
    assert_close(w["skip.weight"], torch.ones(128), 1e-6)


def test_slstm_starts_without_recurrence_and_forgets_at_many_rates() -> None:
    [w] = fresh("slstm(heads = 4)")
    assert not any(w[f"0.cell.{gate}_h"].any() for gate in "ziof")
    assert_close(w["0.cell.fx1"], 5 - 12 * (torch.arange(64) / 63) ** 0.3, 1e-5)


def test_rwkv6_starts_deeper_layers_otherwise() -> None:
    first, _, last = fresh("rwkv6(heads = 4)", depth=3)
    along = torch.arange(64) / 64
    rising = torch.linspace(0, 1, 64)
    assert_close(first["shift.mix"][2], 1 - along, 1e-6)
    assert_close(last["shift.mix"][3], 1 - along ** (1 / 3) - 0.3, 1e-6)
    assert_close(first["decay_gate.bias"], -6 + 5 * rising**0.7, 1e-5)
    assert_close(last["decay_gate.bias"], -6 + 5 * rising**2, 1e-5)
    assert_close(
        last["memory.bonus"].flatten()[:3], 1 - rising[:3] + torch.tensor([0, 0.1, -0.1]), 1e-6
    )
    assert_close(first["norm.weight"], torch.full((64,), (1 / 3) ** 0.7), 1e-6)
    assert not first["shift.down"].any()
    assert not first["decay_down.weight"].any()


def test_rwkv7_starts_alike_for_every_token() -> None:
    first, last = fresh("rwkv7(heads = 4)", depth=2)
    for name in ("decay_down.weight", "rate_down.weight", "gate_down.weight"):
        assert not first[name].any()
    assert not last["value_residual.down"].any()
    within = torch.arange(-7.5, 8) / 7.5
    zigzag = (within * within.abs()).repeat(4)
    along = torch.arange(64) / 63
    assert_close(first["rate.bias"], -0.19 + 0.3 * zigzag + 0.4 * (along - 0.5), 1e-6)
    assert_close(last["decay_gate.bias"], -5.5 + 6 * along**2 + 2.5 * zigzag, 1e-5)
    assert_close(last["norm.weight"], torch.ones(64), 1e-6)


def test_token_shifts_of_deep_channel_mixers_start_at_the_token() -> None:
    layers = fresh("token_shift(power = 3)", depth=2)
    along = torch.arange(64) / 64
    for weights, left in zip(layers, (1, 1 / 8), strict=True):
        assert_close(weights["mix"][0], 1 - along**left, 1e-6)


def test_rwkv7_never_forgets_more_than_half() -> None:
    model = built("embed(dim = 8, vocab = 5) rwkv7(heads = 2) lm_head")
    gate = model.get_submodule("rwkv7.decay_gate")
    log_decay = gate(1e3 * torch.randn(2, 9, 8)).detach()
    assert_within(log_decay, -math.exp(-0.5), 0)
