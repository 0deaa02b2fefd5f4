"""Steps run by hand equal the same steps under autograd: outputs, last states and every gradient."""

from __future__ import annotations

import pytest
import torch
from tolerances import EXACT, assert_close
from torch import Tensor

import archdsl
from archdsl.blocks.equations import ELEMENTWISE
from archdsl.blocks.nn.base import Context
from archdsl.blocks.nn.cell import CellRecurrence

WIDTH = 6

BODIES = {
    "gated": "z = sigmoid(linear(x, h))  c = tanh(linear(x, h * z))  h = z * h + (1 - z) * c",
    "turned gate": "z = sigmoid(linear(x, h))  h = (1 - z) * h + z * tanh(linear(h))",
    "known part of a gate's sum": "z = sigmoid(linear(x))  h = z * h + (1 - z) * tanh(linear(x))",
    "known gate": "z = sigmoid(linear(x))  h = z * tanh(linear(h)) + (1 - z) * h",
    "linear of two values": "a = tanh(linear(h))  b = relu(linear(x, h))  h = tanh(linear(a, b))",
    "one product, two sums": "a = linear(h)  h = tanh(linear(x, a) + linear(a, h))",
    "the state is a product": "h = linear(x, h, gain = 1/2)",
    "no input": "h = tanh(linear(h))",
    "no bias": "h = tanh(linear(x, h, bias = false))",
    "squares": "a = linear(x, h)  h = tanh(a * a + a)",
    "learned numbers": "h = tanh(parameter(uniform(0, 1)) * h + linear(x) - 2 * x) / 2",
    "one argument twice": "h = tanh(linear(x, h, h, x))",
    "sums with a gap": (
        "a = linear(x, h)  b = linear(a, h)  c = linear(x, tanh(x), tanh(a))  d = linear(tanh(a), b, h)"
        "  h = tanh(linear(h, c, bias = false) + d)"
    ),
    "idle equation": "a = linear(h)  b = tanh(linear(a))  h = tanh(linear(x, h))",
    "known parts": "h = tanh(linear(h)) * sigmoid(linear(x)) + max(x, 1/3) * h / (2 + x * x)",
}
"""Cells of one state ``h``, which is their output."""

CELLS = {
    **{name: f"cell(state = [h], output = h) {{ {body} }}" for name, body in BODIES.items()},
    "exchange": "cell(state = [h, c], output = h) { d = tanh(linear(x, h))  h = c  c = d + c }",
    "both the same": "cell(state = [h, c], output = c) { d = tanh(linear(x, h, c))  h = d  c = d }",
    "output beside": "cell(state = [h], output = y) { h = tanh(linear(x, h))  y = sigmoid(linear(h)) }",
    "output before": "cell(state = [h], output = y) { y = linear(h)  h = tanh(linear(x, h)) }",
    "output is the input's": "cell(state = [h], output = y) { y = tanh(x)  h = tanh(linear(x, h)) }",
    "output is the old state": "cell(state = [h], output = y) { y = h  h = tanh(linear(x, h)) }",
    "narrower": f"cell(state = [h], output = h, width = 4) {{ {BODIES['gated']} }}",
    "kept": "cell(state = [h, c], output = h) { h = tanh(linear(x, h) + c)  c = c }",
}


def site(layer: str) -> CellRecurrence:
    """The module of a cell, in float64."""
    text = f"model {{ embed(dim = {WIDTH}, vocab = 9)  {layer}  lm_head }}"
    model = archdsl.loads(text).sample(0).compile(dtype="float64", seed=1)
    return next(module for module in model.modules() if isinstance(module, CellRecurrence))


def looked_at(
    cell: CellRecurrence, x: Tensor, start: dict[str, Tensor]
) -> dict[str, Tensor | None]:
    """Everything a call gives: output, last states, and the gradients of a mixture of them."""
    leaves = {"x": x, **start, **dict(cell.named_parameters())}
    output, after = cell(x, state=start, context=Context(keep=True))
    mixed = sum(
        (value * torch.linspace(-1, 2, value.numel()).view_as(value)).sum()
        for value in (output, *after.values())
    )
    found = torch.autograd.grad(mixed, list(leaves.values()), allow_unused=True)
    gradients = {f"d {name}": value for name, value in zip(leaves, found, strict=True)}
    return {"output": output, **{f"last {n}": v for n, v in after.items()}, **gradients}


def assert_alike(cell: CellRecurrence, steps: int) -> None:
    """Run a cell by hand and under autograd, and compare."""
    assert cell.op.steps is not None
    generator = torch.Generator().manual_seed(steps)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    x, start = leaf(3, steps, WIDTH), {name: leaf(3, cell.op.width) for name in cell.op.states}
    by_hand = looked_at(cell, x, start)
    cell.backend = "plain"
    expected = looked_at(cell, x, start)
    for name, value in expected.items():
        found = by_hand[name]
        if value is None or found is None:
            assert all(each is None or not each.any() for each in (value, found)), name
        else:
            assert_close(found, value, EXACT, name)


@pytest.mark.parametrize("name", CELLS)
def test_steps_by_hand_are_those_of_autograd(name: str) -> None:
    cell = site(CELLS[name])
    cell.op = cell.op.model_copy(update={"plan": "sequential"})
    assert_alike(cell, 5)


@pytest.mark.parametrize("function", [n for n, count in ELEMENTWISE.items() if count == 1])
def test_every_function_knows_its_slope(function: str) -> None:
    inner = "1 + h * h" if function in ("log", "sqrt") else "h + linear(x, h)"
    body = f"a = {function}({inner})  h = tanh(linear(x, a))"
    assert_alike(site(f"cell(state = [h], output = h) {{ {body} }}"), 3)


@pytest.mark.parametrize("function", [n for n, count in ELEMENTWISE.items() if count == 2])
def test_every_function_of_two_knows_its_slopes(function: str) -> None:
    body = f"a = {function}(linear(x, h), h)  b = {function}(h, 1/3)  h = tanh(a + b)"
    assert_alike(site(f"cell(state = [h], output = h) {{ {body} }}"), 3)


def test_without_gradients_the_values_are_the_same() -> None:
    cell = site(CELLS["gated"])
    x = torch.randn(2, 7, WIDTH, dtype=torch.float64)
    expected, after = cell(x, state=None, context=Context(keep=True))
    with torch.no_grad():
        found, last = cell(x, state=None, context=Context(keep=True))
    assert torch.equal(found, expected)
    assert all(torch.equal(last[name], after[name]) for name in after)


def test_weights_that_are_not_learned_get_no_gradient() -> None:
    cell = site(CELLS["gated"])
    cell.requires_grad_(False)
    x = torch.randn(2, 7, WIDTH, dtype=torch.float64, requires_grad=True)
    cell(x, state=None, context=Context())[0].sum().backward()
    assert x.grad is not None
    assert all(weight.grad is None for weight in cell.parameters())


@pytest.mark.parametrize(
    "layer",
    [
        "cell(state = [h], output = h) { h = norm(linear(x, h)) }",
        "cell(state = [h], output = h, heads = 2) { h = tanh(linear(x, h)) }",
        "cell(state = [h], output = h) { h = tanh(linear(x) + linear(h, diagonal = true)) }",
        "cell(state = [h], output = h) { h = tanh(linear(x) + linear(h, rank = 2)) }",
    ],
)
def test_what_is_no_whole_product_or_elementwise_function_is_left_to_autograd(layer: str) -> None:
    assert site(layer).op.steps is None
