"""What an equation of a cell is made of, and the same with other names, marks or terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

from archdsl.blocks.equations import MARK, OWNERS, Apply, Constant, Expression, Name, walk

ZERO, ONE = Constant(Fraction(0)), Constant(Fraction(1))


def calls(expression: Expression) -> Iterator[Apply]:
    """The function applications of an expression, innermost last."""
    return (part for part in walk(expression) if isinstance(part, Apply))


def renamed(expression: Expression, names: Mapping[str, str]) -> Expression:
    """The expression with other names for its names."""
    match expression:
        case Name(name):
            return Name(names.get(name, name))
        case Apply(function, arguments, options):
            return Apply(function, tuple(renamed(a, names) for a in arguments), options)
    return expression


def marked(expression: Expression, marks: Iterator[int]) -> Expression:
    """The expression with a number on all that owns weights, so that equal ones keep their own."""
    if not isinstance(expression, Apply):
        return expression
    mark = ((MARK, str(next(marks))),) if expression.function in OWNERS else ()
    arguments = tuple(marked(argument, marks) for argument in expression.arguments)
    return Apply(expression.function, arguments, expression.options + mark)


def combined(function: str, left: Expression, right: Expression) -> Expression:
    """``left + right`` or another arithmetic operation, without the zeros and ones."""
    if function in ("add", "sub") and right == ZERO:
        return left
    if function == "add" and left == ZERO:
        return right
    if function in ("mul", "div") and right == ONE:
        return left
    if function == "mul" and left == ONE:
        return right
    if function in ("mul", "div") and left == ZERO:
        return ZERO
    return Apply(function, (left, right))
