"""Projections: `x W^T + b` by the faster of the machine's two matrix libraries.

PyTorch gives float32 products on a CPU to MKL, which on processors not made by Intel takes a path
without their widest vectors. oneDNN, which is in the same build, generates code for the processor at
hand: on an AMD EPYC with AVX-512 it is twice as fast from about a million multiply-adds on, and a tenth
faster where those vectors take two turns (EPYC 9004). On one with AVX2 alone MKL's path is the right one,
and up to 1.5 times as fast in the products of a gradient.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.flop_counter import flop_registry, register_flop_formula

from archdsl.kernels.shell.choice import Form

WORTHWHILE = 2**20
"""Multiply-adds from which oneDNN's setting up is paid for."""

HEAVY = 2**19
"""Weights from which it is paid for by a single row: reading them is all there is to do."""


SLICE = 4096
"""Rows that oneDNN is given at a time where an operand has very many: it copies what is transposed and has
no result written in place, and both then cost what cache costs, and no memory new to the process."""


LINE = 16
"""Numbers a row is rounded up to, for MKL to write it: a cache line in float32. It takes 1.4 times as long
for rows that begin anywhere, on processors not made by Intel."""


LARGE = 2**26
"""Multiply-adds from which that matters."""

MANY = 64
"""Rows from which it does."""


def _onednn() -> Any:
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    there = built and platform.machine() in ("x86_64", "AMD64")
    found = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if there else None
    return None if found is None else found.default


ONEDNN = _onednn()
"""oneDNN's product `a b^T`, or None where this build or processor has none."""

PREFERRED = ONEDNN is not None and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
"""Whether oneDNN knows vectors of this processor that MKL may leave out."""


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether the product of `x` [..., in] and `weight` [out, in] is oneDNN's to compute."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.shape[-1] > 0
        and (x.numel() * weight.shape[0] >= WORTHWHILE or weight.numel() >= HEAVY)
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
        and PREFERRED
    )


def ragged(x: Tensor, weight: Tensor) -> bool:
    """Whether PyTorch multiplies x [..., in] and `weight` [out, in], and rows of `out` miss cache lines."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and weight.shape[0] % LINE > 0
        and x.numel() * weight.shape[0] >= LARGE
        and x.numel() >= MANY * x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not suits(x, weight)
    )


def spaced(x: Tensor, rows: int, columns: int) -> Tensor:
    """Unfilled rows of `columns` like x, each of which begins a cache line."""
    return x.new_empty(rows, -(-columns // LINE) * LINE)[:, :columns]


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    backend: Form | None = None,
    loose: bool = False,
) -> Tensor:
    """`x W^T + b`: x [..., in], weight [out, in], bias [out] -> [..., out].

    Rows of a `loose` result may lie apart in memory.
    """
    loose = loose and ragged(x, weight)
    if backend == "plain" or not (loose or suits(x, weight)):
        return functional.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    y: Tensor
    if torch.compiler.is_compiling():
        y = product_op(rows, weight)
        y = y if bias is None else y + bias
    elif torch.is_grad_enabled():
        y = _Linear.apply(rows, weight, bias, loose)  # type: ignore[no-untyped-call]
    else:
        y = forward(rows, weight, loose)
        y = y if bias is None else y.add_(bias)
    return y.view(*x.shape[:-1], weight.shape[0])


def forward(rows: Tensor, weight: Tensor, loose: bool) -> Tensor:
    """`product(rows, weight)`, whose rows lie apart where `loose`."""
    if not loose:
        return product(rows, weight)
    return torch.mm(rows, weight.t(), out=spaced(rows, len(rows), len(weight)))


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a b^T` [M, N] of a [M, K] and b [N, K], either of them transposed in memory or not."""
    if suits(a, b):
        found: Tensor = ONEDNN(a, b, None, "none", [], "")
        return found
    return a @ b.t()


def _slices(length: int) -> list[slice]:
    return [slice(start, start + SLICE) for start in range(0, length, SLICE)]


def fill_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Write `product(a, b)` to `out` [M, N], of their dtype; N may be long."""
    if not suits(a, b):
        torch.mm(a, b.t(), out=out)
        return
    for part in _slices(len(b)):
        out[:, part] = product(a, b[part])


def add_product(total: Tensor, a: Tensor, b: Tensor, first: bool = False) -> None:
    """Add `product(a, b)` to `total` [M, N] in place, of what was there nothing if `first`; M may be long."""
    if not suits(a, b) and total.dtype == a.dtype:
        # PyTorch's counter does not count `addmm_`
        torch.addmm(total, a, b.t(), beta=0 if first else 1, out=total)
        return
    for part in _slices(len(a)):
        found = product(a[part], b)
        total[part] = found if first else found.add_(total[part])


def long_product(a: Tensor, b: Tensor) -> Tensor:
    """`product(a, b)` of a [M, K] and b [N, K] where K may be long."""
    if not suits(a, b) or a.shape[1] <= SLICE:
        return product(a, b)
    return sum_of(product(a[:, part], b[:, part]) for part in _slices(a.shape[1]))


def sum_of(parts: Iterator[Tensor]) -> Tensor:
    """The sum of at least one tensor, in the first one's place."""
    total = next(parts)
    for part in parts:
        total += part
    return total


@torch.library.custom_op("archdsl::product", mutates_args=())
def product_op(a: Tensor, b: Tensor) -> Tensor:
    """`product` as one node for `torch.compile`."""
    found: Tensor = ONEDNN(a, b, None, "none", [], "")
    return found


@product_op.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[0])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _product_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    a, b = ctx.saved_tensors
    return product_op(grad, b.t()), product_op(grad.t(), a.t())


product_op.register_autograd(_product_backward, setup_context=_keep)


class _Linear(torch.autograd.Function):
    """`linear` of rows [M, in], and its three products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, loose: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        y = forward(x, weight, loose)
        return y if bias is None else y.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        want_x, want_weight, want_bias, _ = ctx.needs_input_grad
        return (
            product(grad, weight.t()) if want_x else None,
            product(grad.t(), x.t()) if want_weight else None,
            grad.sum(0) if want_bias else None,
            None,
        )


def _count(a: Any, b: Any, *_: Any, **__: Any) -> int:
    """FLOPs of `a b^T`, from the shapes."""
    return int(2 * a[0] * a[1] * b[0])


def _register() -> None:
    targets = [torch.ops.archdsl.product, getattr(torch.ops.mkldnn, "_linear_pointwise", None)]
    for target in targets:
        if target is not None and target not in flop_registry:
            register_flop_formula(target)(_count)


_register()
