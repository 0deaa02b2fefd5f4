"""Parsing a text without mistakes: the parser's table, walked in one loop over one expression.

Lark's own parser stops at each token, so that a mistake can be looked into. That takes longer than all else
it does. This walk gives up at the first thing that does not fit, and the text is parsed by Lark after all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

Reduction = tuple[int, str, Callable[[list[Any]], Any] | None]
"""How many values a rule takes, what it makes of them, and how; ``None`` leaves the one value as it is."""


class Terminal(NamedTuple):
    """A kind of word: its name, its expression, and what makes it come before others."""

    name: str
    expression: str
    priority: int
    longest: int

    @property
    def keyword(self) -> str | None:
        """The letters that it stands for, if it is not made of signs."""
        found = re.match("[a-z]+", self.expression)
        return found and found[0]


class Word(str):
    """A word of the text: what a tree is built from needs no more of a token."""

    __slots__ = ("end_pos", "start_pos", "type")

    type: str
    start_pos: int
    end_pos: int


@dataclass(frozen=True, eq=False)
class Walk:
    """Walks the table of a grammar.

    Args:
        start: the first state.
        end: the state behind the whole text.
        goes: for each state, where a terminal or a rule leads to.
        reduces: for each state, the rule that is complete before a terminal.
        terminals: the kinds of words; what is ignored has a name that begins with ``__``.
        soft: terminals of words that are names wherever the parser cannot go on with them.
    """

    start: int
    end: int
    goes: Mapping[int, Mapping[str, int]]
    reduces: Mapping[int, Mapping[str, Reduction]]
    terminals: Sequence[Terminal]
    soft: frozenset[str]

    @cached_property
    def keywords(self) -> dict[str, tuple[str, re.Pattern[str]]]:
        """The terminal of each word that may be a keyword, and what it has to look like."""
        found = ((t.keyword, t.name, re.compile(t.expression)) for t in self.terminals)
        return {word: (name, pattern) for word, name, pattern in found if word}

    @cached_property
    def words(self) -> re.Pattern[str]:
        """One expression for all other terminals; what is ignored has no name in it."""
        others = [t for t in self.terminals if not t.keyword]
        others.sort(key=lambda t: (-t.priority, -t.longest))
        return re.compile(
            "|".join(
                t.expression if t.name.startswith("__") else f"(?P<{t.name}>{t.expression})"
                for t in others
            )
        )

    def parse(self, text: str) -> Any:
        """What the grammar makes of a text; ``None`` where it does not parse so."""
        stack, values, stop = [self.start], list[Any](), 0
        goes, reduces, keywords = self.goes, self.reduces, self.keywords
        for match in self.words.finditer(text):
            start, kind = match.start(), match.lastgroup
            if start != stop:
                return None
            stop = match.end()
            if kind is None:
                continue
            word = Word(match.group())
            if kind == "NAME" and word in keywords:
                kind = self._read(word, text, start, stack)
            while reduction := reduces[stack[-1]].get(kind):
                self._reduce(reduction, stack, values)
            following = goes[stack[-1]].get(kind)
            if following is None:
                return None
            word.type, word.start_pos, word.end_pos = kind, start, stop
            stack.append(following)
            values.append(word)
        return self._ended(stack, values) if stop == len(text) else None

    def _ended(self, stack: list[int], values: list[Any]) -> Any:
        while stack[-1] != self.end:
            reduction = self.reduces[stack[-1]].get("$END")
            if reduction is None:
                return None
            self._reduce(reduction, stack, values)
        return values[-1]

    def _reduce(self, reduction: Reduction, stack: list[int], values: list[Any]) -> None:
        size, made, build = reduction
        if build is None:
            stack[-1] = self.goes[stack[-2]][made]
            return
        first = len(values) - size
        value = build(values[first:])
        del values[first:], stack[first + 1 :]
        values.append(value)
        stack.append(self.goes[stack[-1]][made])

    def _read(self, word: str, text: str, start: int, stack: list[int]) -> str:
        """The terminal of a word that may be a keyword."""
        name, pattern = self.keywords[word]
        there = name in self.goes[stack[-1]] or name in self.reduces[stack[-1]]
        fits = there and pattern.match(text, start)
        return name if fits and (name not in self.soft or self._shifts(name, stack)) else "NAME"

    def _shifts(self, terminal: str, stack: list[int]) -> bool:
        """Whether a terminal really fits, once everything before it is reduced."""
        stack = list(stack)
        while reduction := self.reduces[stack[-1]].get(terminal):
            del stack[len(stack) - reduction[0] :]
            stack.append(self.goes[stack[-1]][reduction[1]])
        return terminal in self.goes[stack[-1]]
