"""A matrix a group of sorted rows: ``y_n = W_g x_n`` for the rows ``n`` of group ``g``.

On a GPU one grouped product (``torch._grouped_mm``) where PyTorch has it for the dtype; elsewhere a
product a group. On a CPU that is the fastest form, and reading the offsets waits for nothing there.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from archdsl.kernels.shell.products import product

ALIGNED = 8
"""Channels of which PyTorch's grouped product needs a multiple, in bfloat16."""


@torch.library.custom_op("archdsl::grouped_linear", mutates_args=())
def grouped_op(x: Tensor, weight: Tensor, groups: Tensor) -> Tensor:
    """X [N, D], weight [G, E, D], groups [G + 1] offsets → [N, E]."""
    if _fast(x, weight):
        return _grouped_mm(x, weight.transpose(1, 2), groups)
    parts = pairwise(groups.tolist())
    return torch.cat([product(x[start:stop], weight[g]) for g, (start, stop) in enumerate(parts)])


@grouped_op.register_fake
def _(x: Tensor, weight: Tensor, groups: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@torch.library.custom_op("archdsl::grouped_linear_weight", mutates_args=())
def grouped_weight_op(grad: Tensor, x: Tensor, groups: Tensor) -> Tensor:
    """``Σ_n grad_n x_nᵀ`` a group: grad [N, E], x [N, D] → [G, E, D]."""
    if _fast(x, grad):
        return _grouped_mm(grad.T, x, groups)
    parts = [(grad[start:stop], x[start:stop]) for start, stop in pairwise(groups.tolist())]
    return torch.stack([product(rows.T, given.T) for rows, given in parts])


@grouped_weight_op.register_fake
def _(grad: Tensor, x: Tensor, groups: Tensor) -> Tensor:
    return x.new_empty(groups.shape[0] - 1, grad.shape[1], x.shape[1])


def _fast(x: Tensor, other: Tensor) -> bool:
    wide = x.shape[-1] % ALIGNED == 0 and other.shape[-1] % ALIGNED == 0
    sizes = wide and other.shape[-2] % ALIGNED == 0 if other.dim() == 3 else wide
    known = hasattr(torch, "_grouped_mm") and x.is_cuda and x.dtype == torch.bfloat16
    return known and sizes and torch.cuda.get_device_properties(x.device).major >= 9


def _grouped_mm(a: Tensor, b: Tensor, groups: Tensor) -> Tensor:
    """PyTorch's product; it takes where each group ends."""
    found: Tensor = torch._grouped_mm(a, b, offs=groups[1:].to(torch.int32))
    return found


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight, groups = ctx.saved_tensors
    grad = grad.contiguous()
    d_x = grouped_op(grad, weight.transpose(1, 2), groups)
    return d_x, grouped_weight_op(grad, x, groups), None


grouped_op.register_autograd(_differentiate, setup_context=_save)


def grouped_linear(x: Tensor, weight: Tensor, groups: Tensor) -> Tensor:
    """``W_g x_n``: x [N, D] sorted by group, weight [G, E, D], groups [G + 1] offsets → [N, E]."""
    dtype = torch.promote_types(x.dtype, weight.dtype)
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    found: Tensor = grouped_op(x.to(dtype), weight.to(dtype), groups)
    return found


@register_flop_formula(torch.ops.archdsl.grouped_linear)
def _count(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return int(2 * x[0] * x[1] * weight[1])


@register_flop_formula(torch.ops.archdsl.grouped_linear_weight)
def _count_weight(grad: Any, x: Any, *_: Any, **__: Any) -> int:
    return int(2 * x[0] * x[1] * grad[1])
