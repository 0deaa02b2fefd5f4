"""Learners: how gradients of a chunk become updates, as small matrices over its tokens.

All coefficients are [L, N, N'] (token t, gradient s) or [L, N]; logarithms of decays are <= 0, and no
exponent is above 0.
"""

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration (Muon; ATLAS, arXiv 2505.23735 §5)."""

TINY = 1e-14

LARGEST = 2.0
"""A bounded write's sensitivity: a step of at most 1 times it leaves no larger error than it found."""


def pairs(log: Tensor | None, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """exp(G_t - G_s) for s <= t, else 0 [L, N, N]; exp(G_t) [L, N]; G the running sum of `log` [L, N]."""
    lower = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    if log is None:
        ones = like.new_ones(like.shape[0], length)
        return lower.to(like.dtype).expand(like.shape[0], length, length), ones
    total = log.cumsum(1)
    difference = total[:, :, None] - total[:, None, :]
    return difference.masked_fill(~lower, -torch.inf).exp(), total.exp()


def window_mask(length: int, window: int, like: Tensor) -> Tensor:
    """1 where gradient s of the last N + window - 1 is within the window of token t: [N, S]."""
    t = torch.arange(length, device=like.device)[:, None] + window - 1
    s = torch.arange(length + window - 1, device=like.device)
    return ((s <= t) & (s > t - window)).to(like.dtype)


def orthogonal(x: Tensor, steps: int) -> Tensor:
    """The nearest orthogonal matrix, nearly: X (UV^T of its singular vectors) [M, out, in]."""
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.square().sum((-2, -1), keepdim=True) + TINY).sqrt()
    for _ in range(steps):
        square = torch.bmm(x, x.mT)
        x = a * x + torch.bmm(b * square + c * torch.bmm(square, square), x)
    return x.mT if tall else x
