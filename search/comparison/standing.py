"""What a contest has shown, as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median_low

import numpy as np
from rich.table import Table

from archdsl.search.comparison.contest import Entrant, Trial
from archdsl.search.statistics.significance import (
    Difference,
    Floats,
    band,
    best_so_far,
    difference,
    holm,
)

HEADINGS = (
    "sampler", "mean best", "95 %", "− random", "95 %", "wins", "p (Holm)", "real",
    "trials to random",
)  # fmt: skip

Runs = Mapping[tuple[str, int], Sequence[Trial]]


@dataclass(frozen=True)
class Row:
    """One sampler's showing.

    Args:
        label: of the entrant.
        finals: the best value of each seed's run, in the order of the seeds.
        curve: best so far after each trial: mean over seeds, and its 95 % interval; 3 × [trials].
        against: the difference from the baseline; ``None`` for the baseline itself.
        reached: trials after which half of the runs have the baseline's mean final best; ``None`` where
            fewer ever do.
    """

    label: str
    finals: tuple[float, ...]
    curve: tuple[Floats, Floats, Floats]
    against: Difference | None
    reached: float | None

    @property
    def mean(self) -> float:
        """Of the final bests."""
        return fmean(self.finals)


@dataclass(frozen=True)
class Ticket:
    """One setting of a sampler's parameters, in the lottery that choosing them is."""

    sampler: str
    label: str
    mean: float
    low: float
    high: float


def rows(runs: Runs, entrants: Sequence[Entrant], seeds: Sequence[int], baseline: str) -> list[Row]:
    """A row for each sampler with its own settings, the best mean first."""
    curves = {e.label: curves_of(runs, e.label, seeds) for e in entrants if not e.variant}
    goal = float(curves[baseline][:, -1].mean())
    against = differences(curves, baseline)
    found = [
        Row(label, tuple(map(float, c[:, -1])), band(c), against.get(label), _reached(c, goal))
        for label, c in curves.items()
    ]
    return sorted(found, key=lambda row: -row.mean)


def differences(curves: Mapping[str, Floats], baseline: str) -> dict[str, Difference]:
    """Every sampler's difference from the baseline, with p corrected for all of them."""
    base = curves[baseline][:, -1].tolist()
    found = {
        label: difference(curve[:, -1].tolist(), base)
        for label, curve in curves.items()
        if label != baseline
    }
    corrected = holm([each.p for each in found.values()])
    return {
        label: replace(each, p=p) for (label, each), p in zip(found.items(), corrected, strict=True)
    }


def lottery(runs: Runs, entrants: Sequence[Entrant], seeds: Sequence[int]) -> list[Ticket]:
    """How each setting of each sampler did on the same few seeds, sampler by sampler."""
    variants = {entrant.sampler.name for entrant in entrants if entrant.variant}
    found = []
    for entrant in entrants:
        if entrant.sampler.name in variants:
            curves = curves_of(runs, entrant.label, seeds)[:, -1:]
            mean, low, high = band(curves)
            found.append(
                Ticket(
                    entrant.sampler.name, entrant.label, *(float(v[0]) for v in (mean, low, high))
                )
            )
    return sorted(found, key=lambda ticket: (ticket.sampler, -ticket.mean))


def curves_of(runs: Runs, label: str, seeds: Sequence[int]) -> Floats:
    """Best so far of each seed after each trial: [seeds, trials]; a run that ended early stays."""
    values = [[trial.value for trial in runs[label, seed]] for seed in seeds]
    longest = max(map(len, values))
    filled = [[*each, *[each[-1]] * (longest - len(each))] for each in values]
    return best_so_far(np.array(filled, dtype=np.float64))


def _reached(curves: Floats, goal: float) -> float | None:
    there = curves >= goal
    first = np.where(there.any(1), there.argmax(1) + 1.0, np.inf)
    middle = median_low(first.tolist())
    return middle if np.isfinite(middle) else None


def table(found: Sequence[Row], score: str) -> Table:
    """For the terminal."""
    shown = Table(title=f"best {score} of equal budgets", title_justify="left")
    for head in HEADINGS:
        shown.add_column(head, justify="left" if head in ("sampler", "real") else "right")
    for row in found:
        shown.add_row(*cells(row))
    return shown


def cells(row: Row) -> list[str]:
    """A row's figures in words."""
    low, high = row.curve[1][-1], row.curve[2][-1]
    own = [row.label, f"{row.mean:.4g}", f"{low:.4g} … {high:.4g}"]
    reached = f"{row.reached:.0f}" if row.reached is not None else "–"
    if (other := row.against) is None:
        return [*own, "–", "–", "–", "–", "–", reached]
    verdict = ("better" if other.mean > 0 else "worse") if other.real else "no"
    return [
        *own, f"{other.mean:+.3g}", f"{other.low:+.3g} … {other.high:+.3g}", f"{other.wins:.0%}",
        f"{other.p:.2g}", verdict, reached,
    ]  # fmt: skip
