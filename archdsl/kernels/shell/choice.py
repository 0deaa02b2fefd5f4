"""Which form of a shell function runs, and what the CPU forms share: blocks of rows, activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from archdsl.kernels.common import triton_refusal

Form = Literal["plain", "cpu", "triton"]

FEW = 2**13
"""Elements up to which PyTorch's own operations are quicker than what a fused form sets up."""

BLOCK = 2**18
"""Elements of a tensor worked on at a time, so that a block and its intermediates stay in cache."""

aten = torch.ops.aten


def choice(*tensors: Tensor, backend: Form | None = None) -> Form:
    """The form for these tensors, or `backend` where it is given; all must fit the fused forms."""
    first = tensors[0]
    if backend is not None:
        if backend == "triton" and triton_refusal(first, asked=True):
            raise ValueError(f"backend 'triton' cannot run: {triton_refusal(first, asked=True)}")
        return backend
    if first.numel() <= FEW and first.device.type == "cpu":
        return "plain"
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(first.device.type):
        return "plain"
    if any(x.dtype != first.dtype for x in tensors) or first.numel() == 0:
        return "plain"
    if first.device.type == "cpu":
        return "cpu" if first.dtype in (torch.float32, torch.float64) else "plain"
    return "plain" if triton_refusal(first) else "triton"


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of as many rows each, some rows at a time; sized by the first one's columns."""
    first = tensors[0]
    rows = max(1, BLOCK // max(1, first.shape[1]))
    if len(first) <= rows:
        yield tensors
        return
    parts = [x.split(rows) for x in tensors]  # type: ignore[no-untyped-call]
    yield from zip(*parts, strict=True)


class Activation(NamedTuple):
    """An activation, and its gradient `(grad, x, out)`; both write into `out`."""

    apply: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor, Tensor], object]
    plain: Callable[[Tensor], Tensor]


def _silu(x: Tensor, out: Tensor) -> None:
    aten.silu.out(x, out=out)


def _silu_backward(grad: Tensor, x: Tensor, out: Tensor) -> None:
    aten.silu_backward.grad_input(grad, x, grad_input=out)


def _sigmoid_backward(grad: Tensor, x: Tensor, out: Tensor) -> None:
    aten.sigmoid_backward.grad_input(grad, torch.sigmoid(x), grad_input=out)


ACTIVATIONS = {
    "silu": Activation(_silu, _silu_backward, functional.silu),
    "sigmoid": Activation(
        lambda x, out: torch.sigmoid(x, out=out), _sigmoid_backward, torch.sigmoid
    ),
    "none": Activation(
        lambda x, out: out.copy_(x), lambda grad, x, out: out.copy_(grad), lambda x: x
    ),
}
"""Activations that have fused forms, by the language's names."""
