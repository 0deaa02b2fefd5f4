"""A forgiving look at a text that does not parse: its words, and which brackets are open where."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

KEYWORDS = ("use", "let", "def", "model", "require", "task", "train", "search")
"""The words that begin an item."""

CLOSING = {"(": ")", "[": "]", "{": "}"}
"""Each opening bracket with its partner."""

CLOSED = frozenset(CLOSING.values())

_VALUE = frozenset("([-+_0123456789abcdefghijklmnopqrstuvwxyz")

_WORD = re.compile(
    r"""
    (?P<comment>\#[^\n]*)
  | (?P<string>"[^"\n]*")
  | (?P<open>"[^\n]*)
  | (?P<quoted>'[^'\n]*'|[“”„«][^“”»\n]*[“”»]|`[^`\n]*`)
  | (?P<ratio>[0-9]+(?::[0-9]+)+\b)
  | (?P<number>[0-9](?:[eE][+-]?(?=[0-9])|\w|\.(?=[0-9]))*)
  | (?P<name>\w+)
  | (?P<symbol><=|>=|==|!=|\.\.|&&|\|\||\*\*|//|/\*|\*/|->|=>|:=|[^\s\w])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Word:
    """One word of the text: its kind (a group of the pattern above), place and spelling."""

    kind: str
    text: str
    start: int
    end: int
    first: bool
    """Whether it is the first on its line."""
    column: int
    """How far it stands from the beginning of its line, from 0."""

    @property
    def is_name(self) -> bool:
        """Whether it could be a name."""
        return self.kind == "name"


@dataclass(frozen=True, slots=True)
class Opening:
    """An open bracket: the index of its word, and of the word that begins its line."""

    index: int
    bracket: str
    line_index: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a word stands in.

    Args:
        begin: the first word of the piece.
        index: the word.
        line_index: the word that begins its line, or the line before where it does so itself.
        item: the keyword of the item, if it has one.
        opened: the brackets that are open, the innermost last.
    """

    begin: int
    index: int
    line_index: int
    item: int | None
    opened: tuple[Opening, ...]


class Words:
    """The words of a text, without its comments."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.list = list(_words(text))
        self._ends = [word.end for word in self.list]
        self._last = Surroundings(0, 0, 0, None, ())

    def index_at(self, offset: int) -> int:
        """The index of the word that covers an offset, or of the next one."""
        return bisect_right(self._ends, offset)

    def item_starts(self) -> Iterator[int]:
        """Indices of the keywords at the very beginning of a line, well used or not."""
        for index, word in enumerate(self.list):
            if word.column == 0 and word.text in KEYWORDS and not self._is_value(index):
                yield index

    def _is_value(self, index: int) -> bool:
        """Whether a keyword is used as the name of an argument, a setting, a label or a part."""
        after, behind = self.text_of(index + 1), self.text_of(index + 2)
        return after in (":", "=", ",", ")", "|", ".") and behind != "{"

    def begins_item(self, index: int) -> bool:
        """Whether a keyword stands here with what has to follow it."""
        word, after, behind = (self.text_of(index + i) for i in range(3))
        if word in ("model", "search", "train"):
            return after == "{" or (behind == "{" and after != "}")
        if word in ("let", "task"):
            return behind == "="
        if word == "def":
            return behind in ("(", "=", "{")
        return (word == "use" and after[:1] == '"') or (word == "require" and after[:1] in _VALUE)

    def text_of(self, index: int) -> str:
        """The spelling of a word; empty beyond the ends."""
        return self.list[index].text if 0 <= index < len(self.list) else ""

    def surroundings(self, begin: int, index: int) -> Surroundings:
        """What is open before word ``index`` of the piece that starts with word ``begin``.

        Asked for one place after another, it goes on from the last one.
        """
        last = self._last
        if (last.begin, last.index) > (begin, index) or last.begin != begin:
            last = Surroundings(begin, begin, begin, None, ())
        opened, line_index, item = list(last.opened), last.line_index, last.item
        for i in range(last.index, min(index, len(self.list))):
            word = self.list[i]
            line_index = i if word.first else line_index
            if not opened and word.text in KEYWORDS and self.begins_item(i):
                item = i
            if word.text in CLOSING:
                opened.append(Opening(i, word.text, line_index))
            elif word.text in CLOSED:
                close(opened, word.text)
        self._last = Surroundings(begin, index, line_index, item, tuple(opened))
        return self._last


def close(opened: list[Opening], bracket: str) -> None:
    """Take off what a closing bracket closes, forgiving brackets left open inside."""
    for depth in range(len(opened) - 1, -1, -1):
        if CLOSING[opened[depth].bracket] == bracket:
            del opened[depth:]
            return


def _words(text: str) -> Iterator[Word]:
    end_of_last = 0
    line_start = 0
    for match in _WORD.finditer(text):
        start, kind = match.start(), match.lastgroup or ""
        newline = text.rfind("\n", end_of_last, start)
        first = newline >= 0 or end_of_last == 0
        line_start = newline + 1 if newline >= 0 else line_start
        end_of_last = match.end()
        if kind != "comment":
            yield Word(kind, match.group(), start, match.end(), first, start - line_start)
