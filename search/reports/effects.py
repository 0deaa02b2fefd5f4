"""Which choices of a spec made a difference, and which differences chance alone would make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from archdsl.search.statistics.significance import LEVEL
from archdsl.search.storage.records import Record
from archdsl.search.study.words import named

Floats = NDArray[np.float64]

RESAMPLES = 2000
"""Shuffles behind a p-value, and bootstrap resamples behind an interval."""

ENOUGH = 8
"""Trials before anything is said."""


@dataclass(frozen=True)
class Effect:
    """What one choice has to do with how an objective differs between trials.

    Args:
        name: of the choice.
        share: of the objective's variance that lies between the choice's alternatives (η²), 0 to 1.
        low: lower end of its 95 % bootstrap interval.
        high: upper end.
        chance: the share that no choice's shuffled results exceed 95 times in 100.
        p: how often shuffled results have as large a share, times the number of choices (Bonferroni).
    """

    name: str
    share: float
    low: float
    high: float
    chance: float
    p: float

    @property
    def real(self) -> bool:
        """Whether it is more than chance."""
        return self.p < LEVEL


@dataclass(frozen=True)
class Effects:
    """All choices and one objective.

    Args:
        objective: its text.
        trials: that were compared.
        found: the choices, the largest share first.
    """

    objective: str
    trials: int
    found: tuple[Effect, ...]

    @property
    def sentence(self) -> str:
        """Which choices matter for the objective, in words."""
        real = [e for e in self.found if e.real]
        rest = [e.name for e in self.found if not e.real]
        said = [
            f"{e.name} matters: {e.share:.0%} of the differences lie between its alternatives,"
            f" where chance alone gives up to {e.chance:.0%}"
            for e in real
        ]
        if rest:
            said.append(
                f"the differences between alternatives of {_listed(rest)} are no larger than chance"
                f" alone makes them in {self.trials} trials"
            )
        return f"For {self.objective}, " + "; ".join(said) + "."


def effects(records: Sequence[Record], objectives: Sequence[str], seed: int = 0) -> list[Effects]:
    """Every choice that several trials made differently, for each objective at the first rung.

    Alternatives are compared as they are, so a sampler that follows the best ones blurs what it sees:
    ``sampler = random`` answers this question best. Choices only some architectures have are left out.

    Args:
        records: trials; those that were trained to the first rung count.
        objectives: their texts, in the order of the spec.
        seed: of shuffles and resamples.
    """
    rungs = [(record.arch["choices"], record.rung(0)) for record in records]
    trained = [(taken, rung.objectives) for taken, rung in rungs if rung is not None]
    if len(trained) < ENOUGH:
        return []
    texts = [taken for taken, _ in trained]
    shared = [path for path in texts[0] if all(path in taken for taken in texts)]
    sites = {path: [taken[path] for taken in texts] for path in shared}
    sites = {path: taken for path, taken in sites.items() if len(set(taken)) > 1}
    found = []
    for place, objective in enumerate(objectives):
        values = np.array([reached[place] for _, reached in trained], dtype=np.float64)
        if sites and np.isfinite(values).all() and np.ptp(values) > 0:
            each = [_effect(n, sites[n], values, len(sites), seed) for n in sites]
            names = named({e.name: "" for e in each})
            each = [replace(e, name=name) for e, name in zip(each, names, strict=True)]
            ordered = sorted(each, key=lambda e: -e.share)
            found.append(Effects(objective, len(values), tuple(ordered)))
    return found


def _effect(name: str, taken: Sequence[str], values: Floats, sites: int, seed: int) -> Effect:
    """One choice of so many that are looked at."""
    options = sorted(set(taken))
    groups = np.array([[text == option for option in options] for text in taken], dtype=np.float64)
    random = np.random.default_rng(seed)
    count = len(values)
    share = float(between(groups, values[None])[0])
    shuffled = between(groups, random.permuted(np.tile(values, (RESAMPLES, 1)), axis=1))
    drawn = random.integers(count, size=(RESAMPLES, count))
    again = np.array([between(groups[rows], values[None, rows])[0] for rows in drawn])
    low, high = np.nanquantile(again, [0.025, 0.975])
    larger = (1 + np.count_nonzero(shuffled >= share - 1e-12)) / (1 + RESAMPLES)
    chance = float(np.quantile(shuffled, 1 - LEVEL / sites))
    return Effect(name, share, float(low), float(high), chance, min(1.0, sites * larger))


def between(groups: Floats, values: Floats) -> Floats:
    """The share of variance between groups (η²) [R]; not a number where values do not differ.

    Args:
        groups: which group each trial is in, as zeros and ones [n, k].
        values: [R, n].
    """
    centred = values - values.mean(1, keepdims=True)
    sums = centred @ groups
    sizes = groups.sum(0)
    explained = (sums**2 / np.where(sizes > 0, sizes, 1)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = explained / (centred**2).sum(1)
    return found


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
