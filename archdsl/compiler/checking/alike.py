"""Which terms say the same, wherever they stand: what is known of one is known of all."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from archdsl.compiler.terms.cell_terms import Applied, Assigned, Wrapped
from archdsl.compiler.terms.term import (
    Arithmetic,
    Choice,
    Constant,
    Listing,
    Make,
    Points,
    Term,
    Typed,
)

Sites = tuple[str, ...]

MOST_MET = 200
"""With how many choices a term is still compared; one that is met in two places counts twice."""


class Shapes:
    """Numbers terms by what they say. Two of one shape answer every question alike, choice for choice.

    A definition that is used in twenty places is twenty terms with choices of their own, and one shape.
    """

    def __init__(self) -> None:
        self._known: dict[Term, tuple[int, Sites] | None] = {}
        self._numbers: dict[Hashable, int] = {}

    def of(self, make: Make) -> tuple[Hashable, Sites] | None:
        """The shape of a component, and the paths of its choices in an order that its likes share.

        ``None`` for one with so many choices that comparing them costs more than asking.
        """
        found = self._shape(make)
        if found is None:
            return None
        number, met = found
        order = {path: index for index, path in enumerate(dict.fromkeys(met))}
        return (number, tuple(order[path] for path in met)), tuple(order)

    def _shape(self, term: Term) -> tuple[int, Sites] | None:
        """The number of a term with its choices left blank, and the choices in the order they are met."""
        if term not in self._known:
            self._known[term] = self._found(term)
        return self._known[term]

    def _found(self, term: Term) -> tuple[int, Sites] | None:
        met = [term.site.path] if isinstance(term, Choice | Points) else []
        numbers = []
        for child in term.children():
            below = self._shape(child)
            if below is None or len(met) + len(below[1]) > MOST_MET:
                return None
            numbers.append(below[0])
            met += below[1]
        key = (type(term), _said(term), tuple(numbers))
        return self._numbers.setdefault(key, len(self._numbers)), tuple(met)


def _said(term: Term) -> Hashable:
    """What a term says beside its children; of other kinds no two are alike."""
    match term:
        case Constant(value=value):
            return type(value), _hashable(value)
        case Choice():
            return term.site.each
        case Points(points=points):
            return points, term.site.each
        case Arithmetic(operator=operator):
            return operator
        case Make(model=model, arguments=arguments):
            return model, tuple(arguments)
        case Applied(function=function, options=options):
            return function, tuple(name for name, _ in options)
        case Assigned(target=target):
            return target
        case Listing() | Typed() | Wrapped():
            return None
    return id(term)


def _hashable(value: Any) -> Hashable:
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value  # type: ignore[no-any-return]
