"""Brackets that do not meet."""

from __future__ import annotations

from collections.abc import Sequence

from archdsl.grammar.mistakes.characters import TERMINALS, Rule
from archdsl.grammar.place import Finding, Place, finding
from archdsl.grammar.words import CLOSED, CLOSING, Opening, close


def unmatched(place: Place) -> Finding | None:
    """A closing bracket that nothing opened."""
    if place.text not in CLOSED:
        return None
    if any(CLOSING[opening.bracket] == place.text for opening in place.opened):
        return None
    return finding(
        place,
        "unmatched-bracket",
        f"this `{place.text}` closes nothing",
        label="delete it, or open it earlier",
        resume=place.word.end,
    )


def wrong_partner(place: Place) -> Finding | None:
    """``[100, 400)``."""
    if place.text not in (")", "]") or not place.opened:
        return None
    innermost = place.opened[-1]
    meant = CLOSING[innermost.bracket]
    if meant not in (")", "]") or meant in (place.text, place.after.text):
        return None
    if any(CLOSING[opening.bracket] == place.text for opening in place.opened):
        return None
    return finding(
        place,
        "wrong-bracket",
        f"this `{innermost.bracket}` is closed by a `{place.text}`",
        label=f"write `{meant}`",
        related=((place.span_of(place.words.list[innermost.index]), "opened here"),),
        instead=((TERMINALS[meant], meant),),
        resume=place.word.end,
    )


def unclosed(place: Place) -> Finding | None:
    """A bracket that is still open where the text ends, or where something else is closed."""
    if not place.opened:
        return None
    blamed: Opening | None
    closing: Sequence[Opening]
    if place.ended:
        blamed, closing = _blamed(place), place.opened
    elif place.text in CLOSED:
        inner = [opening for opening in place.opened if CLOSING[opening.bracket] == place.text]
        closing = [opening for opening in place.opened if opening.index > inner[-1].index]
        blamed = closing[-1] if closing else None
    elif _begins_line_outside(place) or _begins_body(place):
        blamed = place.opened[-1]
        closing = [blamed]
    else:
        return None
    return _unclosed(place, blamed, closing) if blamed is not None else None


def _unclosed(place: Place, blamed: Opening, closing: Sequence[Opening]) -> Finding:
    bracket = CLOSING[blamed.bracket]
    related = () if place.ended else ((place.span, f"a `{bracket}` is missing before this"),)
    return finding(
        place,
        "unclosed-bracket",
        f"this `{blamed.bracket}` is never closed",
        span=place.span_of(place.words.list[blamed.index]),
        label=f"its `{bracket}` is missing",
        related=related,
        instead=tuple(
            (TERMINALS[CLOSING[opening.bracket]], CLOSING[opening.bracket])
            for opening in reversed(closing)
        ),
        resume=place.here,
    )


def _begins_line_outside(place: Place) -> bool:
    """Whether a line begins here that is not indented as the arguments it would belong to."""
    innermost = place.opened[-1]
    if innermost.bracket == "{" or not place.word.first or not place.expects("COMMA"):
        return False
    return place.word.column <= place.words.list[innermost.line_index].column


def _begins_body(place: Place) -> bool:
    """Whether a brace opens here though arguments are not closed yet."""
    return place.text == "{" and place.expects("RPAR") and place.opened[-1].bracket == "("


def _blamed(place: Place) -> Opening:
    """The bracket that most likely misses its partner: one closed by a less indented line."""
    return _badly_closed(place) or place.opened[-1]


def _badly_closed(place: Place) -> Opening | None:
    """The first bracket whose partner begins a line with less indentation than its own line."""
    opened: list[Opening] = []
    line_index = place.begin
    for index in range(place.begin, place.end):
        word = place.words.list[index]
        line_index = index if word.first else line_index
        if word.text in CLOSING:
            opened.append(Opening(index, word.text, line_index))
        elif word.text in CLOSED and opened:
            innermost = opened[-1]
            if word.first and word.column < place.words.list[innermost.line_index].column:
                return innermost
            close(opened, word.text)
    return None


RULES: tuple[Rule, ...] = (wrong_partner, unmatched, unclosed)
"""The rules of this module."""
