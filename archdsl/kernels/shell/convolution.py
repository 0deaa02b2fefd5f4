"""Short causal convolution, activation and unit length in one: what stands in front of a memory.

`c_t = b + sum_j w_j x_{t - (K - 1 - j)}` a channel, `a = f(c)`, and where asked each head's slice of `a`
divided by `sqrt(sum a^2 + eps)`. For a few taps, adding shifted rows needs no other layout than the
one the projections give, and the gradient to the taps is one sum a tap.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.flop_counter import flop_registry, register_flop_formula

from archdsl.kernels.shell.choice import ACTIVATIONS, BLOCK, Form, choice

EPSILON = 1e-6
"""Added under the root of a length, as published code has it."""

MOST_TAPS = 8
"""Longer filters are convolutions of PyTorch's."""


def short_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    function: str = "silu",
    heads: int = 0,
    backend: Form | None = None,
) -> Tensor:
    """Filter x [B, T + K - 1, D], the first K - 1 tokens of which are past -> [B, T, D].

    weight [D, K], its last tap for the current token; bias [D]; `heads` > 0 brings each of so many
    slices of the channels to unit length.
    """
    fused = function in ACTIVATIONS and weight.shape[1] <= MOST_TAPS
    form = choice(x, weight, backend=backend) if fused else "plain"
    if form == "plain":
        return _plain(x, weight, bias, function, heads)
    y: Tensor = _Convolution.apply(x, weight, bias, function, heads, form)  # type: ignore[no-untyped-call]
    return y


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None, function: str, heads: int) -> Tensor:
    y = functional.conv1d(x.transpose(1, 2), weight[:, None], bias, groups=x.shape[2])
    y = ACTIVATIONS[function].plain(y.transpose(1, 2).to(x.dtype))  # autocast would narrow it
    return unit_heads(y, heads) if heads else y


def unit_heads(x: Tensor, heads: int) -> Tensor:
    """Each of `heads` slices of the last axis at unit length."""
    wide = x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)
    wide = wide.float() if x.dtype in (torch.bfloat16, torch.float16) else wide
    length = wide.square().sum(-1, keepdim=True)
    return (wide * torch.rsqrt(length + EPSILON)).flatten(-2).to(x.dtype)


@torch.library.custom_op("archdsl::short_convolution", mutates_args=())
def filter_op(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution alone, as an operator, so that its FLOPs are counted."""
    y = x.new_empty(x.shape[0], x.shape[1] - weight.shape[1] + 1, x.shape[2])
    taps = weight.t().contiguous()
    for row, into in zip(x, y, strict=True):
        for start, stop in spans(into):
            part = into[start:stop]
            torch.mul(row[start:stop], taps[0], out=part)
            for shift in range(1, len(taps)):
                part.addcmul_(row[start + shift : stop + shift], taps[shift])
            if bias is not None:
                part += bias
    return y


@filter_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1] - weight.shape[1] + 1, x.shape[2])


def spans(x: Tensor) -> list[tuple[int, int]]:
    """Starts and ends of blocks of the rows of x [T, D] that stay in cache."""
    rows = max(1, BLOCK // x.shape[1])
    return [(start, min(start + rows, len(x))) for start in range(0, len(x), rows)]


def filter_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients to x [B, T + K - 1, D] and to the taps, from `grad` [B, T, D]."""
    taps = weight.t().contiguous()
    d_x, d_taps = torch.zeros_like(x, memory_format=torch.contiguous_format), torch.zeros_like(taps)
    for row, u, into in zip(x, grad, d_x, strict=True):
        for start, stop in spans(u):
            part = u[start:stop]
            for shift, (tap, d_tap) in enumerate(zip(taps, d_taps, strict=True)):
                window = slice(start + shift, stop + shift)
                into[window].addcmul_(part, tap)
                d_tap += (row[window] * part).sum(0)
    return d_x, d_taps.t()


class _Convolution(torch.autograd.Function):
    """`short_convolution`; keeps what the activation was given."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        function: str,
        heads: int,
        form: Form,
    ) -> Tensor:
        ctx.function, ctx.heads, ctx.form = function, heads, form
        c: Tensor
        y: Tensor
        if form == "triton":
            gpu = importlib.import_module("archdsl.kernels.shell.triton_convolution")
            c, y = gpu.forward(x, weight, bias, function, heads)
        else:
            c = filter_op(x, weight, bias)
            y = activated(c, function, heads)
        ctx.save_for_backward(x, weight, c)
        ctx.biased = bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, c = ctx.saved_tensors
        if ctx.form == "triton":
            gpu = importlib.import_module("archdsl.kernels.shell.triton_convolution")
            d_x, d_weight, d_bias = gpu.backward(grad, x, weight, c, ctx.function, ctx.heads)
        else:
            d_c = activation_backward(grad, c, ctx.function, ctx.heads)
            d_x, d_weight = filter_backward(d_c, x, weight)
            d_bias = d_c.sum((0, 1))
        return d_x, d_weight, d_bias if ctx.biased else None, None, None, None


def _inverse_length(x: Tensor) -> Tensor:
    """`(sum x^2 + eps)^-1/2` of rows: [N, S] -> [N, 1]."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return length.square_().add_(EPSILON).rsqrt_()


def activated(c: Tensor, function: str, heads: int) -> Tensor:
    """`f(c)`, each of `heads` > 0 slices of the last axis at unit length."""
    y = torch.empty_like(c)
    ACTIVATIONS[function].apply(c, y)
    if heads:
        wide = y.view(-1, y.shape[-1] // heads)
        wide *= _inverse_length(wide)
    return y


def activation_backward(grad: Tensor, c: Tensor, function: str, heads: int) -> Tensor:
    """The gradient to what the activation was given."""
    activation, out = ACTIVATIONS[function], torch.empty_like(c)
    if heads:
        activation.apply(c, out)
        unit = out.view(-1, c.shape[-1] // heads)
        scale = _inverse_length(unit)
        unit *= scale
        u = grad.reshape(unit.shape)
        along = (u * unit).sum(1, keepdim=True)
        grad = torch.addcmul(u, unit, along, value=-1).mul_(scale).view(c.shape)
    activation.backward(grad, c, out)
    return out


def _count(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    """FLOPs: a multiply-add a tap."""
    return int(2 * x[0] * (x[1] - weight[1] + 1) * x[2] * weight[1])


if torch.ops.archdsl.short_convolution not in flop_registry:
    register_flop_formula(torch.ops.archdsl.short_convolution)(_count)
