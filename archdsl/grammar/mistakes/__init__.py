"""Common mistakes, each told apart by what stands around it and answered with what to type.

A rule looks at a :class:`~archdsl.grammar.place.Place` and answers with a
:class:`~archdsl.grammar.place.Finding` or with ``None``. The first rule that answers is right, so the
more particular ones come first. To add one, write it beside its kin and put it into their ``RULES``.
"""

from __future__ import annotations

from archdsl.grammar.mistakes import brackets, characters, fallback, items, signs
from archdsl.grammar.place import Finding, Place

RULES = (
    *characters.RULES,
    *items.RULES,
    *signs.RULES,
    *brackets.RULES,
    *signs.LATE_RULES,
    *items.LATE_RULES,
)
"""Every rule, the more particular first."""


def explain(place: Place) -> Finding:
    """The most particular thing to be said about a place."""
    for rule in RULES:
        answer = rule(place)
        if answer is not None:
            return answer
    return fallback.unexpected(place)
