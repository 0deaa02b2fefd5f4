"""Everything there is to say about a file: what is wrong with it, and what is odd."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from archdsl.compiler.spaces.loading import reading
from archdsl.compiler.spaces.space import Space
from archdsl.diagnostics import ArchError, Diagnostic, Report, Source
from archdsl.grammar.parse import read_source

FEASIBILITY_SECONDS = 0.2
"""How long it looks for an architecture that keeps the requirements."""


def check(path: str | PathLike[str]) -> list[Diagnostic]:
    """Everything worth saying about a file, errors and warnings, in the order of the text."""
    try:
        return check_source(read_source(path))
    except ArchError as error:
        return list(error.diagnostics)


def check_text(text: str, name: str = "<text>") -> list[Diagnostic]:
    """The same for a text that is shown under ``name``."""
    return check_source(Source(name, text))


def check_source(source: Source) -> list[Diagnostic]:
    """The same for a source; what it uses is looked for in the folder of its name."""
    return _checked(*reading(source, Path(source.name).parent))


def _checked(space: Space | None, report: Report) -> list[Diagnostic]:
    unasked = space is None or space.plan.model is None or not space.plan.requirements
    if space is not None and not unasked and not report.errors:
        try:
            diagnostic = space.infeasibility(FEASIBILITY_SECONDS)
        except ArchError as error:
            diagnostic = error.diagnostics[0]
        if diagnostic is not None:
            report.add(diagnostic)
    misspelt = [d.label for d in report.diagnostics if d.id == "unknown-name"]
    return sorted(
        (d for d in report.diagnostics if not (d.id == "unused-name" and _echo(d, misspelt))),
        key=_place,
    )


def _echo(unused: Diagnostic, misspelt: Sequence[str]) -> bool:
    """Whether a name is unused only because its one use is misspelt."""
    name = unused.message.rsplit("`", 2)[1]
    return f"did you mean `{name}`?" in misspelt


def _place(diagnostic: Diagnostic) -> tuple[int, int]:
    span = diagnostic.span
    return (0, 0) if span is None else (span.line, span.column)
