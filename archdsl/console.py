"""Diagnostics for people and for programs: the full form, one line each, and JSON.

Nothing from a user's file reaches the terminal raw: control characters are shown as signs.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from archdsl.diagnostics import Diagnostic, Severity, Source, Span

TAB = 4
"""How many blanks a tab is shown as."""

STYLES = {
    "error": "bold red",
    "warning": "bold yellow",
    "frame": "bold blue",
    "related": "bold cyan",
    "help": "bold green",
    "note": "bold",
    "title": "bold",
}
"""The colour of each kind of text, in Rich's words."""

Piece = tuple[str, str]
"""Some text and the name of its style, which may be empty."""

Row = list[Piece]
"""One line of output."""


def render(diagnostics: Iterable[Diagnostic], color: bool = False, width: int = 100) -> str:
    """The full form, with the source line and carets, and a last line that counts.

    Args:
        diagnostics: what to show, in this order.
        color: whether to use the terminal's colours.
        width: columns of the terminal.
    """
    known = list(diagnostics)
    blocks = [_paint(_block(diagnostic, width), color) for diagnostic in known]
    return "\n\n".join([*blocks, summary(known)]) if known else ""


def render_concise(diagnostics: Iterable[Diagnostic]) -> str:
    """One line each: ``path:line:column: error[id] message``."""
    return "\n".join(printable(str(diagnostic)) for diagnostic in diagnostics)


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """How many there are: ``2 errors, 1 warning``."""
    severities = [diagnostic.severity for diagnostic in diagnostics]
    counts = ((severities.count(severity), severity.value) for severity in Severity)
    return ", ".join(f"{n} {word}{'s' * (n > 1)}" for n, word in counts if n) or "no errors"


def to_json(diagnostics: Iterable[Diagnostic]) -> list[dict[str, Any]]:
    """The same as data; lines and columns count from 1, an end is just behind the last character."""
    return [
        {
            "id": diagnostic.id,
            "severity": diagnostic.severity.value,
            "message": diagnostic.message,
            **_place(diagnostic.span),
            "label": diagnostic.label,
            "help": diagnostic.help,
            "notes": list(diagnostic.notes),
            "related": [{**_place(span), "label": label} for span, label in diagnostic.related],
        }
        for diagnostic in diagnostics
    ]


def printable(text: str) -> str:
    """The text with every character shown as a sign that would move or hide others."""
    return "".join(map(_sign, text))


def _place(span: Span | None) -> dict[str, Any]:
    if span is None:
        return dict.fromkeys(("path", "line", "column", "end_line", "end_column"))
    end_line, end_column = span.end_position
    return {
        "path": span.source.name,
        "line": span.line,
        "column": span.column,
        "end_line": end_line,
        "end_column": end_column,
    }


# --- one diagnostic -------------------------------------------------------------------------------


def _block(diagnostic: Diagnostic, width: int) -> list[Row]:
    severity = diagnostic.severity.value
    title = printable(diagnostic.message)
    rows: list[Row] = [[(f"{severity}[{diagnostic.id}]", severity), (f": {title}", "title")]]
    if diagnostic.span is not None:
        rows += _excerpts(diagnostic, diagnostic.span, width)
    for word, texts in (("help", [diagnostic.help]), ("note", diagnostic.notes)):
        for text in filter(None, texts):
            rows += _remark(word, printable(text), width)
    return rows


def _remark(word: str, text: str, width: int) -> list[Row]:
    first, *others = textwrap.wrap(text, max(width - 6, 30), break_long_words=False) or [""]
    return [[(word, word), (f": {first}", "")], *([(f"      {line}", "")] for line in others)]


def _excerpts(diagnostic: Diagnostic, span: Span, width: int) -> list[Row]:
    """The lines of the primary source, then those of every other source."""
    severity = diagnostic.severity.value
    marks = {span.source: list(_marks(span, diagnostic.label, severity))}
    for other, label in diagnostic.related:
        marks.setdefault(other.source, []).extend(_marks(other, label, "related"))
    gutter = max(len(str(mark.line)) for found in marks.values() for mark in found)
    rows: list[Row] = []
    for number, (source, found) in enumerate(marks.items()):
        rows += _excerpt(source, found, gutter, width, "-->" if number == 0 else ":::")
    return [*rows, _frame(gutter)] if diagnostic.help or diagnostic.notes else rows


@dataclass(frozen=True)
class _Mark:
    """An underlined stretch of one line: columns from 0, the end behind the last."""

    line: int
    start: int
    end: int
    label: str
    style: str

    @property
    def sign(self) -> str:
        return "-" if self.style == "related" else "^"


def _marks(span: Span, label: str, style: str) -> Iterator[_Mark]:
    """The underlined stretches of a span: one, or its first and its last line."""
    source, line, start = span.source, span.line, span.column - 1
    last_line, last = source.position(max(span.end - 1, span.start))
    if line == last_line:
        yield _Mark(line, start, max(last, start + 1), label, style)
        return
    yield _Mark(line, start, max(len(source.line(line)), start + 1), "", style)
    text = source.line(last_line)
    yield _Mark(last_line, len(text) - len(text.lstrip()), last, label, style)


def _excerpt(
    source: Source, marks: Sequence[_Mark], gutter: int, width: int, sign: str
) -> list[Row]:
    primary = marks[0]
    place = f"{printable(source.name)}:{primary.line}:{primary.start + 1}"
    rows: list[Row] = [[(f"{'':{gutter}}{sign} ", "frame"), (place, "")], _frame(gutter)]
    before = None
    for line in sorted({mark.line for mark in marks}):
        if before is not None and line > before + 1:
            rows.append([("...", "frame")])
        rows += _annotated(source.line(line), [m for m in marks if m.line == line], gutter, width)
        before = line
    return rows


def _frame(gutter: int, number: str = "") -> Row:
    return [(f"{number:>{gutter}} |", "frame")]


def _annotated(text: str, marks: Sequence[_Mark], gutter: int, width: int) -> list[Row]:
    """A source line, cut around its first mark where it is too long, and a row for each mark."""
    room = max(width - gutter - 3, 20)
    cells = _Cells(text)
    first, last = cells.window(marks[0], room)
    shown = ("…" if first else "") + cells.show(first, last) + ("…" if last < len(text) else "")
    rows = [[*_frame(gutter, str(marks[0].line)), (f" {shown}".rstrip(), "")]]
    for mark in marks:
        left = cells.column(mark.start, first, last) + (first > 0)
        right = cells.column(mark.end, first, last) + (first > 0)
        rows += _underline(mark, left, max(right, left + 1), gutter, room)
    return rows


def _underline(mark: _Mark, left: int, right: int, gutter: int, room: int) -> list[Row]:
    line, *others = textwrap.wrap(printable(mark.label), max(room - right - 1, 30)) or [""]
    carets = f" {'':{left}}{mark.sign * (right - left)} {line}".rstrip()
    indent = f" {'':{right}} "
    return [
        [*_frame(gutter), (carets, mark.style)],
        *([*_frame(gutter), (indent + other, mark.style)] for other in others),
    ]


# --- characters and columns -----------------------------------------------------------------------


class _Cells:
    """A line of text and the column at which each of its characters is shown."""

    def __init__(self, text: str) -> None:
        self.signs = [" " * TAB if char == "\t" else _sign(char) for char in text]
        self.columns = [0, *accumulate(sum(map(_width, sign)) for sign in self.signs)]

    def show(self, first: int, last: int) -> str:
        """What is shown for some of the characters."""
        return "".join(self.signs[first:last])

    def column(self, index: int, first: int, last: int) -> int:
        """Where a character is shown when ``first`` to ``last`` are; clipped to them."""
        inside = min(max(index, first), last)
        return self.columns[inside] - self.columns[first] + max(index - len(self.signs), 0)

    def window(self, mark: _Mark, room: int) -> tuple[int, int]:
        """The characters to show so that the line fits and the mark is among them."""
        count = len(self.signs)
        if self.columns[-1] <= room:
            return 0, count
        first = min(mark.start, count)
        while first and self.columns[min(mark.end, count)] - self.columns[first - 1] <= room // 2:
            first -= 1
        last = first
        while last < count and self.columns[last + 1] - self.columns[first] <= room - 2:
            last += 1
        return first, last


@cache
def _sign(char: str) -> str:
    """A sign for a character that must not reach a terminal; any other as it is."""
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    harmless = char in "\u200c\u200d" or unicodedata.category(char) not in (
        "Cc",
        "Cf",
        "Cs",
        "Zl",
        "Zp",
    )
    return char if harmless else "\ufffd"


@cache
def _width(char: str) -> int:
    """How many columns a character takes."""
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


# --- colour ---------------------------------------------------------------------------------------


def _paint(rows: Sequence[Row], color: bool) -> str:
    if not color:
        return "\n".join("".join(text for text, _ in row).rstrip() for row in rows)
    return "\n".join("".join(_styled(text, style) for text, style in row) for row in rows)


def _styled(text: str, style: str) -> str:
    from rich.color import ColorSystem
    from rich.style import Style

    name = STYLES.get(style)
    return Style.parse(name).render(text, color_system=ColorSystem.STANDARD) if name else text
