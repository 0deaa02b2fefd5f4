"""Norms, channel mixers, convolutions, positions and containers against their formulas, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from blocks.probe import gradients, probe, random_inputs, weigher
from blocks.written import built
from tolerances import EXACT, assert_close
from torch import Tensor

WIDTH = 6

ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "none": lambda x: x,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "relu": lambda x: max(x, 0.0),
    "relu2": lambda x: max(x, 0.0) ** 2,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "elu1": lambda x: x + 1 if x > 0 else math.exp(x),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
}


def elementwise(function: str, x: Tensor) -> Tensor:
    values = [ACTIVATIONS[function](value) for value in x.flatten().tolist()]
    return torch.tensor(values, dtype=x.dtype).view_as(x)


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activation_is_its_formula(function: str) -> None:
    x = random_inputs(2, 5, WIDTH)
    found = probe(f"activation({function})", x, dtype="float64")
    assert_close(found.output(), elementwise(function, x), EXACT)


@pytest.mark.parametrize("bias", ["true", "false"])
@pytest.mark.parametrize("function", ACTIVATIONS)
def test_mlp_is_two_products_around_its_activation(function: str, bias: str) -> None:
    x = random_inputs(2, 3, WIDTH)
    found = probe(f"mlp(expand = 2, activation = {function}, bias = {bias})", x, dtype="float64")
    w = found.weights()
    inner = elementwise(function, x @ w["up.weight"].T + w.get("up.bias", 0))
    assert_close(found.output(), inner @ w["down.weight"].T + w.get("down.bias", 0), EXACT)


@pytest.mark.parametrize("bias", ["true", "false"])
@pytest.mark.parametrize("function", ACTIVATIONS)
def test_swiglu_gates_one_product_by_another(function: str, bias: str) -> None:
    x = random_inputs(2, 3, WIDTH)
    found = probe(f"swiglu(expand = 2, activation = {function}, bias = {bias})", x, dtype="float64")
    w = found.weights()
    gate = elementwise(function, x @ w["gate.weight"].T + w.get("gate.bias", 0))
    product = gate * (x @ w["up.weight"].T + w.get("up.bias", 0))
    assert_close(found.output(), product @ w["down.weight"].T + w.get("down.bias", 0), EXACT)


@pytest.mark.parametrize(
    ("expand", "width", "inner"), [("2", 6, 12), ("8/3", 6, 16), ("8/3", 16, 48), ("5/2", 5, 16)]
)
def test_inner_width_is_whole_or_the_next_multiple_of_eight(
    expand: str, width: int, inner: int
) -> None:
    found = probe(f"swiglu(expand = {expand})", random_inputs(1, 2, width))
    assert found.weights()["up.weight"].shape == (inner, width)


@pytest.mark.parametrize("eps", ["1e-6", "0.1"])
def test_rms_norm_divides_by_the_root_mean_square(eps: str) -> None:
    x = random_inputs(2, 3, WIDTH)
    found = probe(f"rms_norm(eps = {eps}, bias = true)", x, dtype="float64")
    w = found.weights()
    mean = sum(x[..., i] ** 2 for i in range(WIDTH)) / WIDTH
    expected = x / torch.sqrt(mean + float(eps))[..., None] * w["weight"] + w["bias"]
    assert_close(found.output(), expected, EXACT)


@pytest.mark.parametrize("bias", ["true", "false"])
def test_layer_norm_centres_and_divides_by_the_standard_deviation(bias: str) -> None:
    x = random_inputs(2, 3, WIDTH)
    found = probe(f"layer_norm(eps = 0.01, bias = {bias})", x, dtype="float64")
    w = found.weights()
    mean = sum(x[..., i] for i in range(WIDTH)) / WIDTH
    centred = x - mean[..., None]
    variance = sum(centred[..., i] ** 2 for i in range(WIDTH)) / WIDTH
    expected = centred / torch.sqrt(variance + 0.01)[..., None] * w["weight"] + w.get("bias", 0)
    assert_close(found.output(), expected, EXACT)


CONVOLUTIONS = [
    "kernel = 1",
    "kernel = 4",
    "kernel = 3, dilation = 5",
    "kernel = 2, bias = true, activation = silu",
    "kernel = 5, causal = false",
    "kernel = 3, dilation = 2, causal = false, bias = true, activation = gelu",
]


@pytest.mark.parametrize("length", [1, 2, 11])
@pytest.mark.parametrize("arguments", CONVOLUTIONS)
def test_convolution_sums_its_taps(arguments: str, length: int) -> None:
    x = random_inputs(2, length, WIDTH)
    found = probe(f"conv({arguments})", x, dtype="float64")
    w = found.weights()
    given = dict(part.split(" = ") for part in arguments.split(", "))
    kernel, dilation = int(given["kernel"]), int(given.get("dilation", 1))
    ahead = (kernel - 1) // 2 * dilation if "causal" in given else 0
    expected = torch.zeros_like(x) + w.get("bias", 0)
    for t in range(length):
        for tap in range(kernel):
            seen = t + ahead - (kernel - 1 - tap) * dilation
            if 0 <= seen < length:
                expected[:, t] += w["weight"][:, tap] * x[:, seen]
    assert_close(found.output(), elementwise(given.get("activation", "none"), expected), EXACT)


@pytest.mark.parametrize("bias", ["true", "false"])
def test_linear_is_one_product_to_the_new_width(bias: str) -> None:
    x = random_inputs(2, 3, WIDTH)
    found = probe(f"linear(dim = 4, bias = {bias})", x, width=4, dtype="float64")
    w = found.weights()
    assert_close(found.output(), x @ w["weight"].T + w.get("bias", 0), EXACT)


@pytest.mark.parametrize("scale", ["1", "0.25", "0"])
def test_residual_adds_its_branch_times_the_scale(scale: str) -> None:
    x = random_inputs(2, 3, WIDTH)
    found = probe(f"residual(scale = {scale}) {{ linear }}", x, dtype="float64")
    branch = x @ found.weights()["linear.weight"].T
    assert_close(found.output(), x + float(scale) * branch, EXACT)


def test_residual_learns_a_scale_a_channel_from_one() -> None:
    x = random_inputs(2, 3, WIDTH)
    found = probe("residual(scale = learned) { linear }", x, dtype="float64")
    w = found.weights()
    assert_close(found.output(), x + w["scale"] * (x @ w["linear.weight"].T), EXACT)
    fresh = built(f"embed(dim = {WIDTH}, vocab = 3) residual(scale = learned) {{ linear }}")
    assert torch.equal(fresh.state_dict()["residual.scale"], torch.ones(WIDTH))


def test_the_order_inside_a_residual_is_the_placement_of_its_norms() -> None:
    x = random_inputs(1, 3, WIDTH)
    found = probe("residual { rms_norm linear layer_norm(bias = false) }", x, dtype="float64")
    w = found.weights()
    inner = x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-6) * w["rms_norm.weight"]
    branch = inner @ w["linear.weight"].T
    branch = branch - branch.mean(-1, keepdim=True)
    branch = branch / torch.sqrt((branch**2).mean(-1, keepdim=True) + 1e-5)
    assert_close(found.output(), x + branch * w["layer_norm.weight"], EXACT)


MIXES: dict[str, Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]] = {
    "sum": lambda a, b, w: a + b,
    "mean": lambda a, b, w: (a + b) / 2,
    "concat": lambda a, b, w: torch.cat([a, b], -1),
    "gate": lambda a, b, w: (
        (a * w["weight"][0].exp() + b * w["weight"][1].exp()) / w["weight"].exp().sum()
    ),
}


@pytest.mark.parametrize("mix", MIXES)
def test_parallel_mixes_its_branches(mix: str) -> None:
    x = random_inputs(2, 3, WIDTH)
    width = 2 * WIDTH if mix == "concat" else WIDTH
    text = f"parallel(mix = {mix}) {{ linear activation(tanh) }}"
    found = probe(text, x, width=width, dtype="float64")
    w = found.weights()
    first = x @ w["branches.0.linear.weight"].T
    assert_close(found.output(), MIXES[mix](first, torch.tanh(x), w), EXACT)


def test_sinusoidal_positions_are_sines_then_cosines() -> None:
    x = random_inputs(1, 9, WIDTH)
    text = f"embed(dim = {WIDTH}, vocab = 9, position = sinusoidal) lm_head"
    model = built(text, dtype="float64")
    with torch.no_grad():
        model.get_parameter("embed.weight").copy_(x[0])
        model.get_parameter("lm_head.weight").copy_(torch.eye(9, WIDTH))
    half = WIDTH // 2
    angles = [[t * 10_000 ** (-i / half) for i in range(half)] for t in range(9)]
    signal = [[*map(math.sin, row), *map(math.cos, row)] for row in angles]
    expected = x + torch.tensor(signal, dtype=torch.float64)
    assert_close(model(torch.arange(9)[None])[..., :WIDTH], expected, EXACT)


def test_learned_positions_are_rows_of_their_table() -> None:
    text = "embed(dim = 3, vocab = 5, position = learned, positions = 4) lm_head"
    model = built(text, dtype="float64")
    with torch.no_grad():
        model.get_parameter("lm_head.weight").copy_(torch.eye(5, 3))
    w = model.state_dict()
    tokens = torch.tensor([[4, 0, 1]])
    expected = w["embed.weight"][tokens[0]] + w["embed.positions"][:3]
    assert_close(model(tokens)[0, :, :3], expected, EXACT)


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_classifier_gives_one_row_of_logits_from_the_pooled_sequence(pool: str) -> None:
    model = built(f"embed(dim = 3, vocab = 5) classifier(classes = 4, pool = {pool})")
    tokens = torch.tensor([[4, 0, 1]])
    w = model.state_dict()
    rows = w["embed.weight"][tokens[0]]
    pooled = rows[-1] if pool == "last" else rows.mean(0)
    expected = pooled @ w["classifier.head.weight"].T + w["classifier.head.bias"]
    assert model(tokens).shape == (1, 1, 4)
    torch.testing.assert_close(model(tokens)[0, 0], expected)


@pytest.mark.parametrize(
    "layer",
    ["mlp(bias = true)", "swiglu", "rms_norm", "layer_norm", "conv(kernel = 3, bias = true)"],
)
def test_gradients_are_the_slopes_of_the_loss(layer: str) -> None:
    """By central differences along a random direction: for what is built of PyTorch's own operations."""
    x = random_inputs(1, 4, WIDTH)
    found = probe(layer, x, dtype="float64")
    weigh, step = weigher(), 1e-6
    slopes = gradients(found.model, weigh(found.output()))
    generator = torch.Generator().manual_seed(5)
    before = {name: weight.clone() for name, weight in found.model.state_dict().items()}
    way = {
        n: torch.randn(w.shape, generator=generator, dtype=w.dtype)
        for n, w in before.items()
        if not n.startswith("lm_head")
    }
    losses = []
    for sign in (1, -1):
        moved = {n: w + sign * step * way[n] if n in way else w for n, w in before.items()}
        found.model.load_state_dict(moved)
        losses.append(float(weigh(found.output()).detach()))
    expected = sum(float((slopes[name] * way[name]).sum()) for name in way)
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(expected, rel=1e-6)
