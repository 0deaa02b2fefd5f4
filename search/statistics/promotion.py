"""Who goes on: shares of what was seen so far, with several objectives by Pareto rank.

How much a stage may cut follows from what it was found to foretell: see :func:`widened`.

Successive halving in its stopping form ("Massively Parallel Hyperparameter Tuning", Li et al., MLSys
2020, algorithm 1, asked at the moment a result arrives): a candidate is compared with all results its
stage has seen by then, so every decision is final and nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, isnan
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from archdsl.search.statistics.correlations import kendall, signs

Values: TypeAlias = Sequence[float]
"""Objective values with signs turned so that larger is better."""

ENOUGH = 8
"""Results of the last stage before anything is said about what an earlier one foretells."""


def foresight(early: Sequence[Values], final: Sequence[Values]) -> float | None:
    """Kendall's τ-b between the standings of the same candidates at a stage and at the last one.

    ``None`` where too few are known, or all stand alike. Only those that the stage let pass have a final
    result, so the range is narrowed and τ errs to the low side: too many go on rather than too few.
    """
    if len(early) < ENOUGH:
        return None
    one, other = (signs(np.array(standings(each), dtype=np.float64)) for each in (early, final))
    tau = float(kendall(one, other, np.ones((1, len(early))))[0])
    return tau if np.isfinite(tau) else None


def widened(share: Fraction, tau: float | None) -> Fraction:
    """The share that goes on behind a stage that orders the final results with rank correlation ``tau``.

    ``share`` itself where the order is the same or has not been measured, everyone where a stage foretells
    nothing, and in between in proportion: 1 − (1 − share) · τ.
    """
    known = Fraction(1 if tau is None else max(0.0, tau)).limit_denominator(1000)
    return 1 - (1 - share) * known


def among_best(value: float, others: Sequence[float], share: Fraction) -> bool:
    """Whether ``value`` is among the best ``share`` of itself and ``others``; ties go on.

    At least one place is always free, so the first candidate goes on, and every new best one.
    """
    better = sum(other > value for other in others)
    return better < ceil(share * (len(others) + 1))


def promoted(result: Values, others: Sequence[Values], share: Fraction) -> bool:
    """The same for results with several objectives, ordered as :func:`standings` does."""
    places = standings([*others, result])
    return among_best(-places[-1], [-place for place in places[:-1]], share)


def standings(results: Sequence[Values]) -> list[int]:
    """The place of each result, 0 the best: by Pareto rank, then by the objectives in order."""
    single = [-result[0] for result in results if len(result) == 1 and not isnan(result[0])]
    if len(single) == len(results):
        places = {value: place for place, value in enumerate(sorted(set(single)))}
        return [places[value] for value in single]
    ranks = pareto_ranks(results)
    keys = [(rank, *(-v for v in result)) for rank, result in zip(ranks, results, strict=True)]
    order = {key: place for place, key in enumerate(sorted(set(keys)))}
    return [order[key] for key in keys]


def pareto_ranks(results: Sequence[Values]) -> list[int]:
    """0 for results that nothing dominates, 1 for those only rank 0 dominates, and so on."""
    if not results:
        return []
    values = np.asarray(results, dtype=np.float64)
    one, other = values[:, None, :], values[None, :, :]
    beats: NDArray[np.bool_] = np.all(one >= other, axis=-1) & np.any(one > other, axis=-1)
    ranks = np.full(len(values), -1)
    rank = 0
    while (left := ranks < 0).any():
        ranks[left & ~beats[left].any(0)] = rank
        rank += 1
    return [int(each) for each in ranks]


def dominates(one: Values, other: Values) -> bool:
    """Whether ``one`` is nowhere worse and somewhere better."""
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(
        a > b for a, b in zip(one, other, strict=True)
    )
