"""Answers that depend on choices, kept by the choices they asked for: a tree of questions.

What is asked next is decided by what was decided before, so a question has one place in a tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archdsl.compiler.terms.term import Copies, Site

MOST = 1024
"""Answers that one tree keeps; then it forgets all of them."""

Question = tuple["Site", "Copies"]
"""A choice, and the copy it is drawn for."""


@dataclass
class Answer:
    """What came of the decisions that lead to it."""

    value: Any


@dataclass
class _Branch:
    """A question, and what comes behind each alternative that was taken."""

    question: Question
    behind: dict[int, _Branch | Answer] = field(default_factory=dict)


class Answers:
    """The answers to one thing that was asked for in several walks."""

    def __init__(self) -> None:
        self._root: dict[int, _Branch | Answer] = {}
        self._count = 0

    def find(self, decide: Callable[[Site, Copies], int]) -> Answer | None:
        """The answer where these decisions lead to, which are asked for on the way."""
        here = self._root.get(0)
        while isinstance(here, _Branch):
            here = here.behind.get(decide(*here.question))
        return here

    def keep(self, decided: Iterable[tuple[Question, int]], value: Any) -> None:
        """Keep an answer with the decisions it asked for, in their order, each once."""
        self._count += 1
        if self._count > MOST:
            self._root, self._count = {}, 1
        behind, index = self._root, 0
        for question, next_index in decided:
            branch = behind.setdefault(index, _Branch(question))
            assert isinstance(branch, _Branch), "the same decisions asked for more"
            behind, index = branch.behind, next_index
        behind[index] = Answer(value)
