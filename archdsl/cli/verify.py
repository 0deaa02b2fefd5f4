"""``archdsl verify``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archdsl.cli.options import jobs_option
from archdsl.cli.output import MAPPING, plural, write

if TYPE_CHECKING:
    from archdsl.search.verification import Check, Row

HEADINGS = ("task", "check", "expected", "found")

LONGEST_FOUND = len("8192, up to 8191")


@click.group(short_help="Check what a search relies on.")
def verify() -> None:
    """Check what a search relies on against what is published about it."""


@verify.command(short_help="Check the tasks' sequences, and how far small models come.")
@click.option("--tasks", "wanted", help="Which, with commas between.  [default: all]")
@click.option("--json", "out", type=click.Path(path_type=Path), help="File for the figures.")
@jobs_option("Processes.  [default: one a core]", default=None)
@click.pass_context
def tasks(ctx: click.Context, wanted: str | None, out: Path | None, jobs: int | None) -> None:
    """Check every task's sequences, and train small models that are known to solve it or to fail.

    Sequences are checked at the published sizes: vocabulary, length, share of judged positions, and that
    nothing held out is ever trained on. Models are trained on small sizes, so it takes minutes. The exit
    status is 1 where anything is not as it should be.
    """
    from archdsl.search.verification import checks, rows, stated

    names = [name.strip() for name in wanted.split(",") if name.strip()] if wanted else None
    planned = checks(stated(names))
    start, found = time.perf_counter(), []
    columns = widths(planned)
    click.echo(line(["", *HEADINGS, "steps", "s"], columns))
    for number, row in enumerate(rows(planned, jobs or os.cpu_count() or 1), start=1):
        found.append(row)
        click.echo(f"{line(cells(row), columns)}   {number}/{len(planned)}")
    passed = all(row.ok for row in found)
    if out is not None:
        data = {"passed": passed, "rows": [row.data() for row in found]}
        write(out, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    click.echo(summary(found, time.perf_counter() - start))
    ctx.exit(0 if passed else 1)


def widths(planned: Sequence[Check]) -> list[int]:
    """Of the columns: rows are printed as they come, so these must be known before."""
    words = [(check.task, check.what, check.expected) for check in planned]
    longest = [max(map(len, column)) for column in zip(HEADINGS, *words, strict=False)]
    return [len("not ok"), *longest, LONGEST_FOUND, 5, 5]


def line(words: Sequence[str], columns: Sequence[int]) -> str:
    """One row; the figures at its end stand below each other."""
    *left, steps, seconds = (
        word.rjust(size) if place >= len(columns) - 2 else word.ljust(size)
        for place, (word, size) in enumerate(zip(words, columns, strict=True))
    )
    return "  ".join([*left, steps, seconds]).rstrip()


def cells(row: Row) -> list[str]:
    """What a row says."""
    check = row.check
    about = ["ok" if row.ok else "not ok", check.task, check.what, check.expected, row.found]
    return [*about, f"{row.steps}" if row.steps else "", f"{row.seconds:.1f}"]


def summary(found: Sequence[Row], seconds: float) -> str:
    """The last line."""
    wrong = sum(not row.ok for row in found)
    said = f"{wrong} of {plural(len(found), 'check')} failed" if wrong else (
        f"{plural(len(found), 'check')}, all as they should be"
    )  # fmt: skip
    return f"{said}; {seconds:.0f} s"


COMMANDS: MAPPING = {"verify": verify}
