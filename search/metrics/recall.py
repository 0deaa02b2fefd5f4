"""What a linear reader finds of earlier tokens in a memory's output."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from archdsl.search.seeds import seed_of

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence

LAGS = 5
"""How many tokens are looked for: the current one and those before it."""

READ = 64
"""Directions of the output that are read: random ones where it has more, so that the cost is bounded."""

PLACES = 16
"""Positions of a sequence that are read: its last ones."""

RIDGE = 1e-2
"""Of the mean variance of what is read."""


@dataclass(frozen=True)
class Recall:
    """What was read of earlier tokens, and what they were.

    Args:
        guess: embedded tokens as read, lag by lag: ``[N, lags · E]``.
        truth: as they were.
        lags: how many tokens: the current one and those before it.
    """

    guess: Tensor
    truth: Tensor
    lags: int

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """The share of the variance of a token's embedding that is explained, by lag; at most 1."""
        shape = (len(self.truth), self.lags, -1)
        wrong = (self.guess - self.truth).reshape(shape).square().sum((0, 2)).tolist()
        whole = self.truth.reshape(shape).square().sum((0, 2)).tolist()
        return tuple(1 - w / max(t, 1e-30) for w, t in zip(wrong, whole, strict=True))

    @cached_property
    def margin(self) -> float:
        """By how much the token one step back is nearer to what is read than the nearest other.

        A share of its squared length, on average; negative where another is nearer.
        """
        width = self.truth.shape[1] // self.lags
        place = slice(width, 2 * width) if self.lags > 1 else slice(0, width)
        guess, truth = self.guess[:, place], self.truth[:, place]
        near = torch.cdist(guess, truth).square()
        other = near.masked_fill(torch.cdist(truth, truth) < 1e-9, torch.inf).amin(1)
        gaps = torch.where(other.isfinite(), other - near.diagonal(), 0.0)
        return float(gaps.mean() / truth.square().sum(1).mean().clamp_min(1e-30))


def recall(evidence: Evidence) -> Recall:
    """Fit a ridge regression on half of the sequences, and judge it on the other half.

    "Short term memory in echo state networks" (Jaeger, 2001), with the embedded tokens in the place of
    its random signal.
    """
    assert evidence.embedded is not None
    lags = min(LAGS, max(1, evidence.length // 2))
    kept = slice(-(PLACES + lags - 1), None)
    output, tokens = evidence.hidden[-1][:, kept], evidence.embedded[:, kept]
    read = _directions(_centred(output))[:, lags - 1 :]
    length = tokens.shape[1]
    past = torch.cat([tokens[:, lags - 1 - k : length - k] for k in range(lags)], -1)
    found = _centred(past)
    half = len(read) // 2
    fitted = _fitted(_flat(read[:half]), _flat(found[:half]))
    return Recall(_flat(read[half:]) @ fitted, _flat(found[half:]), lags)


def _centred(x: Tensor) -> Tensor:
    wide = torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0).double()
    return wide.sub_(wide.mean((0, 1)))


def _directions(x: Tensor) -> Tensor:
    width = x.shape[-1]
    if width <= READ:
        return x
    generator = torch.Generator().manual_seed(seed_of("directions", width))
    drawn = torch.randn(width, READ, generator=generator, dtype=x.dtype).to(x.device)
    read: Tensor = x @ drawn * width**-0.5
    return read


def _flat(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def _fitted(x: Tensor, y: Tensor) -> Tensor:
    gram = x.T @ x
    spread = gram.diagonal()
    spread.add_(RIDGE * spread.mean() + 1e-12)
    fitted: Tensor = torch.cholesky_solve(x.T @ y, torch.linalg.cholesky(gram))
    return fitted
