"""The shell's fused CPU forms against their plain ones, and the fused loss against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from archdsl.kernels.shell import choice, products
from archdsl.kernels.shell.convolution import filter_op, short_convolution
from archdsl.kernels.shell.gate import gated_unit
from archdsl.kernels.shell.loss import linear_cross_entropy
from archdsl.kernels.shell.norm import add_norm, gated_norm, rms_norm
from archdsl.kernels.shell.products import linear, product_op, suits

LIMITS = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Relative to the largest element: rows of up to 200 numbers, ten roundings a number, and a sum over
all rows for what is shared; float64 with three digits to spare."""

Call = Callable[..., Tensor]


def gated(function: str, first: bool) -> Call:
    return lambda backend, *x: gated_norm(*x, 1e-6, function, first, backend)


def unit(function: str, swapped: bool) -> Call:
    return lambda backend, x: gated_unit(x, function, swapped, backend)


def convolution(function: str, heads: int, biased: bool = True) -> Call:
    def call(backend: str, *x: Tensor) -> Tensor:
        return short_convolution(*x, *([] if biased else [None]), function, heads, backend)

    return call


ROWS = (3, 37, 24)
FILTER = [(2, 40, 12), (12, 4)]

CASES: dict[str, tuple[Call, list[tuple[int, ...]]]] = {
    "norm": (lambda backend, *x: rms_norm(*x, 1e-6, backend), [ROWS, (24,)]),
    "add, norm": (
        lambda backend, *x: torch.cat(add_norm(*x, 1e-6, backend)),
        [ROWS, ROWS, (24,)],
    ),
    **{
        f"{function} gate {'in front' if first else 'behind'}": (
            gated(function, first),
            [ROWS, ROWS, (24,)],
        )
        for function in choice.ACTIVATIONS
        for first in (False, True)
    },
    **{
        f"{function} unit {swapped}": (unit(function, swapped), [ROWS])
        for function in choice.ACTIVATIONS
        for swapped in (False, True)
    },
    "convolution": (convolution("none", 0), [*FILTER, (12,)]),
    "convolution, silu": (convolution("silu", 0, biased=False), FILTER),
    "convolution, silu, unit": (convolution("silu", 3), [*FILTER, (12,)]),
    "one tap": (convolution("sigmoid", 2, biased=False), [(2, 9, 12), (12, 1)]),
}


def evidence(
    call: Call, shapes: list[tuple[int, ...]], backend: str, dtype: torch.dtype
) -> list[Tensor]:
    """Output and gradients from fixed inputs."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    inputs = [x.to(dtype).requires_grad_() for x in drawn]
    output = call(backend, *inputs)
    weights = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(dtype)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), inputs)]


@pytest.mark.parametrize("block", [2**18, 64], ids=["whole", "blocks"])
@pytest.mark.parametrize("dtype", LIMITS, ids=["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_fused_forms_are_the_plain_ones(
    name: str, dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (choice, __import__(short_convolution.__module__, fromlist=["BLOCK"])):
        monkeypatch.setattr(module, "BLOCK", block)
    call, shapes = CASES[name]
    found, plain = (evidence(call, shapes, backend, dtype) for backend in ("cpu", "plain"))
    for got, expected in zip(found, plain, strict=True):
        assert float((got - expected).abs().max() / expected.abs().max()) <= LIMITS[dtype]


@pytest.mark.parametrize("name", ["norm", "silu gate in front", "silu unit False", "one tap"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    call, shapes = CASES[name]
    small = [tuple(min(size, 4) for size in shape) for shape in shapes]
    if name == "one tap":
        small = [(1, 3, 4), (4, 1)]
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in small
    ]
    assert torch.autograd.gradcheck(lambda *x: call("cpu", *x), inputs)


# --- the loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [10**9, 100, 1], ids=["whole", "some rows", "a row"])
@pytest.mark.parametrize("biased", [False, True])
def test_the_loss_and_its_gradients_are_exact(at_once: int, biased: bool) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(50, 16), torch.randn(30, 16), *([torch.randn(30)] if biased else [])]
    inputs = [x.double().requires_grad_() for x in inputs]
    targets = torch.arange(50) % 30
    targets[::7] = -100
    x, weight, bias = [*inputs, None][:3]
    found = 3 * linear_cross_entropy(x, weight, bias, targets, at_once)
    expected = 3 * F.cross_entropy(F.linear(x, weight, bias), targets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    pairs = zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True
    )
    for got, right in pairs:
        torch.testing.assert_close(got, right, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("at_once", [30, 10_000])
def test_a_capped_loss_is_that_of_capped_logits(at_once: int) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(*s, dtype=torch.float64) for s in ((50, 8), (30, 8), (30,))]
    x, weight, bias = (part.requires_grad_() for part in inputs)
    targets = torch.arange(50) % 30
    targets[::7] = -100
    found = linear_cross_entropy(x, weight, bias, targets, at_once, cap=1.5)
    logits = 1.5 * torch.tanh(F.linear(x, weight, bias) / 1.5)
    expected = F.cross_entropy(logits, targets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    pairs = (torch.autograd.grad(loss, [x, weight, bias]) for loss in (found, expected))
    for got, right in zip(*pairs, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("counted", [1, 7, 25, 26])
def test_rows_without_a_target_change_nothing(counted: int) -> None:
    torch.manual_seed(counted)
    x, weight = (torch.randn(*s, dtype=torch.float64) for s in ((50, 8), (30, 8)))
    targets = torch.where(torch.randperm(50) < counted, torch.arange(50) % 30, -100)
    inputs = x.requires_grad_(), weight.requires_grad_()
    rows = (targets != -100)[:, None]
    chosen = F.linear(x, weight).log_softmax(1).gather(1, targets.clamp_min(0)[:, None])
    expected = -(chosen * rows).sum() / counted
    found = linear_cross_entropy(x, weight, None, targets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for got, right in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(got, right, rtol=1e-12, atol=1e-13)


def test_a_loss_without_targets_is_nothing_and_moves_nothing() -> None:
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    loss = linear_cross_entropy(x, weight, None, torch.full((4,), -100))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not x.grad.any()
    assert not weight.grad.any()


def test_logits_of_any_size_stay_finite() -> None:
    x, weight = torch.tensor([[1e4], [-1e4]]), torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss = linear_cross_entropy(x, weight, None, torch.tensor([0, 0]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1e4)
    assert bool(torch.isfinite(weight.grad).all())


# --- products ----------------------------------------------------------------------------------------


@pytest.mark.skipif(products.ONEDNN is None, reason="PyTorch was built without oneDNN")
@pytest.mark.parametrize("biased", [False, True])
def test_both_matrix_libraries_give_the_same(biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "PREFERRED", True)
    torch.manual_seed(0)
    x, weight = torch.randn(2, 300, 64), torch.randn(96, 64)
    bias = torch.randn(96) if biased else None
    assert suits(x, weight)
    found, plain = (
        differentiated(lambda *a, how=how: linear(*a, backend=how), x, weight, bias)
        for how in (None, "plain")
    )
    for got, expected in zip(found, plain, strict=True):
        assert float((got - expected).abs().max() / expected.abs().max()) <= 1e-5


def differentiated(call: Call, *given: Tensor | None) -> list[Tensor]:
    inputs = [None if x is None else x.clone().requires_grad_() for x in given]
    output, leaves = call(*inputs), [x for x in inputs if x is not None]
    return [output.detach(), *torch.autograd.grad(output.square().sum(), leaves)]


@pytest.mark.skipif(products.ONEDNN is None, reason="PyTorch was built without oneDNN")
@pytest.mark.parametrize("preferred", [False, True])
def test_products_add_up_in_either_library(
    preferred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "PREFERRED", preferred)
    torch.manual_seed(0)
    a, b, total = torch.randn(300, 64), torch.randn(96, 64), torch.randn(300, 96)
    expected = total.double() + a.double() @ b.double().t()
    products.add_product(total, a, b)
    assert float((total - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.skipif(products.ONEDNN is None, reason="PyTorch was built without oneDNN")
@pytest.mark.parametrize("preferred", [True, False], ids=["oneDNN", "PyTorch"])
def test_long_products_are_the_same_in_slices(
    monkeypatch: pytest.MonkeyPatch, preferred: bool
) -> None:
    monkeypatch.setattr(products, "PREFERRED", preferred)
    monkeypatch.setattr(products, "SLICE", 3000)
    torch.manual_seed(0)
    rows, table = torch.randn(40, 24), torch.randn(8000, 24)
    out, exact = torch.empty(40, 8000), rows.double() @ table.double().T
    products.fill_product(out, rows, table)
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
    back = products.long_product(out, table.t())
    torch.testing.assert_close(back.double(), exact @ table.double(), rtol=1e-5, atol=1e-2)
    total = torch.full((8000, 24), torch.nan)
    products.add_product(total, out.t(), rows.t(), first=True)
    products.add_product(total, out.t(), rows.t())
    wanted = 2 * exact.T @ rows.double()
    torch.testing.assert_close(total.double(), wanted, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("biased", [False, True])
def test_rows_that_lie_apart_are_the_same(biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "PREFERRED", False)
    monkeypatch.setattr(products, "LARGE", 0)
    torch.manual_seed(0)
    x, weight = torch.randn(2, 70, 64), torch.randn(99, 64)
    bias = torch.randn(99) if biased else None
    found, plain = (
        differentiated(lambda *a, loose=loose: linear(*a, loose=loose), x, weight, bias)
        for loose in (True, False)
    )
    assert linear(x, weight, bias, loose=True).stride() == (70 * 112, 112, 1)
    for got, expected in zip(found, plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def test_small_products_and_other_dtypes_stay_with_pytorch() -> None:
    assert not suits(torch.zeros(2, 8), torch.zeros(8, 8))
    assert not suits(torch.zeros(2000, 64).double(), torch.zeros(64, 64).double())


@pytest.mark.skipif(products.ONEDNN is None, reason="PyTorch was built without oneDNN")
def test_operators_keep_their_promises_and_are_counted() -> None:
    torch.library.opcheck(product_op, (torch.randn(40, 30), torch.randn(20, 30)))
    x, taps = torch.randn(2, 12, 6), torch.randn(6, 4)
    torch.library.opcheck(filter_op, (x, taps, None))
    with FlopCounterMode(display=False) as counter:
        filter_op(x, taps, None)
        product_op(torch.randn(40, 30), torch.randn(20, 30))
    assert counter.get_total_flops() == 2 * 2 * 9 * 6 * 4 + 2 * 40 * 30 * 20


def test_a_compiled_model_s_projection_is_one_graph() -> None:
    torch.compiler.reset()
    x, weight = torch.randn(300, 64), torch.randn(96, 64, requires_grad=True)
    compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, weight), F.linear(x, weight), rtol=1e-4, atol=1e-4)
    compiled(x, weight).sum().backward()
    torch.compiler.reset()
