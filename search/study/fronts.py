"""What a study has found: the trials that no other beats."""

from __future__ import annotations

from collections.abc import Sequence

from archdsl.search.space.objectives import Objective
from archdsl.search.statistics.promotion import dominates, standings
from archdsl.search.storage.records import Record, signed


def pareto_front(records: Sequence[Record], objectives: Sequence[Objective]) -> list[Record]:
    """Complete trials that no other beats, best first by the order of the objectives."""
    done = [record for record in records if record.state == "complete" and record.values]
    directions = [objective.direction for objective in objectives]
    results = [signed(record.values or (), directions) for record in done]
    places = standings(results)
    front = [
        (place, record.number, record)
        for place, record, result in zip(places, done, results, strict=True)
        if not any(dominates(other, result) for other in results)
    ]
    return [record for _, _, record in sorted(front, key=lambda each: each[:2])]
