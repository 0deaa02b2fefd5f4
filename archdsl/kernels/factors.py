"""The cumulative decays of a call, and which gate each window of chunks gets."""

import math

import torch
from torch import Tensor

from archdsl.kernels.common import Window, load, store
from archdsl.kernels.gates import FactoredGate, Gate
from archdsl.kernels.split import split_gate

REACH = {torch.float32: 0.75, torch.float64: 8.0}
"""Largest mean log decay of a chunk's tokens for one gate over all of it.

Its exponential cannot overflow then, nor can the product of two; and what is read after a token is
no small part of what is summed for the gradient to its decay.
"""

BINARY = math.log2(math.e)
"""Powers of two cost a third of exponentials."""


def allocate(log_decay: Tensor | None, like: Tensor, chunk: int) -> Tensor:
    """Unfilled room for the factors of `log_decay` [B, T, H] or [B, T, H, K] in the dtype of `like`.

    [N * B * H, C, W], chunks first; empty without a decay.
    """
    if log_decay is None:
        return like.new_empty(0)
    batch, length, heads = log_decay.shape[:3]
    shape = (-(-length // chunk) * batch * heads, chunk, _width(log_decay))
    return like.new_empty(shape)


def fill(factors: Tensor, log_decay: Tensor, window: Window) -> None:
    """Write the factors exp(G) of a window, G summed from each chunk's start."""
    log = load(_wide(log_decay), window, factors.dtype).mul_(BINARY)
    part = factors[span(window, factors, log_decay)]
    torch.cumsum(log, 1, out=part).exp2_()


def fill_all(factors: Tensor, log_decay: Tensor | None, chunk: int) -> bool:
    """Fill the factors of a decay per head at once; says whether that is all there is to fill."""
    if log_decay is None or not factors.numel():
        return True
    if log_decay.dim() == 3:
        length = log_decay.shape[1]
        fill(factors, log_decay, Window(0, -(-length // chunk), chunk, length))
    return log_decay.dim() == 3


def span(window: Window, factors: Tensor, log_decay: Tensor) -> slice:
    """The rows of a window in a chunk-major tensor."""
    lanes = log_decay.shape[0] * log_decay.shape[2]
    return slice(window.first * lanes, (window.first + window.chunks) * lanes)


def choose_gate(
    factors: Tensor, log_decay: Tensor | None, window: Window, wide: torch.dtype, dtype: torch.dtype
) -> Gate:
    """The gate of a window whose factors are there: split where it closes, else factored."""
    if log_decay is None:
        return FactoredGate(None, wide, dtype)
    part = factors[span(window, factors, log_decay)]
    tokens = min(window.chunk, window.stop - window.start)
    if float(part[:, -1].amin()) >= math.exp(-REACH[wide] * tokens):  # false for NaN
        return FactoredGate(part, wide, dtype)
    return split_gate(load(_wide(log_decay), window, wide), dtype)


def store_decay(grad: Tensor, window: Window, value: Tensor) -> None:
    """Write a gradient [L, C, W] into [B, T, H] or [B, T, H, K]."""
    store(_wide(grad), window, value)


def _wide(log_decay: Tensor) -> Tensor:
    """A decay as [B, T, H, 1 or K]."""
    return log_decay.unsqueeze(-1) if log_decay.dim() == 3 else log_decay


def _width(log_decay: Tensor) -> int:
    return 1 if log_decay.dim() == 3 else log_decay.shape[3]
