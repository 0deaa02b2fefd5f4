"""What to say where no rule knows better: what was found, and what could have stood there."""

from __future__ import annotations

from archdsl.grammar.place import Context, Finding, Place, finding

EXPECTED: dict[Context, str] = {
    "file": "an item begins with `use`, `let`, `def`, `model`, `require`, `task`, `train` or `search`",
    "section": "a setting is written `name = value`, an objective `maximize …` or `minimize …`",
    "body": "a layer begins with a name or a label: `name(…)`, `label: name(…)`",
    "arguments": "arguments are written `name = value` and separated by commas",
    "parameters": "parameters are written `name` or `name = default` and separated by commas",
    "list": "a list is written `[a, b]`",
    "group": "parentheses hold one value or a choice",
}
"""What each place may hold."""

KINDS = {"number": "the number ", "ratio": "the ratio ", "string": "the text "}


def unexpected(place: Place) -> Finding:
    """The word that does not fit, and what could."""
    return finding(
        place,
        "unexpected-word",
        f"{_found(place)} cannot stand here",
        label=_expected(place),
        help=EXPECTED[place.context],
    )


def _found(place: Place) -> str:
    if not place.ended:
        return f"{KINDS.get(place.word.kind, '')}`{place.text}`"
    return "the end of the text" if place.end >= len(place.words.list) else "the next item"


def _expected(place: Place) -> str:
    """What is expected, where that can be said in a few words."""
    if place.expects_value:
        return "a value is missing here"
    if place.expected == {"LBRACE"}:
        return "a `{` is missing here"
    if place.expects("RPAR"):
        return (
            "a `,` or a `)` is missing here" if place.expects("COMMA") else "a `)` is missing here"
        )
    if place.expects("RSQB"):
        return "a `,` or a `]` is missing here"
    return "a name is missing here" if place.expects("NAME") and not place.expects("RBRACE") else ""
