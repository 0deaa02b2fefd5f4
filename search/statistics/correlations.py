"""Rank correlations with intervals, without more than numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 1000
"""Bootstrap resamples behind an interval."""


@dataclass(frozen=True)
class Correlation:
    """How well one order predicts another.

    Args:
        n: pairs of values.
        tau: Kendall's τ-b.
        low: lower end of τ's 95 % bootstrap interval.
        high: upper end.
        rho: Spearman's ρ.
    """

    n: int
    tau: float
    low: float
    high: float
    rho: float


def correlate(x: Sequence[float], y: Sequence[float], seed: int = 0) -> Correlation | None:
    """The rank correlation of two sequences; ``None`` below 3 pairs or without any order."""
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    one, other = signs(first), signs(second)
    uniform = np.ones((1, len(first)))
    draws = np.random.default_rng(seed).multinomial(len(first), uniform[0] / len(first), RESAMPLES)
    resampled = kendall(one, other, draws.astype(np.float64))
    known = resampled[np.isfinite(resampled)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Correlation(
        n=len(first),
        tau=float(kendall(one, other, uniform)[0]),
        low=float(low),
        high=float(high),
        rho=spearman(first, second),
    )


def signs(values: Floats) -> Floats:
    """The order of every pair: [n] → [n, n] of −1, 0 and 1."""
    return np.sign(values[:, None] - values[None, :])


def kendall(one: Floats, other: Floats, weights: Floats) -> Floats:
    """Kendall's τ-b for every row of weights, which say how often each value is drawn: [R].

    Args:
        one: order of every pair by the first sequence, [n, n].
        other: by the second.
        weights: [R, n].
    """

    def total(pairs: Floats) -> Floats:
        found: Floats = ((weights @ pairs) * weights).sum(1)
        return found

    scale = np.sqrt(total(one * one) * total(other * other))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = total(one * other) / scale
    return found


def spearman(x: Floats, y: Floats) -> float:
    """Spearman's ρ: the correlation of the ranks, ties sharing their mean rank."""
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def ranks(values: Floats) -> Floats:
    """Ranks from 0, ties sharing their mean."""
    found: Floats = (len(values) - 1 + signs(values).sum(1)) / 2
    return found
