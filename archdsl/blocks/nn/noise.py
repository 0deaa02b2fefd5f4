"""Noise that is a function of where it stands: the same in a sequence, in chunks and token by token.

Every number is drawn from a counter (seed, sequence, position, channel), mixed as SplitMix64 mixes its
own (Steele, Lea & Flood, OOPSLA 2014), so no generator's state has to be carried along.
"""

from __future__ import annotations

from math import erf, sqrt

import torch
from torch import Tensor

DEVIATIONS = 3.0
"""Where a truncated normal is cut."""

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right of 64-bit words."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def uniform(like: Tensor, position: int | Tensor, seed: int) -> Tensor:
    """Numbers in (0, 1), float64 ``[B, T, D]``, for positions from ``position`` on, or at ``[T]``."""
    words = torch.full((1, 1, 1), seed % 2**62, dtype=torch.int64, device=like.device)
    batch, place, channel = (torch.arange(size, device=like.device) for size in like.shape)
    place = position if isinstance(position, Tensor) else place + position
    for index in (batch[:, None, None], place[:, None], channel):
        words = _mixed(words + (index + 1) * _GOLDEN)
    return (_shifted(words, 12).double() + 0.5) * 2.0**-52


def truncated_normal(like: Tensor, position: int | Tensor, seed: int) -> Tensor:
    """Normal numbers within three deviations, float64 ``[B, T, D]``, by inverting the distribution."""
    share = erf(DEVIATIONS / sqrt(2))
    return torch.erfinv((2 * uniform(like, position, seed) - 1) * share) * sqrt(2)
