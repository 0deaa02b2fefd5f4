"""``archdsl validate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archdsl.cli.options import jobs_option
from archdsl.cli.output import MAPPING, drawn_text, exact, plural, table, write

if TYPE_CHECKING:
    from rich.table import Table

    from archdsl.search.validation import Report, Row

HEADINGS = ("metric", "τ", "ρ", "size", "kind", "half", "regret", "ms", "paper")


@click.group(short_help="Judge metrics on published results.")
def validate() -> None:
    """Judge what a search relies on by results that nobody here produced."""


@validate.command(short_help="Judge training-free metrics.")
@click.argument("data", type=click.Path(path_type=Path))
@jobs_option("Processes.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="File for the figures.")
@click.option(
    "--limit", type=click.IntRange(3), help="Only so many architectures, spread over DATA."
)
def metrics(data: Path, jobs: int, out: Path | None, limit: int | None) -> None:
    """Score the architectures of DATA, and compare every metric with what they reached.

    DATA holds trained architectures: cells of NAS-Bench-NLP, encoders with GLUE scores, or decoders with
    perplexities. τ is Kendall's, ρ Spearman's, both with 95 % bootstrap intervals; positive is better.
    """
    from archdsl.search.validation import benchmark
    from archdsl.search.validation import validate as judged

    known = benchmark(data, limit)
    with click.progressbar(length=len(known.entries), label="scoring", file=sys.stderr) as bar:
        report = judged(known, jobs, lambda: bar.update(1))
    if out is not None:
        write(out, json.dumps(report.data(), indent=2, ensure_ascii=False) + "\n")
    click.echo(summary(report))
    click.echo(drawn_text(figures(report)))
    click.echo(LEGEND)


def summary(report: Report) -> str:
    """What was scored, in sentences."""
    known = report.benchmark
    lines = [
        f"{known.name}: {plural(report.judged, 'architecture')} with a result ({known.reached})"
        + (f", {exact(report.diverged)} that diverged in every run" if report.diverged else ""),
    ]
    checked = sum(entry.params is not None for entry in known.entries)
    if checked:
        right = checked - len(report.different)
        lines.append(f"parameters as published: {exact(right)} of {exact(checked)}")
    lines.append(f"{report.seconds * 1000:.0f} ms an architecture for all metrics together")
    return "\n".join(lines)


def figures(report: Report) -> Table:
    """One row a metric, the best first; baselines below."""
    found = table(*HEADINGS, right=HEADINGS[1:])
    ranked = sorted(report.rows, key=lambda row: (row.baseline, -abs(row.agreement.tau)))
    for row in ranked:
        found.add_row(*cells(row), style="dim" if row.baseline else None)
    return found


def cells(row: Row) -> list[str]:
    """The figures of a row; an interval is given by half of its width."""
    a = row.agreement
    return [
        row.metric,
        _within(a.tau, a.tau_low, a.tau_high), _within(a.rho, a.rho_low, a.rho_high),
        *(_short(tau, 2) for tau in (a.tau_equal_size, a.tau_strata, a.tau_better_half)),
        f"{a.regret_top20:.2f}",
        f"{row.seconds * 1000:.0f}" if row.seconds else "",
        "" if row.paper is None else _short(row.paper, 3).lstrip("+"),
    ]  # fmt: skip


def _within(value: float, low: float, high: float) -> str:
    return f"{_short(value, 3)}±{(high - low) / 2:.2f}".replace("±0.", "±.")


def _short(value: float, places: int) -> str:
    """``+.613``: the sign, and no zero before the point."""
    return f"{value:+.{places}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:+.0f}"


LEGEND = (
    "τ and ρ ± half of their 95 % bootstrap intervals; positive is better. τ also over pairs within 10 %\n"
    "of parameters (size), over pairs of one kind, and over the better half; regret: by how much the\n"
    "best of the 20 highest scores falls short of the best of all; ms an architecture; |τ| of the papers"
)
"""What stands below the table."""

COMMANDS: MAPPING = {"validate": validate}
