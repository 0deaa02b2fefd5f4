"""From a file to a space."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from archdsl.compiler.checking.checker import Checker
from archdsl.compiler.reading.bindings import bind_lets
from archdsl.compiler.reading.definitions import check_definitions
from archdsl.compiler.reading.elaborate import Elaborator, TooMuch
from archdsl.compiler.reading.names import Loader
from archdsl.compiler.reading.program import Planner
from archdsl.compiler.reading.sources import Bound, Sources
from archdsl.compiler.reading.trial import try_definitions
from archdsl.compiler.spaces.sites import name_wanderers
from archdsl.compiler.spaces.space import Space
from archdsl.diagnostics import ArchError, Diagnostic, Report, Source, Span
from archdsl.grammar.parse import read_source


def load(path: str | PathLike[str], *, bindings: Mapping[str, Bound] | None = None) -> Space:
    """The space of a file.

    Args:
        path: of the file.
        bindings: values for ``let`` items of the file, by name, instead of what is written there.

    Raises:
        ArchError: with every mistake found in it.
    """
    source = read_source(path)
    return read(source, Path(path).parent, bindings or {})


def loads(text: str, name: str = "<text>") -> Space:
    """The space of a text; what it uses is looked for in the folder of ``name``.

    Raises:
        ArchError: with every mistake found in it.
    """
    return read(Source(name, text), Path(name).parent, {})


def space_of(sources: Sources) -> Space:
    """The space of stored texts; reads no file."""
    return read(
        Source(sources.name, sources.text),
        Path(sources.name).parent,
        sources.bindings,
        sources.used,
    )


def read(
    source: Source,
    folder: Path,
    bindings: Mapping[str, Bound],
    texts: Mapping[str, str] | None = None,
) -> Space:
    """Read, elaborate and check a program.

    Raises:
        ArchError: with every mistake found in it.
    """
    space, report = reading(source, folder, bindings, texts)
    report.raise_errors()
    assert space is not None
    return space


def reading(
    source: Source,
    folder: Path,
    bindings: Mapping[str, Bound] | None = None,
    texts: Mapping[str, str] | None = None,
) -> tuple[Space | None, Report]:
    """The space, where there is one, and everything there is to say about the text."""
    report = Report()
    try:
        with _uncollected():
            return _read(source, folder, bindings or {}, texts, report), report
    except ArchError as error:
        for diagnostic in error.diagnostics:
            report.add(diagnostic)
    except RecursionError:
        report.add(
            Diagnostic("nested-too-deeply", "this file is nested too deeply", Span(source, 0, 0))
        )
    return None, report


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no unreachable cycles meanwhile: nearly all that reading makes is kept, and it is bounded."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _read(
    source: Source,
    folder: Path,
    bindings: Mapping[str, Bound],
    texts: Mapping[str, str] | None,
    report: Report,
) -> Space | None:
    space = _elaborated(source, folder, bindings, texts, report)
    if report.errors:
        return None
    Checker(space.plan, space.layouts, report).check()
    if report.errors:
        return None
    name_wanderers(space.plan, space.layouts)
    if space.plan.model is not None:
        space.count()
    return space


def _elaborated(
    source: Source,
    folder: Path,
    bindings: Mapping[str, Bound],
    texts: Mapping[str, str] | None,
    report: Report,
) -> Space:
    loader = Loader(report, folder, texts)
    scope = loader.main(source)
    bind_lets(scope, bindings)
    elaborator = Elaborator(scope, report)
    elaborator.recursive = check_definitions(scope, report)
    try:
        plan = Planner(elaborator, report).plan()
        try_definitions(elaborator, scope)
    except TooMuch as problem:
        raise ArchError([*report.errors, problem.diagnostic]) from None
    sources = Sources(source.name, source.text, loader.texts, bindings)
    return Space(plan, sources, scope.program)


def unchecked(sources: Sources) -> Space:
    """The space of stored texts, of which the types are not checked.

    Raises:
        ArchError: names or arguments are wrong.
    """
    report = Report()
    source = Source(sources.name, sources.text)
    folder = Path(sources.name).parent
    space = _elaborated(source, folder, sources.bindings, sources.used, report)
    report.raise_errors()
    return space
