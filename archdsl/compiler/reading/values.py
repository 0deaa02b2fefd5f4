"""Literals, arithmetic and ranges: what they are in the place they stand in."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from archdsl.blocks.base import Ratio
from archdsl.blocks.equations import spellable
from archdsl.compiler.reading.context import At
from archdsl.compiler.terms.expect import NUMBER, Expect, Number, spelt, whole
from archdsl.compiler.terms.spelling import count_text
from archdsl.compiler.terms.term import Progression
from archdsl.diagnostics import ArchError, Diagnostic, Span
from archdsl.grammar import ast

LARGEST_PART = 10_000
"""How large a part of a ratio may be: as many as a stack has layers at most."""

MOST_POINTS = 10**9
"""How many points a range may have."""


def wrong_type(at: At, span: Span, found: str, label: str = "", help: str = "") -> Diagnostic:
    """Something stands where something else is expected."""
    related = ((at.via, f"it becomes {at.what} here"),) if at.via and at.via != span else ()
    return Diagnostic(
        "wrong-type",
        f"{at.what} takes {at.expect}, and this is {found}",
        at.frame.spot(span),
        label=label,
        help=help,
        related=related,
    )


def typed(at: At, span: Span) -> Callable[[Number], Any]:
    """A function that makes a number what the place takes.

    It raises :class:`ArchError` for a number that does not fit.
    """
    expect, what, spot = at.expect, at.what, at.frame.spot(span)
    via = ((at.via, f"it becomes {at.what} here"),) if at.via and at.via != span else ()
    passing = at.expect == NUMBER  # a part of a calculation, which is never written down

    def convert(value: Number) -> Any:
        if not (passing or spellable(Fraction(value))):
            raise ArchError(unspellable(what, spot, via))
        fitting = fit(value, expect)
        if fitting is None:
            raise ArchError(_unfit(value, expect, what, spot, via))
        return fitting

    return convert


def unspellable(what: str, span: Span, related: tuple[tuple[Span, str], ...] = ()) -> Diagnostic:
    """A number that no closed file could say."""
    message = f"{what} would be a number of more digits than can be written down"
    return Diagnostic("number-too-large", message, span, related=related)


def fit(value: Number, expect: Expect) -> Number | None:
    """The number as the place stores it; ``None`` where it does not fit."""
    if expect.integer is not None and value.denominator == 1 and value in expect.integer:
        return value.numerator
    if expect.real is not None and value in expect.real:
        return Fraction(value)
    return None


def _unfit(
    value: Number, expect: Expect, what: str, span: Span, related: tuple[tuple[Span, str], ...]
) -> Diagnostic:
    bounded = fit(value, expect.readable()) is not None
    takes = expect.exactly() if bounded else str(expect)
    message = f"{what} takes {takes}, and this is {spelt(value)}"
    fractional = expect.real is None and value.denominator != 1
    if expect.number and not fractional:
        return Diagnostic("out-of-range", message, span, related=related)
    return Diagnostic("wrong-type", message, span, related=related)


def literal(expression: ast.Expression, at: At) -> Any:
    """The value of a string, boolean, ratio or ``none``.

    Raises:
        ArchError: it does not fit the place.
    """
    expect = at.expect
    match expression:
        case ast.Boolean(value=value) if expect.boolean:
            return value
        case ast.String(value=value) if expect.string:
            return value
        case ast.Ratio(parts=parts) if expect.ratio:
            return _ratio(parts, at, expression.span)
        case ast.Nothing() if expect.nothing:
            return None
        case ast.Nothing() if "none" in expect.symbols:
            return "none"
    raise ArchError(
        wrong_type(at, expression.span, described(expression), help=hint(expression, expect))
    )


def _ratio(parts: tuple[int, ...], at: At, span: Span) -> Ratio:
    if max(parts) > LARGEST_PART:
        message = f"a part of a ratio is at most {LARGEST_PART:,}, and here is {max(parts):,}"
        raise ArchError(Diagnostic("out-of-range", message, at.frame.spot(span)))
    return Ratio(parts=parts)


def hint(expression: ast.Expression, expect: Expect) -> str:
    """What was probably meant by a value of another kind; else nothing."""
    if isinstance(expression, ast.String):
        if expression.value in expect.symbols or expect.word:
            return f"write `{expression.value}` without quotes"
        if expect.number and expression.value.isdecimal():
            return f"write {expression.value} without quotes"
    if isinstance(expression, ast.Array) and expect.items is None and len(expression.items) > 1:
        alternatives = " | ".join(item.span.text for item in expression.items)
        return f"a choice is written `{alternatives}`" if len(alternatives) < 60 else ""
    return ""


def wrong_length(at: At, expression: ast.Array) -> Diagnostic:
    """A list with too few or too many items."""
    items = at.expect.items
    assert items is not None
    count = len(expression.items)
    bound = items.least if count < items.least else items.most
    how = (
        "exactly" if items.least == items.most else "at least" if count < items.least else "at most"
    )
    return Diagnostic(
        "wrong-length",
        f"{at.what} takes {how} {bound} item{'s' if bound != 1 else ''}, and this list has {count}",
        at.frame.spot(expression.span),
    )


def described(expression: ast.Expression) -> str:
    """What an expression is, in words, for messages."""
    match expression:
        case ast.Number(text=text):
            return text
        case ast.Boolean(value=value):
            return f"`{str(value).lower()}`"
        case ast.String():
            return "a string"
        case ast.Ratio(parts=parts):
            return f"the ratio `{':'.join(map(str, parts))}`"
        case ast.Nothing():
            return "`none`"
        case ast.Array():
            return "a list"
        case ast.Range():
            return "a range of numbers"
        case ast.Compare():
            return "a comparison"
    return "a calculation"


def progression(
    low: Number, high: Number, step: Number | None, log: bool, span: Span
) -> Progression:
    """The points of a range.

    Raises:
        ArchError: it is empty, endless, too long, or of reals without a step.
    """
    problem = _range_problem(low, high, step, log, span)
    if problem is not None:
        raise ArchError(problem)
    if log:
        ratio = Fraction(high) / Fraction(low)
        return Progression(low, None, (ratio.numerator // ratio.denominator).bit_length())
    step = 1 if step is None else step
    count = int((Fraction(high) - Fraction(low)) / Fraction(step)) + 1
    if count > MOST_POINTS:
        message = (
            f"this range has {count_text(count)} points, and at most {MOST_POINTS:,} are possible"
        )
        help = "use a larger `by`, or `log`"
        raise ArchError(Diagnostic("range-too-long", message, span, help=help))
    return Progression(whole(low), whole(step), count)


def _range_problem(
    low: Number, high: Number, step: Number | None, log: bool, span: Span
) -> Diagnostic | None:
    ends = f"{spelt(low)} .. {spelt(high)}"
    if low > high:
        help = f"write `{spelt(high)} .. {spelt(low)}`"
        return Diagnostic("empty-range", f"the range `{ends}` is empty", span, help=help)
    if step is not None and step <= 0:
        message = f"a range goes up by its step, and this step is {spelt(step)}"
        return Diagnostic("bad-step", message, span)
    if log and low <= 0:
        message = f"a `log` range doubles, so it cannot start at {spelt(low)}"
        return Diagnostic("bad-step", message, span)
    if not log and step is None and (low.denominator != 1 or high.denominator != 1):
        message = f"the range `{ends}` of numbers that are not whole needs a step"
        help = f"write `{ends} by 0.1` or `{ends} log`"
        return Diagnostic("range-without-step", message, span, help=help)
    return None
