"""The gated unit in Triton: both halves are read once, and their gradients written side by side."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.shell.triton_norm import FUNCTIONS, opened, opened_backward
from archdsl.kernels.triton_common import kernel, on

SHAPE = {"BLOCK": 1024, "num_warps": 4}


@kernel
def forward_kernel(
    joined: tl.tensor, y: tl.tensor, F: tl.constexpr, SWAPPED: tl.constexpr,
    FUNCTION: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """`f(gate) up` of one row and tile of channels."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    good = column < F
    first, second = joined + row * 2 * F + column, joined + row * 2 * F + F + column
    gate = tl.load(second if SWAPPED else first, mask=good, other=0.0).to(tl.float32)
    up = tl.load(first if SWAPPED else second, mask=good, other=0.0).to(tl.float32)
    tl.store(y + row * F + column, (opened(gate, FUNCTION) * up).to(y.dtype.element_ty), mask=good)


@kernel
def backward_kernel(
    grad: tl.tensor, joined: tl.tensor, d_joined: tl.tensor, F: tl.constexpr,
    SWAPPED: tl.constexpr, FUNCTION: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients of both halves of one row and tile of channels."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    good = column < F
    first, second = row * 2 * F + column, row * 2 * F + F + column
    gate_at, up_at = (second, first) if SWAPPED else (first, second)
    gate = tl.load(joined + gate_at, mask=good, other=0.0).to(tl.float32)
    up = tl.load(joined + up_at, mask=good, other=0.0).to(tl.float32)
    u = tl.load(grad + row * F + column, mask=good, other=0.0).to(tl.float32)
    kind = d_joined.dtype.element_ty
    tl.store(d_joined + gate_at, opened_backward(u * up, gate, FUNCTION).to(kind), mask=good)
    tl.store(d_joined + up_at, (u * opened(gate, FUNCTION)).to(kind), mask=good)


def forward(joined: Tensor, function: str, swapped: bool) -> Tensor:
    """The unit's output [N, F], from `joined` [N, 2 F]."""
    joined = joined.contiguous()
    width = joined.shape[1] // 2
    y = joined.new_empty(len(joined), width)
    grid = (len(joined), triton.cdiv(width, SHAPE["BLOCK"]))
    how = {"F": width, "SWAPPED": swapped, "FUNCTION": FUNCTIONS[function], **SHAPE}
    with on(joined.device):
        forward_kernel[grid](joined, y, **how)
    return y


def backward(grad: Tensor, joined: Tensor, function: str, swapped: bool) -> Tensor:
    """The gradient to `joined`."""
    joined = joined.contiguous()
    width, d_joined = joined.shape[1] // 2, torch.empty_like(joined)
    grid = (len(joined), triton.cdiv(width, SHAPE["BLOCK"]))
    how = {"F": width, "SWAPPED": swapped, "FUNCTION": FUNCTIONS[function], **SHAPE}
    with on(joined.device):
        backward_kernel[grid](grad.contiguous(), joined, d_joined, **how)
    return d_joined
