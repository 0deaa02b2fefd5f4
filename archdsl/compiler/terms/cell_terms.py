"""Terms of the equations of a cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from archdsl.blocks import equations
from archdsl.compiler.terms.term import Copies, Run, Term


@dataclass(eq=False)
class Applied(Term):
    """A function or an operator of terms, in an equation."""

    function: str
    arguments: tuple[Term, ...]
    options: tuple[tuple[str, Term], ...] = ()

    def children(self) -> Iterator[Term]:
        """What it is made of."""
        yield from self.arguments
        yield from (term for _, term in self.options)

    def evaluate(self, run: Run, copies: Copies) -> equations.Expression:
        """Its value in one run."""
        arguments = tuple(run.value(term, copies) for term in self.arguments)
        options = tuple((name, run.value(term, copies)) for name, term in self.options)
        return equations.Apply(self.function, arguments, options)


@dataclass(eq=False)
class Wrapped(Term):
    """A number in an equation."""

    number: Term

    def children(self) -> Iterator[Term]:
        """What it is made of."""
        return iter((self.number,))

    def evaluate(self, run: Run, copies: Copies) -> equations.Expression:
        """Its value in one run."""
        return equations.Constant(Fraction(run.value(self.number, copies)))


@dataclass(eq=False)
class Assigned(Term):
    """``target = value``."""

    target: str
    value: Term

    def children(self) -> Iterator[Term]:
        """What it is made of."""
        return iter((self.value,))

    def evaluate(self, run: Run, copies: Copies) -> equations.Assignment:
        """Its value in one run."""
        return equations.Assignment(self.target, run.value(self.value, copies))
