"""Which differences between samplers are real: intervals by bootstrap, ranks by Mann and Whitney."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 4000
LEVEL = 0.05
"""Below this a difference counts as real, after Holm's correction for all that are looked at."""


@dataclass(frozen=True)
class Difference:
    """How the final bests of one sampler stand to those of another over the seeds.

    Args:
        mean: of the differences, seed by seed.
        low: lower end of its 95 % bootstrap interval.
        high: upper end.
        wins: chance that a run of the one beats a run of the other, ties counting half.
        p: of Mann–Whitney's two-sided test, corrected after Holm once all are known.
    """

    mean: float
    low: float
    high: float
    wins: float
    p: float

    @property
    def real(self) -> bool:
        """Whether it is more than chance."""
        return self.p < LEVEL


def best_so_far(values: Floats) -> Floats:
    """Running maxima: [seeds, trials] → the same."""
    found: Floats = np.maximum.accumulate(values, axis=1)
    return found


def band(curves: Floats, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """The mean over seeds and its 95 % bootstrap interval at each trial: [seeds, trials] → 3 × [trials]."""
    draws = np.random.default_rng(seed).integers(len(curves), size=(RESAMPLES // 4, len(curves)))
    means = curves[draws].mean(1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return curves.mean(0), low, high


def difference(one: Sequence[float], other: Sequence[float], seed: int = 0) -> Difference:
    """Of two samplers' final bests over the same seeds; ``p`` is not corrected yet."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    paired = a - b
    draws = np.random.default_rng(seed).integers(len(paired), size=(RESAMPLES, len(paired)))
    low, high = np.quantile(paired[draws].mean(1), [0.025, 0.975])
    wins, p = mann_whitney(a, b)
    return Difference(float(paired.mean()), float(low), float(high), wins, p)


def mann_whitney(one: Floats, other: Floats) -> tuple[float, float]:
    """The chance that a value of ``one`` is the larger (ties half), and the two-sided p.

    By the normal approximation with the correction for ties and for continuity ("On a Test of Whether one of
    Two Random Variables is Stochastically Larger than the Other", Mann and Whitney, 1947).
    """
    n, m = len(one), len(other)
    apart = np.sign(one[:, None] - other[None, :])
    u = float((apart > 0).sum() + 0.5 * (apart == 0).sum())
    _, counts = np.unique(np.concatenate([one, other]), return_counts=True)
    total = n + m
    ties = float((counts**3 - counts).sum()) / (total * (total - 1))
    deviation = sqrt(n * m / 12 * (total + 1 - ties))
    if deviation == 0:
        return u / (n * m), 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / deviation
    return u / (n * m), 2 * (1 - NormalDist().cdf(z))


def holm(chances: Sequence[float]) -> list[float]:
    """p-values corrected for their number ("A Simple Sequentially Rejective …", Holm, 1979)."""
    order = sorted(range(len(chances)), key=chances.__getitem__)
    corrected, largest = [0.0] * len(chances), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(chances) - place) * chances[index]))
        corrected[index] = largest
    return corrected
