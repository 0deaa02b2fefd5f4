"""Terms that are made of others by a function: what is asked for in a requirement or an objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from archdsl.compiler.terms.term import Copies, Run, Term


@dataclass(eq=False)
class Built(Term):
    """Something made of the values of terms."""

    parts: tuple[Term, ...]
    build: Callable[..., Any]

    def children(self) -> Iterator[Term]:
        """What it is made of."""
        return iter(self.parts)

    def evaluate(self, run: Run, copies: Copies) -> Any:
        """Its value in one run."""
        return self.build(*(run.value(part, copies) for part in self.parts))
