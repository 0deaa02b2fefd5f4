"""Mistakes between words: a sign too many, too few, or the wrong one."""

from __future__ import annotations

from archdsl.grammar.mistakes.characters import Rule
from archdsl.grammar.place import NO_WORD, Finding, Place, finding
from archdsl.grammar.words import KEYWORDS

OPERATORS = ("+", "-", "*", "/", "..", "<=", ">=", "==", "!=", "<", ">", "by")
COMPARISONS = ("<=", ">=", "==", "!=", "<", ">")
NUMBERS = ("number", "ratio")


def foreign_equals(place: Place) -> Finding | None:
    """``==``, ``:=`` and ``=>`` where a name is given a value."""
    read = place.text in ("==", "=>") and place.offset > place.word.start
    doubled = place.text == "=" and place.before.text == "="
    wrong = place.text in ("==", ":=", "=>") and place.expects("EQUAL")
    if not (read or doubled or wrong):
        return None
    written = "= =" if doubled else place.text
    return finding(
        place,
        "double-equals",
        f"a value is given with one `=`, not with `{written}`",
        label="write `=`" if not doubled else "delete this one",
        instead=(("EQUAL", "="),) if wrong else (),
        resume=place.word.end,
    )


def augmented_equals(place: Place) -> Finding | None:
    """``x += 1``."""
    sign, equals = place.word, place.after
    if sign.text not in ("+", "-", "*", "/", "|") or not place.expects("EQUAL"):
        return None
    if equals.text != "=" or not place.touches(sign, equals):
        return None
    return finding(
        place,
        "double-equals",
        f"a value is given with one `=`, not with `{sign.text}=`",
        span=place.span_of(sign, equals),
        help="a name has one value; give the new one another name",
        instead=(("EQUAL", "="),),
        resume=equals.end,
    )


def ratio(place: Place) -> Finding | None:
    """``3 : 1``, ``n:1``, ``1.5:1``."""
    left, right = place.before, place.after
    if place.text != ":" or not (left.kind in NUMBERS or right.kind in NUMBERS):
        return None
    if place.context in ("body", "section") or place.at(-2).text not in ("=", "|", "(", ",", "["):
        return None
    whole = left.text.replace(":", "").isdecimal() and right.text.replace(":", "").isdecimal()
    if whole:
        return finding(
            place,
            "spaced-ratio",
            "a ratio is written without blanks",
            span=place.span_of(left, right),
            label=f"write `{left.text}:{right.text}`",
            resume=right.end,
        )
    if place.expects("EQUAL") and left.is_name and place.at(-2).text != "=":
        return None
    return finding(
        place,
        "bad-ratio",
        "a ratio is made of whole numbers",
        span=place.span_of(left, right) if right is not NO_WORD else None,
        help="write it out, and alternatives as `1:1 | 3:1`",
        resume=right.end if right is not NO_WORD else None,
    )


def colon_for_equals(place: Place) -> Finding | None:
    """``heads: 4`` in an argument, a setting or a ``let``."""
    if place.text != ":" or not place.expects("EQUAL"):
        return None
    return finding(
        place,
        "colon-for-equals",
        f"`{place.before.text}` is given its value with `=`",
        label="write `=`",
        help="a `:` stands only behind the label of a layer and in a ratio such as `3:1`",
        instead=(("EQUAL", "="),),
        resume=place.word.end,
    )


def quoted_label(place: Place) -> Finding | None:
    """``"linear": gla`` in a body, ``"heads" = 4`` in arguments."""
    if place.text not in (":", "=") and place.after.text not in (":", "="):
        return None
    word = place.before if place.text in (":", "=") else place.word
    if word.kind != "string":
        return None
    return finding(
        place,
        "quoted-name",
        f"{word.text} is a text, not a name",
        span=place.span_of(word),
        label=f"write `{word.text[1:-1]}`",
        instead=(("NAME", "name"),) if word is place.word else (),
        resume=word.end if word is place.word else None,
    )


def number_comma(place: Place) -> Finding | None:
    """``0,5`` and ``1,000`` where no list is."""
    left, right = place.before, place.after
    if place.text != "," or place.expects("COMMA"):
        return None
    if left.kind != "number" or right.kind != "number" or not place.touches(place.word, right):
        return None
    thousands = len(right.text) == 3 and left.text != "0"
    plain = f"{left.text}{right.text}" if thousands else f"{left.text}.{right.text}"
    return finding(
        place,
        "decimal-comma",
        "a number has no comma in it",
        span=place.span_of(left, right),
        label=f"write `{plain}`",
        resume=right.end,
    )


def stray_comma(place: Place) -> Finding | None:
    """A comma between layers or settings, or two in a row."""
    if place.text != "," or place.expects("COMMA") or place.before.text in ("=", "|", *OPERATORS):
        return None
    if place.context == "group":
        return finding(
            place,
            "list-in-parentheses",
            "parentheses hold one value",
            label="this comma begins a second one",
            help="write a list as `[a, b]` and alternatives as `a | b`",
        )
    between = {"body": "layers", "section": "settings", "file": "items"}.get(place.context)
    return finding(
        place,
        "stray-comma",
        f"no comma stands between {between}" if between else "there is nothing before this comma",
        label="delete it",
        help="write a list as `[a, b]` and alternatives as `a | b`" if between == "items" else "",
        resume=place.word.end,
    )


def missing_alternative(place: Place) -> Finding | None:
    """``a |``, ``| a`` and ``a | | b``."""
    if place.text == "|" and not place.expects("VBAR"):
        return finding(
            place,
            "missing-alternative",
            "an alternative is missing before this `|`",
            help="alternatives are written `a | b | c`; `none` can be one of them",
            resume=place.word.end,
        )
    if place.before.text != "|" or not place.expects("NAME"):
        return None
    return finding(
        place,
        "missing-alternative",
        "an alternative is missing behind this `|`",
        span=place.span_of(place.before),
        help="alternatives are written `a | b | c`; `none` can be one of them",
        instead=(("NAME", "name"),),
        resume=place.here,
    )


def missing_value(place: Place) -> Finding | None:
    """``let width =`` with nothing behind it."""
    if place.before.text != "=" or not place.expects_value:
        return None
    name = place.at(-2).text
    if place.text in ("{", "<", ">"):
        return _wrong_value(place)
    return finding(
        place,
        "missing-value",
        f"`{name} =` needs a value" if name.isidentifier() else "a value is missing",
        span=place.span_of(place.before),
        label="behind this",
        instead=(("NAME", "name"),),
        resume=place.here,
    )


def _wrong_value(place: Place) -> Finding:
    return finding(
        place,
        "missing-value",
        f"no value begins with `{place.text}`",
        help="a list is written `[a, b]`, and alternatives `a | b`",
    )


def missing_operand(place: Place) -> Finding | None:
    """``2 *`` with nothing behind it, ``* 2`` with nothing before it."""
    if not place.expects_value:
        return None
    if place.before.text in OPERATORS:
        return finding(
            place,
            "missing-operand",
            f"a value is missing behind `{place.before.text}`",
            span=place.span_of(place.before),
            instead=(("NUMBER", "1"),),
            resume=place.here,
        )
    if place.text in OPERATORS and place.text != "by":
        return finding(
            place,
            "missing-operand",
            f"a value is missing before `{place.text}`",
            instead=(("NUMBER", "1"),),
            resume=place.here,
        )
    return None


def missing_equals(place: Place) -> Finding | None:
    """``let width 128``, ``trials 200``."""
    if set(place.expected) != {"EQUAL"} or not place.before.is_name:
        return None
    name = place.before.text
    if place.text == "(" and place.at(-2).text == "let":
        return finding(
            place,
            "missing-equals",
            f"a `let` has no parameters; `{name}` has",
            span=place.span_of(place.at(-2)),
            label="write `def`",
        )
    if place.text == "(" and place.at(-2).text == "task":
        return finding(
            place,
            "missing-name",
            "a task needs a name",
            span=place.span_of(place.before),
            label=f"write `{name}_task = {name}(…)`",
            help="the name is what `maximize NAME.accuracy` refers to",
        )
    return finding(
        place,
        "missing-equals",
        f"a `=` is missing behind `{name}`",
        span=place.span_of(place.before),
        label=f"write `{name} = …`",
        instead=(("EQUAL", "="),),
        resume=place.here,
    )


def missing_comma(place: Place) -> Finding | None:
    """``gla(heads = 4 conv = 4)``."""
    kinds = ("name", "string", *NUMBERS)
    begins = place.word.kind in kinds or place.text in ("[", "(")
    if not begins or not place.expects("COMMA") or place.context == "file":
        return None
    what = "values" if place.context == "list" else place.context
    return finding(
        place,
        "missing-comma",
        f"a comma is missing between two {what}",
        span=place.span_of(place.before),
        label="a `,` belongs behind this",
        instead=(("COMMA", ","),),
        resume=place.here,
    )


def range_word(place: Place) -> Finding | None:
    """``1 .. 8 step 2`` and ``1 .. 2 .. 8``."""
    words = {"step": "by", "steps": "by", "every": "by", "stride": "by", "..": "by"}
    words |= {"logarithmic": "log", "log10": "log", "ln": "log", "log_scale": "log"}
    late = set(place.expected) == {"EQUAL"} and place.before.text in words
    word = place.before if late else place.word
    meant = words.get(word.text)
    if meant is None or ".." not in [place.at(-distance).text for distance in range(1, 6)]:
        return None
    return finding(
        place,
        "range-word",
        "a range ends with `by STEP` or with `log`",
        span=place.span_of(word),
        label=f"write `{meant}`",
        instead=() if late else (("STEP" if meant == "by" else "LOG", meant),),
        resume=None if late else word.end,
    )


def called_twice(place: Place) -> Finding | None:
    """``f(a)(b)`` and ``heads[0]``."""
    if place.text == "[" and (place.before.is_name or place.before.text in ")]"):
        if not place.touches(place.before, place.word):
            return None
        return finding(
            place,
            "no-indexing",
            "nothing is taken out of a list by its number",
            help="name the value with a `let` of its own",
        )
    if place.text != "(" or place.before.text != ")":
        return None
    return finding(
        place,
        "called-twice",
        "arguments are given once",
        label="a second pair of parentheses",
        help="put all the arguments into the first pair",
    )


def pipeline(place: Place) -> Finding | None:
    """``embed -> norm``."""
    if place.text not in ("->", "=>", ">") or place.context != "body":
        return None
    return finding(
        place,
        "pipeline-arrow",
        "layers follow one another without a sign",
        label="delete it",
        resume=place.word.end,
    )


def reserved_name(place: Place) -> Finding | None:
    """``none = 3``."""
    word = place.before if place.text in ("=", ":") else place.word
    if word.text not in ("true", "false", "none"):
        return None
    here = word is place.word
    if here and place.after.text not in ("=", ":"):
        return None
    return finding(
        place,
        "reserved-name",
        f"`{word.text}` is a value and cannot be a name",
        span=place.span_of(word),
        help="choose another name; `true`, `false` and `none` are the only reserved words",
        instead=(("NAME", "name"),) if here else (),
        resume=word.end if here else None,
    )


def not_a_layer(place: Place) -> Finding | None:
    """``linear: 3`` or a bare number in a body."""
    if place.context != "body" or place.expects_value or not place.expects("NAME"):
        return None
    if place.word.kind not in ("string", *NUMBERS) and place.text not in ("(", "["):
        return None
    behind_label = place.before.text in (":", "|")
    return finding(
        place,
        "not-a-layer",
        f"{place.text} is not a layer" if place.text not in "([" else "a layer begins with a name",
        help="a layer is a component such as `rms_norm` or `gla(heads = 4)`",
        instead=(("NAME", "name"),) if behind_label else (),
        resume=place.word.end if place.text not in "([" else None,
    )


def missing_operator(place: Place) -> Finding | None:
    """``let x = a b``: two values on a line and nothing between them."""
    apart = place.context in ("file", "section") and place.before.text not in ("}", *KEYWORDS)
    if not apart or place.word.first or place.word.kind not in ("name", "string", *NUMBERS):
        return None
    if place.expects("EQUAL") or place.text in KEYWORDS:
        return None
    return finding(
        place,
        "missing-operator",
        f"nothing joins `{place.text}` to what stands before it",
        help="write an operator or a `|` between them, or begin a new item",
        resume=place.word.end,
    )


RULES: tuple[Rule, ...] = (
    foreign_equals,
    augmented_equals,
    ratio,
    colon_for_equals,
    quoted_label,
    number_comma,
    pipeline,
    not_a_layer,
    missing_alternative,
    missing_operand,
    range_word,
    stray_comma,
    called_twice,
    reserved_name,
)
"""The rules that come before those for items and brackets."""

LATE_RULES: tuple[Rule, ...] = (missing_value, missing_equals, missing_comma, missing_operator)
"""The rules for a sign left out, which come last."""
