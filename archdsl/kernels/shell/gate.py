"""Gates: `a f(b)` of two tensors, and of the halves of one (SwiGLU, arXiv 2002.05202)."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from archdsl.kernels.shell.choice import ACTIVATIONS, Form, blocks, choice


def gated_unit(
    joined: Tensor, function: str = "silu", swapped: bool = False, backend: Form | None = None
) -> Tensor:
    """`f(gate) up` of joined [..., 2 F] = (gate, up), or (up, gate) where `swapped` -> [..., F].

    Joined as a merged projection gives them, so that the gradient is one tensor too, with no copy.
    Only `joined` is kept; the activation is computed again.
    """
    form = choice(joined, backend=backend)
    if form == "plain":
        gate, up = _halves(joined, swapped)
        return up * ACTIVATIONS[function].plain(gate)
    rows = joined.reshape(-1, joined.shape[-1])
    y: Tensor = _Unit.apply(rows, function, swapped, form)  # type: ignore[no-untyped-call]
    return y.view(*joined.shape[:-1], y.shape[-1])


def _halves(joined: Tensor, swapped: bool) -> tuple[Tensor, Tensor]:
    """Gate and up."""
    first, second = joined.chunk(2, -1)
    return (second, first) if swapped else (first, second)


def _gpu() -> Any:
    return importlib.import_module("archdsl.kernels.shell.triton_gate")


class _Unit(torch.autograd.Function):
    """`gated_unit` of rows."""

    @staticmethod
    def forward(ctx: Any, joined: Tensor, function: str, swapped: bool, form: Form) -> Tensor:
        ctx.save_for_backward(joined)
        ctx.function, ctx.swapped, ctx.form = function, swapped, form
        if form == "triton":
            found: Tensor = _gpu().forward(joined, function, swapped)
            return found
        y = joined.new_empty(len(joined), joined.shape[1] // 2)
        for part, into in blocks(joined, y):
            gate, up = _halves(part, swapped)
            ACTIVATIONS[function].apply(gate, into)
            into *= up
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (joined,) = ctx.saved_tensors
        if ctx.form == "triton":
            return _gpu().backward(grad, joined, ctx.function, ctx.swapped), None, None, None
        activation, d_joined = ACTIVATIONS[ctx.function], torch.empty_like(joined)
        for part, into, u in blocks(joined, d_joined, grad):
            (gate, up), (d_gate, d_up) = _halves(part, ctx.swapped), _halves(into, ctx.swapped)
            activation.backward(u * up, gate, d_gate)
            activation.apply(gate, d_up)
            d_up *= u
        return d_joined, None, None, None
