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


class Words:
    """The words of a text, without its comments."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.list = list(_words(text))
        self._ends = [word.end for word in self.list]

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
        return (word == "use" and after[:1] == '"') or (word == "require" and after[:1].isalpha())

    def text_of(self, index: int) -> str:
        """The spelling of a word; empty beyond the ends."""
        return self.list[index].text if 0 <= index < len(self.list) else ""

    def open_at(self, begin: int, index: int) -> list[Opening]:
        """The brackets opened at or after word ``begin`` that are still open before ``index``."""
        opened: list[Opening] = []
        line_index = begin
        for i in range(begin, min(index, len(self.list))):
            word = self.list[i]
            line_index = i if word.first else line_index
            if word.text in CLOSING:
                opened.append(Opening(i, word.text, line_index))
            elif word.text in CLOSING.values() and opened:
                close(opened, word.text)
        return opened


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
