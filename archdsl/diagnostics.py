"""What goes wrong, as data: where it is, what it is called, what to type instead.

Nothing here prints or knows colours (see :mod:`archdsl.console`), and nothing here imports the rest
of the package, so every layer can report in the same words.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import Enum
from functools import cached_property


class Severity(Enum):
    """How bad a diagnostic is: an error stops the run, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Source:
    """One text and the name it is shown under.

    Args:
        name: the path as the user typed it, or ``<text>``.
        text: the whole text.
    """

    name: str
    text: str = field(repr=False)

    @cached_property
    def line_starts(self) -> list[int]:
        """Offset of the first character of each line; a line feed alone ends a line."""
        return [0, *(i + 1 for i, char in enumerate(self.text) if char == "\n")]

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of line ``number`` (from 1), without its end."""
        return self.text[self.line_starts[number - 1] :].split("\n", 1)[0].rstrip("\r")


@dataclass(frozen=True)
class Span:
    """A half-open stretch ``[start, end)`` of a source, in characters."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """Line of the first character, from 1."""
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        """Column of the first character, from 1."""
        return self.source.position(self.start)[1]

    @property
    def end_position(self) -> tuple[int, int]:
        """Line and column just behind the last character, from 1."""
        return self.source.position(self.end)

    @property
    def text(self) -> str:
        """The characters it covers."""
        return self.source.text[self.start : self.end]

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Diagnostic:
    """One thing to tell the user.

    Args:
        id: a stable kebab-case name of the pattern, listed in :mod:`archdsl.catalogue`.
        message: one sentence that can be understood alone.
        span: the place; ``None`` only where there is no text to point at (a missing file).
        label: a few words shown at the caret ("did you mean `heads`?").
        help: what to type instead.
        notes: further facts, one sentence each.
        related: other places that matter, each with its label.
    """

    id: str
    message: str
    span: Span | None = None
    label: str = ""
    help: str = ""
    notes: tuple[str, ...] = ()
    related: tuple[tuple[Span, str], ...] = ()
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = f"{self.span}: " if self.span else ""
        return f"{place}{self.severity.value}[{self.id}] {self.message}"


class ArchError(Exception):
    """The user's mistake, with everything found wrong in one run.

    Args:
        diagnostics: at least one, in the order of the text.
    """

    def __init__(self, diagnostics: Diagnostic | Sequence[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = (
            (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        )
        super().__init__("\n".join(map(str, self.diagnostics)))

    def __reduce__(self) -> tuple[type[ArchError], tuple[tuple[Diagnostic, ...]]]:
        return type(self), (self.diagnostics,)


class Report:
    """Collects diagnostics so that one run can name several mistakes.

    Attributes:
        told: how many it was given, repetitions counted.
    """

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.told = 0
        self._places: dict[object, int] = {}

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep a diagnostic, once; what is said of several things in one place becomes one."""
        self.told += 1
        key = (diagnostic.id, diagnostic.span, diagnostic.severity, _unnamed(diagnostic.message))
        if key not in self._places:
            self._places[key] = len(self.diagnostics)
            self.diagnostics.append(diagnostic)
            return
        first = self.diagnostics[self._places[key]]
        note = f"the same is true of {_named(diagnostic.message)}"
        if diagnostic.message != first.message and note not in first.notes:
            both = replace(first, notes=(*first.notes, note))
            self.diagnostics[self._places[key]] = both

    @property
    def errors(self) -> list[Diagnostic]:
        """Those that stop the run."""
        return [d for d in self.diagnostics if d.severity is Severity.ERROR]

    def raise_errors(self) -> None:
        """Raise :class:`ArchError` with every error found so far, if there is one."""
        if self.errors:
            raise ArchError(self.errors)


_NAME = re.compile("`[^`]*`")


def _unnamed(message: str) -> str:
    """A message without the name it begins with, the thing it is about."""
    return _NAME.sub("", message, count=1) if message.startswith("`") else message


def _named(message: str) -> str:
    found = _NAME.match(message)
    return found.group() if found else ""


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The known name a misspelt word most likely means, if one is near enough."""
    return next(iter(get_close_matches(word, list(names), n=1, cutoff=0.6)), None)


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """``did you mean `x`?`` or an empty string."""
    match = nearest(word, names)
    return f"did you mean `{match}`?" if match else ""
