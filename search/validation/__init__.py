"""Metrics judged on published architectures: ``archdsl validate metrics``.

A file of published results becomes texts of the language; each is read, compiled and scored as any
candidate of a search is, and every score is compared with what the architecture reached after training.
To add a benchmark: write a module whose ``FORMAT`` is a :class:`.base.Format` that reads its records, and
put it in :data:`FORMATS` under the key that tells its records from others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from archdsl.search.validation import decoders, encoders, nas_bench_nlp
from archdsl.search.validation.base import Benchmark, Format, records, unknown

if TYPE_CHECKING:
    from archdsl.search.validation.agreement import Agreement
    from archdsl.search.validation.scoring import Scored

FORMATS: dict[str, Format] = {
    "recipe": nas_bench_nlp.FORMAT,
    "encoder_layers": encoders.FORMAT,
    "config": decoders.FORMAT,
}
"""What a file is, by a key of its records."""


@dataclass(frozen=True)
class Row:
    """What is said of one metric.

    Args:
        metric: its label.
        agreement: with what was reached.
        seconds: an architecture, on its own.
        paper: |τ| as published, if it is.
        baseline: whether it needs no model.
    """

    metric: str
    agreement: Agreement
    seconds: float
    paper: float | None
    baseline: bool


@dataclass(frozen=True)
class Report:
    """What was found.

    Args:
        benchmark: the architectures.
        rows: one a metric, the baselines last.
        judged: architectures with a result to compare with.
        diverged: those without.
        different: names of those whose parameters are not as the data say.
        seconds: for all metrics together, an architecture.
    """

    benchmark: Benchmark
    rows: tuple[Row, ...]
    judged: int
    diverged: int
    different: tuple[str, ...]
    seconds: float

    def data(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "benchmark": self.benchmark.name,
            "n": self.judged,
            "rows": list(map(_row, self.rows)),
        }


FIGURES = (
    "n", "tau", "tau_low", "tau_high", "rho", "tau_equal_size", "tau_strata", "tau_better_half",
    "regret_top20",
)  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    figures = {name: getattr(row.agreement, name) for name in FIGURES}
    return {"metric": row.metric, **figures, "seconds_per_architecture": row.seconds}


def benchmark(path: Path, limit: int | None = None) -> Benchmark:
    """The benchmark of a file.

    Args:
        path: JSON, or JSON lines.
        limit: only so many of its architectures, spread over the file.

    Raises:
        ArchError: the file cannot be read, or is of no known benchmark.
    """
    found = records(path)
    known = next((each for key, each in FORMATS.items() if key in found[0]), None)
    if known is None:
        raise unknown(path, f"its records have {', '.join(sorted(map(str, found[0])))}")
    whole = known.read(path, found)
    if limit is None or limit >= len(whole.entries):
        return whole
    step = len(whole.entries) / limit
    return replace(whole, entries=tuple(whole.entries[int(i * step)] for i in range(limit)))


def validate(data: Benchmark, jobs: int = 1, tell: Callable[[], object] = lambda: None) -> Report:
    """Score every architecture with every metric, and compare.

    Args:
        data: the architectures.
        jobs: processes.
        tell: is called behind each architecture.
    """
    from archdsl.search.validation.scoring import judged, scored

    results = scored(data, judged(), jobs, tell)
    pairs = list(zip(data.entries, results, strict=True))
    different = [e.name for e, s in pairs if e.params not in (None, s.params - e.tables)]
    known = [(e, s) for e, s in pairs if e.reached is not None]
    return Report(
        benchmark=data,
        rows=tuple(_rows(data, known, results)),
        judged=len(known),
        diverged=len(pairs) - len(known),
        different=tuple(different),
        seconds=sum(s.whole for s in results) / len(results),
    )


def _rows(data: Benchmark, known: list[tuple[Any, Scored]], results: Sequence[Scored]) -> list[Row]:
    from archdsl.search.validation.agreement import Judge

    sizes = [s.params - e.tables for e, s in known]
    judge = Judge([e.reached for e, _ in known], sizes, [e.stratum for e, _ in known])
    baselines = {
        "params": [s.params for _, s in known],
        "params - tables": sizes,
        "flops": [s.flops for _, s in known],
    }
    rows = []
    for label in known[0][1].scores:
        values = [s.scores[label] for _, s in known]
        seconds = fmean(s.seconds[label] for s in results if s.seconds)
        rows.append(Row(label, judge.agreement(values), seconds, data.paper.get(label), False))
    for label, values in baselines.items():
        rows.append(Row(label, judge.agreement(values), 0.0, data.paper.get(label), True))
    return rows
