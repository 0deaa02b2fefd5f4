"""Mistakes in what a file is made of: items, their keywords, and code that has no place here."""

from __future__ import annotations

from archdsl.diagnostics import nearest
from archdsl.grammar.foreign import CODE, OBJECTIVES, SYNONYMS, code_in_file
from archdsl.grammar.mistakes.characters import Rule
from archdsl.grammar.mistakes.signs import COMPARISONS
from archdsl.grammar.place import NO_WORD, Finding, Place, finding
from archdsl.grammar.words import KEYWORDS


def code(place: Place) -> Finding | None:
    """``for``, ``if``, ``lambda`` and their kin."""
    for word in (place.word, place.before):
        follows = word is place.word or not word.first or place.word.start - word.end <= 1
        if word.is_name and word.text in CODE and follows and not place.expects("EQUAL"):
            return Finding(code_in_file(word.text, place.span_of(word)))
    return None


def comparison(place: Place) -> Finding | None:
    """A comparison outside ``require``, inside parentheses, or a second one."""
    if place.text not in COMPARISONS or place.expects_value:
        return None
    if place.item.text != "require":
        return finding(
            place,
            "misplaced-comparison",
            "only a `require` compares",
            help="write a line of its own: `require params <= 4M`",
        )
    chained = place.context == "file"
    return finding(
        place,
        "misplaced-comparison",
        "a `require` compares once" if chained else "a comparison stands in no brackets",
        help=(
            "write one `require` for each bound"
            if chained
            else "write `require params <= 4M` without brackets around the comparison"
        ),
        instead=(("REQUIRE", "require"), ("NUMBER", "1"), ("COMPARISON", "<=")) if chained else (),
        resume=place.word.end if chained else None,
    )


def condition(place: Place) -> Finding | None:
    """``require params``, ``require params = 4M``, ``require params =< 4M``."""
    if place.item.text != "require" or not place.expects("COMPARISON") or place.opened:
        return None
    if place.text in ("=", "=>"):
        turned = place.after.text in ("<", ">") and place.touches(place.word, place.after)
        last = place.after if turned else place.word
        written = f"={place.after.text}" if turned else place.text
        meant = {"=<": "<=", "=>": ">="}.get(written, "<=` or `==")
        return finding(
            place,
            "bad-comparison",
            f"`{written}` does not compare",
            span=place.span_of(place.word, last),
            label=f"write `{meant}`",
            instead=(("COMPARISON", "<="),),
            resume=last.end,
        )
    if not place.ended and not place.words.begins_item(place.index):
        return None
    return finding(
        place,
        "missing-comparison",
        "a `require` compares two values",
        help="write `require params <= 4M`",
        instead=(("COMPARISON", "<="), ("NUMBER", "1")),
        resume=place.here,
    )


def objective(place: Place) -> Finding | None:
    """``maximise x``, ``maximize = x``, and objectives outside ``search``."""
    known = ("maximize", "minimize")
    if place.before.text in known and place.text in ("=", ":"):
        return finding(
            place,
            "objective-sign",
            f"no `{place.text}` stands behind `{place.before.text}`",
            label="delete it",
            help=f"write `{place.before.text} recall.accuracy`",
            resume=place.word.end,
        )
    outside = place.context in ("file", "body") and place.after.is_name
    if outside and (place.text in known or place.text in OBJECTIVES):
        return finding(
            place,
            "misplaced-objective",
            f"`{place.text}` stands inside `search {{ … }}`",
        )
    name = place.before
    if place.context != "section" or not name.is_name or not place.word.is_name:
        return None
    meant = OBJECTIVES.get(name.text) or nearest(name.text, known)
    if meant is None or set(place.expected) != {"EQUAL"}:
        return None
    return finding(
        place,
        "misspelt-keyword",
        f"`{name.text}` is not a keyword",
        span=place.span_of(name),
        label=f"did you mean `{meant}`?",
    )


def keyword(place: Place) -> Finding | None:
    """``modle {``, ``var x = 1`` and other words for a keyword."""
    word = place.word
    if place.context != "file" or not word.is_name or word.text in KEYWORDS:
        return None
    if place.after.text == "=" and place.expects("LET"):
        return finding(
            place,
            "missing-let",
            "a value is named with `let`",
            label=f"write `let {word.text} = …`",
            instead=(("LET", "let"),),
            resume=word.start,
        )
    meant = SYNONYMS.get(word.text) or nearest(word.text, KEYWORDS)
    if meant is None or not place.expects(meant.upper()) or not _continues(place, meant):
        return None
    return finding(
        place,
        "misspelt-keyword",
        f"`{word.text}` is not a keyword",
        label=f"did you mean `{meant}`?",
        instead=((meant.upper(), meant),),
        resume=word.end,
    )


def _continues(place: Place, meant: str) -> bool:
    """Whether what follows is what follows that keyword."""
    if meant in ("model", "search", "train"):
        return place.after.text == "{"
    return place.after.kind == "string" if meant == "use" else place.after.is_name


def header(place: Place) -> Finding | None:
    """Keywords without what has to follow them: ``model = {``, ``let = 3``, ``use memory``."""
    before = place.before.text
    if place.context != "file" or before not in KEYWORDS:
        return None
    if before == "use" and place.expects("STRING"):
        return _path(place)
    if before in ("model", "search", "train") and set(place.expected) == {"LBRACE"}:
        return _section(place)
    if before in ("let", "def", "task") and set(place.expected) == {"NAME"}:
        return finding(
            place,
            "missing-name",
            f"a `{before}` needs a name",
            span=place.span_of(place.before),
            label=f"write `{before} name …`",
            instead=(("NAME", "name"),),
            resume=place.here,
        )
    return None


def _path(place: Place) -> Finding:
    named = place.word.is_name
    return finding(
        place,
        "unquoted-path",
        "the path behind `use` is a text in double quotes",
        label=f'write `"{place.text}.arch"`' if named else "",
        help='write `use "path.arch" as name`',
        instead=(("STRING", '"path"'),),
        resume=place.word.end if named and place.after.text != "/" else None,
    )


def _section(place: Place) -> Finding:
    name = place.before.text
    sign = place.text in ("=", ":")
    skip = sign or (place.word.is_name and place.after.text == "{")
    return finding(
        place,
        "missing-brace",
        f"`{name}` is followed by `{{ … }}`",
        span=place.span_of(place.before) if place.ended else None,
        label="delete this" if skip else f"write `{name} {{ … }}`",
        resume=place.word.end if skip else None,
    )


def alias(place: Place) -> Finding | None:
    """``use "x" name`` and ``use "x" = name``."""
    if (
        place.at(-2).text != "use"
        or not place.expects("AS")
        or place.words.begins_item(place.index)
    ):
        return None
    if place.word.is_name:
        return finding(
            place,
            "missing-as",
            "the name of a file stands behind `as`",
            label=f"write `as {place.text}`",
            instead=(("AS", "as"),),
            resume=place.word.start,
        )
    return None


def definition(place: Place) -> Finding | None:
    """``def f(x): …`` and ``def f(x) -> …``."""
    if set(place.expected) - {"LPAR"} != {"EQUAL", "LBRACE"}:
        return None
    sign = place.text in (":", "->", "=>")
    return finding(
        place,
        "missing-body",
        "a `def` is followed by `= component` or by `{ layers }`",
        label="write `=`" if sign else "",
        instead=(("EQUAL", "="),),
        resume=place.word.end if sign else place.here,
    )


def stray_layer(place: Place) -> Finding | None:
    """A component where only items stand."""
    if place.context != "file" or not place.word.is_name or not place.expects("LET", "DEF"):
        return None
    if place.text in KEYWORDS or place.at(0) is NO_WORD:
        return None
    return finding(
        place,
        "stray-word",
        f"`{place.text}` stands outside every item",
        label="is there a `}` too many before it?"
        if place.before.text == "}" and place.word.column
        else "",
        help=f"an item begins with {', '.join(KEYWORDS)}; layers stand inside `model {{ … }}`",
    )


RULES: tuple[Rule, ...] = (
    code,
    condition,
    comparison,
    objective,
    header,
    alias,
    definition,
    keyword,
)
"""The rules of this module."""

LATE_RULES: tuple[Rule, ...] = (stray_layer,)
"""The rule for a word that no other rule knows."""
