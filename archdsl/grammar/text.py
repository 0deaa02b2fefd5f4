"""Texts before they are parsed: reading them, and refusing what no parser should meet."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from archdsl.diagnostics import ArchError, Diagnostic, Source, Span
from archdsl.grammar import ast
from archdsl.grammar.build import too_deep

LARGEST_FILE = 1 << 20
"""The most bytes (and characters) a file may have."""

MOST_WORDS = 30_000
"""The most words a file may have."""

DEEPEST_NESTING = 100
"""How many brackets may be open at once."""

_BYTE_ORDER_MARK = "\ufeff"
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters, but for tab and line ends
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that reorder what is shown
    "\u2028\u2029\ud800-\udfff]"  # line ends that editors disagree on; halves of characters
    "|\r(?!\n)"
)
_WORD = re.compile(r"\w+|[^\w\s]")
_BRACKET_OR_QUOTE = re.compile(r'"[^"\n]*"?|#[^\n]*|[()\[\]{}]')


def read_source(path: str | PathLike[str]) -> Source:
    """Read a file as UTF-8 text.

    Raises:
        ArchError: the file is missing, a folder, unreadable, too large or not UTF-8.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise ArchError(_unreadable(name, error)) from None
    return source_of(name, data)


def source_of(name: str, data: bytes) -> Source:
    """The text that bytes are, shown under ``name``; more than :data:`LARGEST_FILE` need not be given.

    Raises:
        ArchError: it is too large or not UTF-8.
    """
    if len(data) > LARGEST_FILE:
        raise ArchError(_too_large(Source(name, ""), f"more than {LARGEST_FILE >> 20} MiB"))
    return Source(name, _decode(name, data))


def check(source: Source) -> int:
    """Refuse a text that is too large, nested too deeply or not made of printable characters.

    Returns:
        how many brackets are open at once where it is deepest.

    Raises:
        ArchError: with every unprintable character named (ten at most), or one other diagnostic.
    """
    text = source.text
    if len(text) > LARGEST_FILE:
        raise ArchError(_too_large(source, f"{len(text):,} characters"))
    unprintable = [_unprintable(source, match) for match in _first(text, 10)]
    if unprintable:
        raise ArchError(unprintable)
    nesting = _nesting(source)
    if len(text) > MOST_WORDS and len(_WORD.findall(text)) > MOST_WORDS:
        raise ArchError(_too_large(source, f"more than {MOST_WORDS:,} words"))
    return nesting


def without_mark(source: Source) -> Source:
    """The source without the mark that some editors put first."""
    if not source.text.startswith(_BYTE_ORDER_MARK):
        return source
    return Source(source.name, source.text.removeprefix(_BYTE_ORDER_MARK))


def comments(source: Source) -> tuple[ast.Comment, ...]:
    """The comments of a text, in order."""
    return tuple(
        _comment(source, match)
        for match in _BRACKET_OR_QUOTE.finditer(source.text)
        if match.group().startswith("#")
    )


def _comment(source: Source, match: re.Match[str]) -> ast.Comment:
    text = match.group().rstrip()
    span = Span(source, match.start(), match.start() + len(text))
    return ast.Comment(span=span, text=text[1:].strip())


def _first(text: str, count: int) -> list[re.Match[str]]:
    return [match for match, _ in zip(_UNPRINTABLE.finditer(text), range(count), strict=False)]


def _nesting(source: Source) -> int:
    depth = deepest = 0
    for match in _BRACKET_OR_QUOTE.finditer(source.text):
        bracket = match.group()
        if bracket in "([{":
            depth += 1
            deepest = max(depth, deepest)
            if depth > DEEPEST_NESTING:
                note = f"{depth} brackets are open here; at most {DEEPEST_NESTING} may be"
                raise ArchError(too_deep(Span(source, match.start(), match.end()), note))
        elif bracket in ")]}":
            depth = max(depth - 1, 0)
    return deepest


def _decode(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8").removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise ArchError(_bad_utf8(name, data, error)) from None


def _bad_utf8(name: str, data: bytes, error: UnicodeDecodeError) -> Diagnostic:
    before = data[: error.start].decode("utf-8").removeprefix(_BYTE_ORDER_MARK)
    source = Source(name, before + data[error.start :].decode("utf-8", errors="replace"))
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return Diagnostic(
        "bad-utf8",
        f"the file is not UTF-8 text: byte {error.start:,} is 0x{data[error.start]:02x}",
        Span(source, len(before), len(before) + 1),
        label="this byte" if not utf16 else "the file looks like UTF-16",
        help="save the file as UTF-8",
    )


def _unreadable(name: str, error: OSError | ValueError) -> Diagnostic:
    if isinstance(error, FileNotFoundError):
        return Diagnostic("missing-file", f"there is no file `{name}`")
    if isinstance(error, IsADirectoryError):
        return Diagnostic(
            "not-a-file", f"`{name}` is a folder, not a file", help=f"try {name.rstrip('/')}/*.arch"
        )
    reason = getattr(error, "strerror", None) or str(error)
    return Diagnostic("unreadable-file", f"`{name}` cannot be read: {reason}")


def _too_large(source: Source, found: str) -> Diagnostic:
    return Diagnostic(
        "file-too-large",
        f"the file is too large to be a spec: it has {found}",
        Span(source, 0, 0),
        notes=(f"at most {LARGEST_FILE >> 20} MiB and {MOST_WORDS:,} words are read",),
    )


def _unprintable(source: Source, match: re.Match[str]) -> Diagnostic:
    code = f"U+{ord(match.group()):04X}"
    return Diagnostic(
        "control-character",
        f"the text holds the unprintable character {code}",
        Span(source, match.start(), match.end()),
        label="here, though nothing shows",
        help="delete it",
    )
