"""Where biases and step sizes start: published spreads over channels."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


class Biased(Protocol):
    """A projection's bias: how many numbers, and how they start (``ops.Linear``)."""

    width_out: int
    bias_init: float
    bias_heads: int


def first_bias(op: Biased) -> Tensor:
    """The bias a projection starts with: ``[width_out]``."""
    bias = torch.full((op.width_out,), op.bias_init)
    if op.bias_heads:
        rising = torch.linspace(-0.5, 0.5, op.width_out)
        bias += 0.4 * rising + 0.3 * zigzag(op.width_out, op.bias_heads)
    return bias


def zigzag(width: int, heads: int) -> Tensor:
    """From -1 to 1 over each head's channels, flat in the middle (RWKV-7's initialisation)."""
    across = torch.linspace(-1, 1, width // heads) if width > heads else torch.zeros(1)
    return (across * across.abs()).repeat(heads)


def step_sizes(count: int, generator: torch.Generator) -> Tensor:
    """Step sizes log-uniform between 0.001 and 0.1, at least 1e-4 (Mamba's initialisation)."""
    low, high = math.log(1e-3), math.log(1e-1)
    return torch.exp(torch.rand(count, generator=generator) * (high - low) + low).clamp(min=1e-4)


def inverse_softplus(y: Tensor) -> Tensor:
    """``x`` with ``softplus(x) = y``."""
    return y + torch.log(-torch.expm1(-y))
