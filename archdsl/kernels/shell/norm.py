"""RMS norm alone, with a gate in front or behind, and behind an addition.

The norm of a row `x` [S] is `x r w` with `r = (mean x^2 + eps)^-1/2` (arXiv 1910.07467). With `h = x r`
and `u` the gradient to `h w`, the gradients are `dx = r (u w - h (u w . h) / S)` and `dw = sum u h`.
Only `r` is kept beside the inputs; a gate's activation is computed again.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from archdsl.kernels.shell.choice import ACTIVATIONS, Activation, Form, blocks, choice


def rms_norm(x: Tensor, weight: Tensor, eps: float, backend: Form | None = None) -> Tensor:
    """`x r w` over the last axis: x [..., S], weight [S] -> [..., S]."""
    form = choice(x, weight, backend=backend)
    if form == "plain":
        return _plain(x, weight, eps)
    y: Tensor = _Norm.apply(_rows(x), weight, eps, form)  # type: ignore[no-untyped-call]
    return y.view(x.shape)


def gated_norm(
    x: Tensor,
    gate: Tensor,
    weight: Tensor,
    eps: float,
    function: str = "silu",
    gate_first: bool = False,
    backend: Form | None = None,
) -> Tensor:
    """`norm(x) f(gate)`, or `norm(x f(gate))` with `gate_first`.

    x, gate [..., S] and weight [S] -> [..., S]; `function` is one of `choice.ACTIVATIONS`.
    """
    form = choice(x, gate, weight, backend=backend)
    if form == "plain":
        opened = ACTIVATIONS[function].plain(gate)
        return _plain(x * opened, weight, eps) if gate_first else _plain(x, weight, eps) * opened
    rows = _rows(x), _rows(gate)
    y: Tensor = _GatedNorm.apply(*rows, weight, eps, function, gate_first, form)  # type: ignore[no-untyped-call]
    return y.view(x.shape)


def add_norm(
    x: Tensor, y: Tensor, weight: Tensor, eps: float, backend: Form | None = None
) -> tuple[Tensor, Tensor]:
    """`(x + y, norm(x + y))`: x, y [..., S], weight [S]."""
    form = choice(x, y, weight, backend=backend)
    if form == "plain":
        total = x + y
        return total, _plain(total, weight, eps)
    total, normed = _AddNorm.apply(_rows(x), _rows(y), weight, eps, form)  # type: ignore[no-untyped-call]
    return total.view(x.shape), normed.view(x.shape)


def _plain(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _gpu() -> Any:
    """The Triton forms; imported when one first runs."""
    return importlib.import_module("archdsl.kernels.shell.triton_norm")


def scale_of(x: Tensor, out: Tensor, eps: float) -> None:
    """Fill `out` [N, 1] with `r` of rows x [N, S]."""
    torch.linalg.vector_norm(x, dim=1, keepdim=True, out=out)
    out.square_().div_(x.shape[1]).add_(eps).rsqrt_()


def norm_backward(u: Tensor, h: Tensor, r: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """Fill `out` with the gradient to the norm's input, and return the weight's.

    `u` [N, S] is the gradient to `h w`, `h` [N, S] are the rows without their gain, `r` [N, 1].
    """
    torch.mul(u, h, out=out)
    to_weight = out.sum(0)
    share = torch.mv(out, weight).div_(-h.shape[1])
    torch.mul(u, weight, out=out)
    out.addcmul_(h, share[:, None]).mul_(r)
    return to_weight


class _Norm(torch.autograd.Function):
    """`rms_norm` of rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, form: Form) -> Tensor:
        ctx.form = form
        y: Tensor
        if form == "triton":
            y, r = _gpu().forward(x, None, None, weight, eps, "none", False)
        else:
            y, r = torch.empty_like(x), x.new_empty(len(x), 1)
            for part, into, scale in blocks(x, y, r):
                scale_of(part, scale, eps)
                torch.mul(part, scale, out=into).mul_(weight)
        ctx.save_for_backward(x, r, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, r, weight = ctx.saved_tensors
        if ctx.form == "triton":
            d_x, _, d_weight = _gpu().backward(grad, None, x, None, r, weight, "none", False)
            return d_x, d_weight, None, None
        d_x, d_weight = torch.empty_like(x), torch.zeros_like(weight)
        for part, into, scale, u in blocks(x, d_x, r, grad):
            d_weight += norm_backward(u, part * scale, scale, weight, into)
        return d_x, d_weight, None, None


class _AddNorm(torch.autograd.Function):
    """`add_norm` of rows."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, weight: Tensor, eps: float, form: Form
    ) -> tuple[Tensor, Tensor]:
        ctx.form = form
        if form == "triton":
            total = torch.empty_like(x)
            normed, r = _gpu().forward(x, y, total, weight, eps, "none", False)
        else:
            total, normed, r = torch.empty_like(x), torch.empty_like(x), x.new_empty(len(x), 1)
            for left, right, both, into, scale in blocks(x, y, total, normed, r):
                torch.add(left, right, out=both)
                scale_of(both, scale, eps)
                torch.mul(both, scale, out=into).mul_(weight)
        ctx.save_for_backward(total, r, weight)
        return total, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
        total, r, weight = ctx.saved_tensors
        if ctx.form == "triton":
            d_x, _, d_weight = _gpu().backward(grad, d_total, total, None, r, weight, "none", False)
            return d_x, d_x, d_weight, None, None
        d_x, d_weight = torch.empty_like(total), torch.zeros_like(weight)
        for part, into, scale, u, past in blocks(total, d_x, r, grad, d_total):
            d_weight += norm_backward(u, part * scale, scale, weight, into)
            into += past
        return d_x, d_x, d_weight, None, None


class _GatedNorm(torch.autograd.Function):
    """`gated_norm` of rows."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gate: Tensor,
        weight: Tensor,
        eps: float,
        function: str,
        gate_first: bool,
        form: Form,
    ) -> Tensor:
        ctx.function, ctx.gate_first, ctx.form = function, gate_first, form
        y: Tensor
        if form == "triton":
            y, r = _gpu().forward(x, gate, None, weight, eps, function, gate_first)
        else:
            activation = ACTIVATIONS[function]
            y, r = torch.empty_like(x), x.new_empty(len(x), 1)
            for part, opening, into, scale in blocks(x, gate, y, r):
                activation.apply(opening, into)
                into *= part
                scale_of(into if gate_first else part, scale, eps)
                into.mul_(scale).mul_(weight)
        ctx.save_for_backward(x, gate, r, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, r, weight = ctx.saved_tensors
        if ctx.form == "triton":
            how = ctx.function, ctx.gate_first
            d_x, d_gate, d_weight = _gpu().backward(grad, None, x, gate, r, weight, *how)
            return d_x, d_gate, d_weight, None, None, None, None
        d_x, d_gate = torch.empty_like(x), torch.empty_like(gate)
        d_weight = torch.zeros_like(weight)
        part_of = _gate_first if ctx.gate_first else _gate_behind
        for u, part, opening, scale, into, into_gate in blocks(grad, x, gate, r, d_x, d_gate):
            how_gate = ACTIVATIONS[ctx.function]
            d_weight += part_of(u, part, opening, scale, weight, how_gate, into, into_gate)
        return d_x, d_gate, d_weight, None, None, None, None


def _gate_behind(
    grad: Tensor, x: Tensor, gate: Tensor, r: Tensor, weight: Tensor, activation: Activation,
    d_x: Tensor, d_gate: Tensor,
) -> Tensor:  # fmt: skip
    """Gradients of `norm(x) f(gate)` for a block; the weight's is returned."""
    h, u = x * r, torch.empty_like(x)
    activation.backward(torch.mul(grad, h, out=d_x).mul_(weight), gate, d_gate)
    activation.apply(gate, u)
    return norm_backward(u.mul_(grad), h, r, weight, d_x)


def _gate_first(
    grad: Tensor, x: Tensor, gate: Tensor, r: Tensor, weight: Tensor, activation: Activation,
    d_x: Tensor, d_gate: Tensor,
) -> Tensor:  # fmt: skip
    """Gradients of `norm(x f(gate))` for a block; the weight's is returned."""
    opened = torch.empty_like(x)
    activation.apply(gate, opened)
    to_weight = norm_backward(grad, (x * opened).mul_(r), r, weight, d_x)
    activation.backward(d_x * x, gate, d_gate)
    d_x *= opened
    return to_weight
