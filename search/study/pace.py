"""How long the rest of a search may take, from what was seen and from how the study cuts.

The first trials go furthest: nobody is there to beat them. What a trial took so far is therefore no measure
of what one will take. A stage's cost is taken from what it was, and how many will reach it from the shares
the study's design promotes, which is known before anything has run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil
from statistics import median_low

from archdsl.search.statistics.promotion import ENOUGH
from archdsl.search.storage.records import SCORES, Record, rung_key

ACCUSTOMED = 2.0
"""Promotions that must have been seen before they count as much as what the design has one expect."""

FORETELLS = 2 / 3
"""Kendall's τ that is expected between a rung and the last one: behind what is measured, a rung cuts less."""

SCORING = 3
"""Optimiser steps that scoring may cost, until it was seen twice: the first time PyTorch starts up in it."""


@dataclass(frozen=True)
class Course:
    """The stages that the trials of a study pass.

    Args:
        trials: how many there will be at most.
        rungs: optimiser steps after which the weaker are cut.
        promote: the share that is trained after its score; ``None`` trains everyone.
    """

    trials: int
    rungs: tuple[int, ...]
    promote: Fraction | None = None

    @property
    def shares(self) -> list[float]:
        """The share that reaches each rung, of those that came to the stage before it."""
        first = 1.0 if self.promote is None else float(self.promote)
        return [first, *(a / b for a, b in pairwise(self.rungs))]

    @property
    def steps(self) -> list[int]:
        """Optimiser steps of each rung alone."""
        return [b - a for a, b in pairwise((0, *self.rungs))]


class Pace:
    """Estimates the time left.

    Args:
        course: the stages.
        before: the trials there were when this process began.
        clock: in seconds.
    """

    def __init__(
        self, course: Course, before: Sequence[Record] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.course, self.clock = course, clock
        self._ended, self._spent = _known(before)
        self._began, self._starting = clock(), True

    def left(self, records: Sequence[Record]) -> float | None:
        """Seconds; ``None`` before anything has been measured since this process began."""
        ended, spent = _known(records)
        ended, spent = ended - self._ended, spent - self._spent
        if ended <= 0 or spent <= 0:
            return None
        elapsed = self._elapsed(spent)
        beside = max(0.0, elapsed - spent) / ended
        ahead = self.course.trials - sum(record.finished for record in records)
        return min(1.0, elapsed / spent) * self._ahead(records) + beside * max(0, ahead)

    def _elapsed(self, spent: float) -> float:
        """Seconds since this process began, without those in which the worker was starting."""
        now = self.clock()
        if self._starting:
            self._began, self._starting = max(self._began, now - spent), False
        return now - self._began

    def _ahead(self, records: Sequence[Record]) -> float:
        """Seconds of scoring and training that are still to be done, by any process."""
        costs, decided = _costs(self.course, records), _decided(self.course, records)
        crowd, expected = _Crowd(self.course, decided), 0.0
        for record in sorted(records, key=lambda each: each.number):
            expected += crowd.joined(_passed(record), [] if record.finished else costs)
        for _ in range(len(records), self.course.trials):
            expected += crowd.joined(0, costs)
        return expected


class _Crowd:
    """How many trials came to each stage so far: scoring, then every rung.

    Args:
        course: the stages.
        habits: how much more often than its share says each stage lets pass.
    """

    def __init__(self, course: Course, habits: Sequence[float] = ()) -> None:
        self.shares = course.shares
        self.habits = habits or [1.0] * len(self.shares)
        self.counts = [0.0] * (1 + len(self.shares))

    def joined(self, passed: int, costs: Sequence[float]) -> float:
        """Count a trial that has passed so many stages; what its others, where it goes on, will cost."""
        for stage in range(passed):
            self.counts[stage] += 1
        come, expected = 1.0, 0.0
        for stage in range(passed, len(costs)):
            if stage:
                come *= min(1.0, self.chance(stage - 1) * self.habits[stage - 1])
            self.counts[stage] += come
            expected += come * costs[stage]
        return expected

    def chance(self, stage: int) -> float:
        """That the last trial that came to a stage passes it, where any order is as likely as another.

        At least one place is free, so of few more pass than the share.
        """
        many, share = max(1, round(self.counts[stage])), self.shares[stage]
        if stage and self.counts[-1] >= ENOUGH:
            share = 1 - (1 - share) * FORETELLS
        return ceil(share * many - 1e-9) / many


def _decided(course: Course, records: Sequence[Record]) -> list[float]:
    """How much more often than the shares say each stage has let trials pass."""
    crowd = _Crowd(course)
    seen = [ACCUSTOMED] * len(course.shares)
    expected = list(seen)
    for record in sorted(records, key=lambda each: each.number):
        passed = _passed(record)
        crowd.joined(passed, [])
        for stage in range(min(passed, len(seen))):
            if passed > stage + 1 or record.state == "pruned":
                seen[stage] += passed > stage + 1
                expected[stage] += crowd.chance(stage)
    return [a / b for a, b in zip(seen, expected, strict=True)]


def _costs(course: Course, records: Sequence[Record]) -> list[float]:
    """Seconds of every stage; of a rung by its steps, so that no rung need have been seen."""
    scoring = [s for record in records if (s := _seconds(record, SCORES)) is not None]
    rungs = [
        (seconds, steps)
        for record in records
        for rung, steps in enumerate(course.steps)
        if (seconds := _seconds(record, rung_key(rung))) is not None
    ]
    step = sum(s for s, _ in rungs) / sum(n for _, n in rungs) if rungs else 0.0
    score = median_low(scoring) if len(scoring) > 1 else step * SCORING
    return [score, *(step * steps for steps in course.steps)]


def _seconds(record: Record, key: str) -> float | None:
    """What a stage took; ``None`` where it was not passed, or its result was known from elsewhere."""
    return record.attributes.get(key, {}).get("seconds") or None


def _passed(record: Record) -> int:
    """How many stages a trial has results of."""
    if SCORES not in record.attributes:
        return 0
    rungs = 0
    while rung_key(rungs) in record.attributes:
        rungs += 1
    return 1 + rungs


def _known(records: Sequence[Record]) -> tuple[int, float]:
    """How many trials have ended, and the seconds that are written down."""
    return sum(record.finished for record in records), sum(record.seconds for record in records)
