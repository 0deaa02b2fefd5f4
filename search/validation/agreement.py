"""How well a score orders published architectures: rank correlations over all of them and over parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archdsl.search.statistics.correlations import ranks

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

RESAMPLES = 1000
"""Bootstrap resamples behind an interval."""

NEAR = 1.1
"""Two architectures are of equal size where the larger has at most so many times the parameters."""

TOP = 20
"""How many of the best by score a regret is taken over."""


@dataclass(frozen=True)
class Agreement:
    """What is said of one score. Every τ is Kendall's τ-b, positive where a larger score is better.

    Args:
        n: architectures.
        tau: over all pairs.
        tau_low: lower end of its 95 % bootstrap interval over architectures.
        tau_high: upper end.
        rho: Spearman's ρ.
        rho_low: lower end of its interval.
        rho_high: upper end.
        tau_equal_size: over pairs whose parameters differ by at most 10 %.
        tau_strata: over pairs of one stratum.
        tau_better_half: over the better half by what was reached.
        regret_top20: how much the best of the 20 highest scores falls short of the best of all.
    """

    n: int
    tau: float
    tau_low: float
    tau_high: float
    rho: float
    rho_low: float
    rho_high: float
    tau_equal_size: float
    tau_strata: float
    tau_better_half: float
    regret_top20: float


class Judge:
    """Compares scores with what architectures reached.

    Args:
        reached: larger is better.
        params: parameters of each.
        strata: a name of each one's kind, such as its depth and width.
        seed: of the resamples.
    """

    def __init__(
        self,
        reached: Sequence[float],
        params: Sequence[float],
        strata: Sequence[str],
        seed: int = 0,
    ) -> None:
        self.reached = np.asarray(reached, dtype=np.float64)
        self.order = _signs(self.reached)
        size = np.asarray(params, dtype=np.float64)
        kinds = np.unique(np.asarray(strata), return_inverse=True)[1]
        self.near = np.abs(np.log(size[:, None] / size[None, :])) <= np.log(NEAR) + 1e-12
        self.alike = kinds[:, None] == kinds[None, :]
        better = self.reached >= np.median(self.reached)
        self.better = better[:, None] & better[None, :]
        self.draws = np.random.default_rng(seed).integers(
            len(self.reached), size=(RESAMPLES, len(self.reached))
        )

    def agreement(self, scores: Sequence[float]) -> Agreement:
        """What is said of a score; 0 where it says nothing about any pair."""
        values = np.asarray(scores, dtype=np.float64)
        order = _signs(values)
        whole = np.ones_like(self.near)
        tau_low, tau_high = self._tau_interval(order)
        rho_low, rho_high = self._rho_interval(values)
        return Agreement(
            n=len(values),
            tau=self._tau(order, whole), tau_low=tau_low, tau_high=tau_high,
            rho=_rho(values, self.reached), rho_low=rho_low, rho_high=rho_high,
            tau_equal_size=self._tau(order, self.near),
            tau_strata=self._tau(order, self.alike),
            tau_better_half=self._tau(order, self.better),
            regret_top20=self._regret(values),
        )  # fmt: skip

    def _tau(self, order: Floats, pairs: Mask) -> float:
        one, other = order[pairs], self.order[pairs]
        scale = float(
            np.sqrt(np.abs(one).sum(dtype=np.float64) * np.abs(other).sum(dtype=np.float64))
        )
        return float((one * other).sum(dtype=np.float64)) / scale if scale else 0.0

    def _tau_interval(self, order: Floats) -> tuple[float, float]:
        """Of weighted sums over pairs: how often each architecture is drawn says how often a pair is."""
        count = len(self.reached)
        weights = np.stack([np.bincount(draw, minlength=count) for draw in self.draws])
        weights = weights.astype(np.float32)

        def total(pairs: Floats) -> Floats:
            found: Floats = ((weights @ pairs) * weights).sum(1, dtype=np.float64)
            return found

        scale = np.sqrt(total(np.abs(order)) * total(np.abs(self.order)))
        return _interval(total(order * self.order) / np.maximum(scale, 1e-300))

    def _rho_interval(self, values: Floats) -> tuple[float, float]:
        one, other = ranks(values), ranks(self.reached)
        return _interval(np.asarray([_correlation(one[d], other[d]) for d in self.draws]))

    def _regret(self, values: Floats) -> float:
        """Ties are broken by the order of the file, which knows nothing of the results."""
        best = np.argsort(-values, kind="stable")[:TOP]
        return float(self.reached.max() - self.reached[best].max())


def _signs(values: Floats) -> Floats:
    found: Floats = np.sign(values[:, None] - values[None, :]).astype(np.float32)
    return found


def _rho(one: Floats, other: Floats) -> float:
    return _correlation(ranks(one), ranks(other))


def _correlation(one: Floats, other: Floats) -> float:
    first, second = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((first * first).sum() * (second * second).sum()))
    return float((first * second).sum()) / scale if scale else 0.0


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
