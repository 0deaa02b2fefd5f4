"""Mistakes inside a word: quotes, comments, signs, numbers and names of other languages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from archdsl.diagnostics import Span
from archdsl.grammar.place import Finding, Place, finding
from archdsl.grammar.words import KEYWORDS

Rule = Callable[[Place], Finding | None]

LITERALS = ("true", "false", "none")
SIGNS = {
    "×": "*",
    "·": "*",
    "÷": "/",
    "−": "-",
    "–": "-",
    "—": "-",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "…": "..",
    "‥": "..",
}
"""Signs that look right, and what to type for them."""

TERMINALS = {
    "*": "FACTOR",
    "/": "FACTOR",
    "+": "SIGN",
    "-": "SIGN",
    "<=": "COMPARISON",
    ">=": "COMPARISON",
    "!=": "COMPARISON",
    "<": "COMPARISON",
    ">": "COMPARISON",
    "..": "DOTS",
    "(": "LPAR",
    ")": "RPAR",
    "[": "LSQB",
    "]": "RSQB",
    "{": "LBRACE",
    "}": "RBRACE",
    ",": "COMMA",
    "=": "EQUAL",
    ":": "COLON",
    "|": "VBAR",
    ".": "DOT",
}
"""The grammar's name for each sign."""

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?(KiB|MiB|GiB|[KMBT])?")
_STEM = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)([^\W\d_]+)")
_SUFFIXES = {
    "k": "K",
    "m": "M",
    "mn": "M",
    "g": "B",
    "b": "B",
    "bn": "B",
    "t": "T",
    "kb": "KiB",
    "kib": "KiB",
    "mb": "MiB",
    "mib": "MiB",
    "gb": "GiB",
    "gib": "GiB",
}


def foreign_quotes(place: Place) -> Finding | None:
    """``'text'``, typographic quotes and backticks."""
    if place.word.kind != "quoted" and place.text not in ("'", "`"):
        return None
    inner = place.text[1:-1]
    return finding(
        place,
        "foreign-quotes",
        'a text is written in double quotes: `"…"`',
        help=f'write `"{inner}"`' if inner else "",
        instead=(("STRING", f'"{inner}"'),),
        resume=place.word.end,
    )


def unterminated_string(place: Place) -> Finding | None:
    """``"text`` without its end."""
    if place.word.kind != "open":
        return None
    return finding(
        place,
        "unterminated-string",
        "this text never ends",
        label='a `"` is missing before the end of the line',
        help=f'write `{place.text.split()[0].rstrip(",)]")}"`',
        instead=(("STRING", '""'),),
        resume=place.word.end,
    )


def foreign_comment(place: Place) -> Finding | None:
    """``// …`` and ``/* … */``."""
    if place.text not in ("//", "/*", "*/"):
        return None
    text, start = place.source.text, place.word.start
    close = text.find("*/", start) + 2 if place.text == "/*" else 1
    newline = text.find("\n", start)
    return finding(
        place,
        "foreign-comment",
        f"`{place.text}` is not part of the language",
        help="a comment begins with `#` and ends with its line; a division is one `/`",
        instead=_if_begun(place, ("NUMBER", "1")),
        resume=close if close > 1 else (newline if newline >= 0 else len(text)),
    )


def semicolon(place: Place) -> Finding | None:
    """``;`` at the end of a line."""
    if place.text != ";":
        return None
    return finding(
        place,
        "semicolon",
        "nothing ends with a `;`",
        help="delete it: an item ends where the next one begins",
        resume=place.word.end,
    )


def logic_operator(place: Place) -> Finding | None:
    """``and``, ``or``, ``not`` and their signs."""
    if place.text in ("and", "&&", "&"):
        return finding(
            place,
            "logic-operator",
            f"`{place.text}` is not an operator",
            help="write one `require` for each condition: all of them have to hold",
            instead=(("REQUIRE", "require"),),
            resume=place.word.end,
        )
    if place.text in ("or", "||", "xor"):
        return finding(
            place,
            "logic-operator",
            f"`{place.text}` is not an operator",
            help="alternatives are written `a | b`",
            instead=() if _begun(place) else (("VBAR", "|"),),
            resume=place.word.end,
        )
    if place.text == "!" or place.before.text == "not":
        word = place.word if place.text == "!" else place.before
        return finding(
            place,
            "logic-operator",
            f"`{word.text}` is not an operator",
            span=place.span_of(word),
            help="turn the comparison round: `<=` instead of `>`",
            resume=place.word.end if place.text == "!" else None,
        )
    return None


def foreign_operator(place: Place) -> Finding | None:
    """``%``, ``**`` and ``^``."""
    if place.text not in ("%", "**", "^"):
        return None
    power = place.text != "%"
    return finding(
        place,
        "foreign-operator",
        f"`{place.text}` is not an operator",
        label="the operators are + - * /",
        help="write a power as a product, `width * width`" if power else "",
        instead=() if _begun(place) else (("FACTOR", "*"),),
        resume=place.word.end,
    )


def capital_literal(place: Place) -> Finding | None:
    """``True``, ``False``, ``None`` and their shouted forms."""
    plain = place.text.lower()
    if plain not in LITERALS or plain == place.text:
        return None
    return finding(
        place,
        "capital-literal",
        f"`{place.text}` is written `{plain}`",
        label=f"write `{plain}`",
        instead=((plain.upper(), plain),),
        resume=place.word.end,
    )


def capital_keyword(place: Place) -> Finding | None:
    """``Model``, ``LET``."""
    plain = place.text.lower()
    if plain not in KEYWORDS or plain == place.text or not place.expects(plain.upper()):
        return None
    return finding(
        place,
        "misspelt-keyword",
        f"the keyword `{plain}` is written in lower case",
        label=f"write `{plain}`",
        instead=((plain.upper(), plain),),
        resume=place.word.end,
    )


def bad_name(place: Place) -> Finding | None:
    """Names with capitals or letters beyond a–z."""
    if not place.word.is_name or re.fullmatch("[a-z_][a-z0-9_]*", place.text):
        return None
    plain = snake_case(place.text)
    return finding(
        place,
        "bad-name",
        f"`{place.text}` is not a name",
        label=f"write `{plain}`" if plain else "",
        help="a name is made of the letters a to z in lower case, digits and `_`",
        instead=(("NAME", plain or "name"),),
        resume=place.word.end,
    )


def snake_case(text: str) -> str:
    """The nearest legal name (``RMSNorm`` becomes ``rms_norm``); empty where there is none."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    if len(ascii_text) < len(text):
        return ""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", ascii_text)
    return parts.lower() if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", parts) else ""


def hyphenated_name(place: Place) -> Finding | None:
    """``gated-deltanet`` where only a name can stand."""
    left, right = place.before, place.after
    if place.text != "-" or not (left.is_name and right.is_name):
        return None
    if not (place.touches(left, place.word) and place.touches(place.word, right)):
        return None
    return finding(
        place,
        "bad-name",
        f"`{left.text}-{right.text}` is not a name",
        span=place.span_of(left, right),
        label=f"write `{left.text}_{right.text}`",
        help="a name is made of the letters a to z in lower case, digits and `_`",
        resume=right.end,
    )


def number_name(place: Place) -> Finding | None:
    """``let 2d = …``."""
    if place.word.kind != "number" or place.expects_value or not place.expects("NAME"):
        return None
    if (
        place.context not in ("file", "parameters", "section")
        or not place.text.replace("_", "").isalnum()
    ):
        return None
    return finding(
        place,
        "bad-name",
        f"`{place.text}` is not a name",
        label="a name begins with a letter",
        instead=(("NAME", "name"),),
        resume=place.word.end,
    )


def unknown_suffix(place: Place) -> Finding | None:
    """``4m``, ``256kb``."""
    match = _STEM.fullmatch(place.text)
    if place.word.kind != "number" or not match or _NUMBER.fullmatch(place.text):
        return None
    stem, suffix = match.groups()
    meant = _SUFFIXES.get(suffix.lower())
    return finding(
        place,
        "unknown-suffix",
        f"`{suffix}` is not a suffix of numbers",
        span=Span(place.source, place.word.start + len(stem), place.word.end),
        label=f"write `{stem}{meant}`" if meant else "",
        help="the suffixes are K M B T (thousands, millions, …) and KiB MiB GiB (powers of 1,024)",
        instead=(("NUMBER", "1"),),
        resume=place.word.end,
    )


def bad_number(place: Place) -> Finding | None:
    """``.5``, ``1.``, ``1_000``, ``0x10``, ``1.2.3``."""
    word, after = place.word, place.after
    if place.text == "." and after.kind == "number" and place.touches(word, after):
        if place.before.text == "..":
            return range_dots(place)
        return _number(place, place.span_of(word, after), f"write `0.{after.text}`", after.end)
    if place.text == "." and place.before.kind == "number" and not place.expects("DOT"):
        whole = place.before
        span = place.span_of(whole, word)
        return _number(place, span, f"write `{whole.text}` or `{whole.text}.0`", word.end, True)
    if word.kind != "number" or _NUMBER.fullmatch(place.text):
        return None
    plain = place.text.replace("_", "")
    fits = bool(_NUMBER.fullmatch(plain))
    return _number(place, place.span, f"write `{plain}`" if fits else "", word.end, _begun(place))


def _number(place: Place, span: Span, label: str, resume: int, read: bool = False) -> Finding:
    return finding(
        place,
        "bad-number",
        f"`{span.text}` is not a number",
        span=span,
        label=label,
        help="a number looks like 12, 0.5, 1e-3, 4M or 256KiB",
        instead=() if read else (("NUMBER", "1"),),
        resume=resume,
    )


def range_dots(place: Place) -> Finding | None:
    """``1 ... 3``."""
    if place.text != "." or place.before.text != "..":
        return None
    return finding(
        place,
        "range-dots",
        "a range has two dots: `low .. high`",
        span=place.span_of(place.before, place.word),
        label="write `..`",
        resume=place.word.end,
    )


def odd_character(place: Place) -> Finding | None:
    """Characters that look like the right one, and those that mean nothing."""
    offset = place.offset
    char = place.source.text[offset : offset + 1]
    if not char or (char.isascii() and char not in "@$?~\\&^"):
        return None
    plain = SIGNS.get(char) or unicodedata.normalize("NFKC", char).strip()
    known = plain in TERMINALS and plain != char
    name = unicodedata.name(char, f"U+{ord(char):04X}").lower()
    shown = f"`{char}`" if char.isascii() else f"`{char}` ({name})" if char.isprintable() else name
    return finding(
        place,
        "odd-character",
        f"{shown} means nothing here",
        span=Span(place.source, offset, offset + 1),
        label=_advice(char, plain if known else ""),
        instead=((TERMINALS[plain], plain),) if known else (),
        resume=offset + 1,
    )


def _advice(char: str, plain: str) -> str:
    if char == "\\":
        return "delete it: a line may be broken anywhere"
    if char.isspace() or unicodedata.category(char) == "Cf":
        return "write a plain blank"
    return f"write `{plain}`" if plain else ""


def _begun(place: Place) -> bool:
    """Whether the parser had already read the first sign of this word."""
    return place.offset > place.word.start


def _if_begun(place: Place, token: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return (token,) if _begun(place) else ()


RULES: tuple[Rule, ...] = (
    unterminated_string,
    foreign_quotes,
    foreign_comment,
    semicolon,
    logic_operator,
    foreign_operator,
    capital_literal,
    capital_keyword,
    number_name,
    unknown_suffix,
    bad_number,
    range_dots,
    hyphenated_name,
    bad_name,
    odd_character,
)
"""The rules of this module, the more particular first."""
