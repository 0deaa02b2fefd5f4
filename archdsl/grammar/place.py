"""Where a parser stumbled, in the terms in which mistakes are told apart."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from archdsl.diagnostics import Diagnostic, Source, Span
from archdsl.grammar.words import Opening, Surroundings, Word, Words

Context = Literal["file", "section", "body", "arguments", "parameters", "list", "group"]
"""What the innermost open bracket holds; ``file`` where none is open."""

NO_WORD = Word("end", "", 0, 0, first=True, column=0)
"""Stands for the word beyond either end."""

CONTEXTS: dict[str, Context] = {"{": "body", "[": "list", "(": "group"}


@dataclass(frozen=True)
class Finding:
    """A mistake and how to read on.

    Args:
        diagnostic: what to tell the user.
        instead: tokens (terminal, text) to feed the parser where the mistake stands.
        resume: the offset at which to read on after them; ``None`` to look for the next line that
            can begin something.
    """

    diagnostic: Diagnostic
    instead: tuple[tuple[str, str], ...] = ()
    resume: int | None = None


@dataclass(frozen=True)
class Place:
    """The word that a parser could not use, and what stands around it.

    Args:
        source: the whole text.
        words: its words.
        begin: the first word of the piece being parsed.
        index: the word in question; ``end`` where the piece ended too soon.
        end: the first word behind the piece.
        offset: where in the word the parser stood (behind its start where it had taken a part).
        expected: the terminals it would have taken.
    """

    source: Source
    words: Words
    begin: int
    index: int
    end: int
    offset: int
    expected: Set[str]

    def at(self, distance: int) -> Word:
        """The word so many behind (or before) this one; :data:`NO_WORD` outside the piece."""
        index = self.index + distance
        return self.words.list[index] if self.begin <= index < self.end else NO_WORD

    @cached_property
    def word(self) -> Word:
        """The word in question."""
        return self.at(0)

    @cached_property
    def before(self) -> Word:
        """The word before it."""
        return self.at(-1)

    @cached_property
    def after(self) -> Word:
        """The word behind it."""
        return self.at(1)

    @property
    def ended(self) -> bool:
        """Whether the piece ended too soon."""
        return self.index >= self.end

    @property
    def text(self) -> str:
        """The spelling of the word in question."""
        return self.word.text

    @property
    def behind(self) -> int:
        """The offset just behind the last word before this place."""
        return self.before.end if self.before is not NO_WORD else self.word.start

    @property
    def here(self) -> int:
        """The offset of the word in question, to read it again once a sign is put before it."""
        return self.behind if self.ended else self.word.start

    @property
    def span(self) -> Span:
        """The word in question, or the end of the last one where there is none."""
        if self.ended:
            return Span(self.source, self.behind, self.behind)
        return self.span_of(self.word)

    def span_of(self, first: Word, last: Word | None = None) -> Span:
        """The stretch from one word to another."""
        return Span(self.source, first.start, (last or first).end)

    def expects(self, *terminals: str) -> bool:
        """Whether the parser would have taken one of these."""
        return not self.expected.isdisjoint(terminals)

    @property
    def expects_value(self) -> bool:
        """Whether a value has to stand here."""
        return self.expects("NUMBER")

    def touches(self, left: Word, right: Word) -> bool:
        """Whether two words stand side by side without a blank."""
        return left.end == right.start and NO_WORD not in (left, right)

    @cached_property
    def _surroundings(self) -> Surroundings:
        return self.words.surroundings(self.begin, self.index)

    @property
    def opened(self) -> tuple[Opening, ...]:
        """The brackets open here, the innermost last."""
        return self._surroundings.opened

    @property
    def item(self) -> Word:
        """The keyword of the item this stands in."""
        index = self._surroundings.item
        return NO_WORD if index is None else self.words.list[index]

    @cached_property
    def context(self) -> Context:
        """What the innermost open bracket holds."""
        if not self.opened:
            return "file"
        innermost = self.opened[-1]
        owner = self.words.list[innermost.index - 1] if innermost.index > self.begin else NO_WORD
        context = CONTEXTS[innermost.bracket]
        if context == "body" and len(self.opened) == 1 and owner.text in ("search", "train"):
            return "section"
        if context == "group" and (owner.is_name or owner.text == ")"):
            is_definition = self.words.text_of(innermost.index - 2) == "def"
            return "parameters" if is_definition else "arguments"
        return context


def finding(
    place: Place,
    id: str,
    message: str,
    *,
    span: Span | None = None,
    label: str = "",
    help: str = "",
    instead: tuple[tuple[str, str], ...] = (),
    resume: int | None = None,
    related: tuple[tuple[Span, str], ...] = (),
) -> Finding:
    """A finding whose diagnostic points at the place unless told otherwise."""
    diagnostic = Diagnostic(
        id, message, span or place.span, label=label, help=help, related=related
    )
    return Finding(diagnostic, instead, resume)
