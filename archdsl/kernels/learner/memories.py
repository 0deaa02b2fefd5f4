"""Memories: prediction, its gradient as one outer product a layer, and reading.

A layer's weights are [L, out, in] for L lanes (batch x heads), or [L, N, out, in] where every token has
its own. The gradient of token s to layer l is the outer product of `slopes[l][:, s]` and `inputs[l][:, s]`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from archdsl.kernels.learner.activations import ACTIVATIONS
from archdsl.kernels.learner.rule import Store

EPS = 1e-6
"""Of the norm inside a memory."""

Product = Callable[[int, Tensor], Tensor]
"""Layer l's weights times inputs [L, N, in]: [L, N, out]."""


def split(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Dimension `dim` (>= 0) as several."""
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


class Norm(NamedTuple):
    """Gain and offset [L, 1, D] of a memory's norm, where it has one."""

    gain: Tensor | None = None
    offset: Tensor | None = None


class Tape(NamedTuple):
    """What the gradient needs: layers' inputs, what they give, the normalised output, its scale."""

    inputs: list[Tensor]
    sums: list[Tensor]
    normal: Tensor | None
    scale: Tensor | None


def with_one(store: Store, x: Tensor) -> Tensor:
    """Inputs of a layer, with a 1 behind them where there is a bias."""
    return functional.pad(x, (0, 1), value=1.0) if store.bias else x


def through(store: Store, norm: Norm, x: Tensor, product: Product) -> tuple[Tensor, Tape]:
    """M(x) [L, N, V] by any way to multiply, and what the gradient needs."""
    value, _ = ACTIVATIONS[store.activation]
    inputs: list[Tensor] = []
    sums: list[Tensor] = []
    h, last = x, len(store.shapes) - 1
    for layer in range(last + 1):
        inputs.append(with_one(store, h))
        sums.append(product(layer, inputs[layer]))
        h = value(sums[layer]) if layer < last else sums[layer]
    normal, scale = _normalised(store, h)
    if normal is not None:
        h = normal if norm.gain is None else normal * norm.gain
        h = h if norm.offset is None else h + norm.offset
    return (x + h if store.residual else h), Tape(inputs, sums, normal, scale)


def _normalised(store: Store, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    if store.norm == "none":
        return None, None
    centred = x - x.mean(-1, keepdim=True) if store.norm == "layer" else x
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + EPS)
    return centred * scale, scale


def plain(weights: Sequence[Tensor]) -> Product:
    """Products with one set of weights for all tokens, [L, out, in]."""
    return lambda layer, h: torch.bmm(h, weights[layer].mT)


def own(weights: Sequence[Tensor]) -> Product:
    """Products with a token's own weights, [L, N, out, in]."""

    def product(layer: int, h: Tensor) -> Tensor:
        rows = torch.bmm(weights[layer].flatten(0, 1), h.flatten(0, 1)[..., None])
        return rows.view(weights[layer].shape[:3])

    return product


def slopes(
    store: Store, norm: Norm, tape: Tape, weights: Sequence[Tensor], d_out: Tensor
) -> list[Tensor]:
    """Gradients to what each layer gives, [L, N, out], from the prediction's [L, N, V]."""
    _, slope = ACTIVATIONS[store.activation]
    flow = _through_norm(store, norm, tape, d_out)
    found = [flow]
    for layer in range(len(weights) - 1, 0, -1):
        back = weights[layer][..., :-1] if store.bias else weights[layer]
        flow = torch.bmm(flow, back) * slope(tape.sums[layer - 1])
        found.insert(0, flow)
    return found


def _through_norm(store: Store, norm: Norm, tape: Tape, d_out: Tensor) -> Tensor:
    if tape.normal is None or tape.scale is None:
        return d_out
    flow = d_out if norm.gain is None else d_out * norm.gain
    along = tape.normal * (flow * tape.normal).mean(-1, keepdim=True)
    if store.norm == "layer":
        flow = flow - flow.mean(-1, keepdim=True)
    return (flow - along) * tape.scale
