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
from archdsl.search.statistics.promotion import foresight, promoted, widened
from archdsl.search.storage.records import Record, signed

Verdict = Literal["on", "cut", "wait"]

BEHIND = 8
"""What a rung foretells is measured on trials more than so many numbers back: who is just behind others
need not wait for their end."""


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
    record: Record, records: Sequence[Record], rung: int, last: int, share: Fraction,
    directions: Sequence[Direction],
) -> Verdict:  # fmt: skip
    """Whether a trial is among the best of all that reached a rung, itself and those before it.

    Args:
        record: the trial, with a result at the rung.
        records: all trials.
        rung: which.
        last: the rung that counts.
        share: of trials that go on, where the rung foretells the last one; more do where it does not.
        directions: of the objectives.
    """
    assert record.rung(rung) is not None
    before = _before(record, records)
    settled = [each for each in before if each.number < record.number - BEHIND]
    if any(not each.finished for each in settled) or any(
        not each.finished and each.rung(rung) is None for each in before
    ):
        return "wait"
    known = foretold(settled, rung, last, directions)
    own, *others = (
        signed(found.objectives, directions)
        for each in (record, *before)
        if (found := each.rung(rung))
    )
    return "on" if promoted(own, others, widened(share, known)) else "cut"


def foretold(
    records: Sequence[Record], rung: int, last: int, directions: Sequence[Direction]
) -> float | None:
    """How well a rung's results have ordered those of the last rung; see :func:`foresight`."""
    pairs = [(each.rung(rung), each.rung(last)) for each in records]
    known = [
        (signed(early.objectives, directions), signed(final.objectives, directions))
        for early, final in pairs
        if early and final
    ]
    return foresight([early for early, _ in known], [final for _, final in known])


def _before(record: Record, records: Sequence[Record]) -> list[Record]:
    return [each for each in records if each.number < record.number]


def _among(better: int, other: int, share: Fraction) -> bool:
    return better < ceil(share * (better + other + 1))
