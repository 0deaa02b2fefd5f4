"""Exact arithmetic."""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

from archdsl.compiler.terms.expect import Number, whole
from archdsl.diagnostics import ArchError, Diagnostic, Span

LARGEST_BITS = 4096
"""How long a number may become, in bits."""

Operator = Literal["+", "-", "*", "/"]

_OPERATIONS: dict[Operator, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def calculate(sign: Operator, left: Number, right: Number, span: Span, divisor: Span) -> Number:
    """``left sign right``, an ``int`` where it is whole.

    Raises:
        ArchError: a division by zero, at ``divisor``, or a number beyond any use, at ``span``.
    """
    if sign == "/" and right == 0:
        raise ArchError(Diagnostic("division-by-zero", "this divides by zero", divisor))
    result = _OPERATIONS[sign](Fraction(left), Fraction(right))
    if max(result.numerator.bit_length(), result.denominator.bit_length()) > LARGEST_BITS:
        message = "this arithmetic gives a number too large to use"
        raise ArchError(Diagnostic("number-too-large", message, span))
    return whole(result)
