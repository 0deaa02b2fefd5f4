"""Numbers, arithmetic, ranges and lists, as terms of the place they stand in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from archdsl.compiler.reading import values
from archdsl.compiler.reading.context import At
from archdsl.compiler.terms.calculation import Operator, calculate
from archdsl.compiler.terms.expect import NUMBER, Number
from archdsl.compiler.terms.term import Arithmetic, Broken, Constant, Listing, Points, Term, Typed
from archdsl.diagnostics import ArchError, Diagnostic, Span
from archdsl.grammar import ast

if TYPE_CHECKING:
    from archdsl.compiler.reading.elaborate import Elaborator


def arithmetic(elaborator: Elaborator, expression: ast.Binary | ast.Unary, at: At) -> Term:
    """``a + b`` and its kin, made what the place takes."""
    if not at.expect.number:
        raise ArchError(values.wrong_type(at, expression.span, "a calculation"))
    what = at.what if at.fixed else "arithmetic"
    inner = replace(at.plain(NUMBER, what), inside=True)
    span = at.frame.spot(expression.span)
    if isinstance(expression, ast.Unary):
        left: Term = Constant(span, 0)
        right = elaborator.term(expression.operand, inner)
    else:
        left = elaborator.term(expression.left, inner)
        right = elaborator.term(expression.right, inner)
    return _typed(calculation(expression.operator, left, right, span), expression, at)


def calculation(operator: Operator, left: Term, right: Term, span: Span) -> Term:
    """Arithmetic on two numbers, done at once where both are known."""
    if left.broken or right.broken:
        return Broken(span)
    if isinstance(left, Constant) and isinstance(right, Constant):
        return Constant(span, calculate(operator, left.value, right.value, span, right.span))
    return Arithmetic(span, operator, left, right)


def _typed(number: Term, expression: ast.Expression, at: At) -> Term:
    convert = values.typed(at, expression.span)
    if number.broken:
        return number
    if isinstance(number, Constant):
        return Constant(number.span, convert(number.value))
    return Typed(number.span, number, convert)


def points(elaborator: Elaborator, expression: ast.Range, at: At) -> Term:
    """``low .. high``, as one choice of which the points are never written out."""
    span = at.frame.spot(expression.span)
    if at.fixed:
        message = f"{at.what} cannot be a range"
        raise ArchError(Diagnostic("choice-not-allowed", message, span))
    if not at.expect.number:
        raise ArchError(values.wrong_type(at, expression.span, "a range of numbers"))
    bounds = _bounds(elaborator, expression, at)
    if bounds is None:
        return Broken(span)
    found = values.progression(*bounds, expression.log, span)
    convert = values.typed(at, expression.span)
    convert(found[found.count - 1])
    first = convert(found[0])
    if found.count == 1:
        return Constant(span, first)
    convert(found[1])
    site = elaborator.site(expression, at, found.count, lambda index: str(found[index]))
    return Points(span, site, found, convert)


def _bounds(
    elaborator: Elaborator, expression: ast.Range, at: At
) -> tuple[Number, Number, Number | None] | None:
    inner = replace(at.plain(NUMBER, "a bound of a range"), fixed=True)
    low, high = elaborator.term(expression.low, inner), elaborator.term(expression.high, inner)
    step = elaborator.term(expression.step, inner) if expression.step is not None else None
    for term in (low, high, step):
        if term is not None and not isinstance(term, Constant | Broken):
            message = "a bound of a range cannot depend on a choice"
            elaborator.report.add(Diagnostic("choice-not-allowed", message, term.span))
    if not (isinstance(low, Constant) and isinstance(high, Constant)):
        return None
    if step is not None and not isinstance(step, Constant):
        return None
    return low.value, high.value, step.value if step else None


def listing(elaborator: Elaborator, expression: ast.Array, at: At) -> Term:
    """``[a, b]``."""
    items, span = at.expect.items, at.frame.spot(expression.span)
    if items is None:
        help = values.hint(expression, at.expect)
        raise ArchError(values.wrong_type(at, expression.span, "a list", help=help))
    count = len(expression.items)
    if count < items.least or (items.most is not None and count > items.most):
        raise ArchError(values.wrong_length(at, expression))
    inner = replace(at.plain(items.item, f"an item of {at.what}"), inside=True)
    terms = tuple(elaborator.term(item, inner) for item in expression.items)
    known = [term for term in terms if isinstance(term, Constant)]
    if len(known) == len(terms):
        return Constant(span, tuple(term.value for term in known))
    return Listing(span, terms)
