"""Who goes on, with any number of workers: decisions that do not depend on who was faster.

A trial is compared with the trials numbered before it, and with no others. Where such a trial has not come
far enough to say how it compares, and it could make a difference, the decision waits, and its worker does
something else. So one worker or fifty, undisturbed or killed again and again, decide alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import Literal

from archdsl.blocks.asking import Direction
from archdsl.search.promotion import promoted
from archdsl.search.records import Record, signed

Verdict = Literal["on", "cut", "wait"]


def by_score(record: Record, records: Sequence[Record], rank: str, share: Fraction) -> Verdict:
    """Whether a scored trial is among the best ``share`` of itself and those before it.

    A trial that failed is nobody's competitor, and one that is still running may fail: the verdict waits
    where that decides it.
    """
    assert record.scores is not None
    mine = record.scores[rank]
    better = other = maybe_better = maybe_other = unknown = 0
    for each in _before(record, records):
        score = (each.scores or {}).get(rank)
        if each.state == "fail" or (each.finished and score is None):
            continue
        if score is None:
            unknown += 1
        elif score > mine:
            better, maybe_better = better + each.finished, maybe_better + (not each.finished)
        else:
            other, maybe_other = other + each.finished, maybe_other + (not each.finished)
    worst = _among(better + maybe_better + unknown, other, share)
    best = _among(better, other + maybe_other + unknown, share)
    return "on" if worst else "wait" if best else "cut"


def at_rung(
    record: Record, records: Sequence[Record], rung: int, share: Fraction,
    directions: Sequence[Direction],
) -> Verdict:  # fmt: skip
    """Whether a trial is among the best ``share`` of all that reached a rung, itself and those before it."""
    before = _before(record, records)
    if any(not each.finished and each.rung(rung) is None for each in before):
        return "wait"
    results = [found.objectives for each in before if (found := each.rung(rung))]
    own = record.rung(rung)
    assert own is not None
    others = [signed(values, directions) for values in results]
    return "on" if promoted(signed(own.objectives, directions), others, share) else "cut"


def _before(record: Record, records: Sequence[Record]) -> list[Record]:
    return [each for each in records if each.number < record.number]


def _among(better: int, other: int, share: Fraction) -> bool:
    return better < ceil(share * (better + other + 1))
