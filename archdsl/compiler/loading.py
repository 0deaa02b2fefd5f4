"""From a file to a space."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from archdsl.compiler.check import Checker
from archdsl.compiler.bindings import bind_lets
from archdsl.compiler.definitions import check_definitions
from archdsl.compiler.elaborate import Elaborator
from archdsl.compiler.names import Loader
from archdsl.compiler.program import Planner
from archdsl.compiler.space import Space
from archdsl.compiler.sources import Bound, Sources
from archdsl.diagnostics import ArchError, Diagnostic, Report, Source, Span
from archdsl.grammar.parse import read_source

if TYPE_CHECKING:
    from archdsl.compiler.model import Model


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


def compile(
    path: str | PathLike[str],
    *,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    bindings: Mapping[str, Bound] | None = None,
) -> Model:
    """The model of a file: of its one architecture, or of one drawn from its space.

    Args:
        path: of the file.
        seed: of the draw and of the weights.
        device: where its parameters live.
        dtype: of its parameters.
        bindings: see :func:`load`.

    Raises:
        ArchError: with every mistake found in the file.
    """
    return load(path, bindings=bindings).sample(seed).compile(device, dtype, seed)


def space_of(sources: Sources) -> Space:
    """The space of stored texts; reads no file."""
    return read(
        Source(sources.name, sources.text), Path(sources.name).parent, sources.bindings, sources.used
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
        return _read(source, folder, bindings or {}, texts, report), report
    except ArchError as error:
        for diagnostic in error.diagnostics:
            report.add(diagnostic)
    except RecursionError:
        report.add(Diagnostic("nested-too-deeply", "this file is nested too deeply", Span(source, 0, 0)))
    return None, report


def _read(
    source: Source,
    folder: Path,
    bindings: Mapping[str, Bound],
    texts: Mapping[str, str] | None,
    report: Report,
) -> Space | None:
    loader = Loader(report, folder, texts)
    scope = loader.main(source)
    bind_lets(scope, bindings)
    elaborator = Elaborator(scope, report)
    elaborator.recursive = check_definitions(scope, report)
    plan = Planner(elaborator, report).plan()
    if report.errors:
        return None
    space = Space(plan, Sources(source.name, source.text, loader.texts, bindings))
    Checker(plan, space.layouts, report).check()
    return None if report.errors else space
