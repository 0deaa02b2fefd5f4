"""The definition of the standard library that a layer was written as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from archdsl.compiler.terms.spelling import call_text, value_text

if TYPE_CHECKING:
    from archdsl.compiler.terms.expect import Expect
    from archdsl.compiler.terms.term import Copies, Run, Term


class Argument(Protocol):
    """What a definition was given: the terms it is wherever the definition uses it."""

    name: str
    default: bool
    opaque: bool
    terms: dict[tuple[Expect, bool], Term]


@dataclass(frozen=True)
class Origin:
    """The definition of the standard library a layer is written as, and its arguments."""

    name: str
    arguments: tuple[Argument, ...]

    def text(self, run: Run, copies: Copies) -> str | None:
        """``gla(heads = 4)``; ``None`` where an argument has no closed spelling."""
        given = [argument for argument in self.arguments if not argument.default]
        texts = [self._argument(argument, run, copies) for argument in given if argument.terms]
        if None in texts or any(argument.opaque for argument in given):
            return None
        return call_text(self.name, (text for text in texts if text))

    def _argument(self, argument: Argument, run: Run, copies: Copies) -> str | None:
        (expect, _), term = next(iter(argument.terms.items()))
        if expect.layers or expect.equation:
            return None
        return f"{argument.name} = {value_text(run.value(term, copies), expect)}"
