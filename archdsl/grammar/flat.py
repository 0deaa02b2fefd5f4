"""Any part of the syntax tree on one line, with the parentheses it needs."""

from __future__ import annotations

from archdsl.grammar import ast

CHOICE, RANGE, SUM, PRODUCT, SIGNED, ATOM = range(6)
"""How tightly an expression binds, from the loosest."""


def format_expression(expression: ast.Expression) -> str:
    """An expression on one line, as it would be typed."""
    match expression:
        case ast.Number(text=text):
            return text
        case ast.Ratio(parts=parts):
            return ":".join(map(str, parts))
        case ast.String(value=value):
            return f'"{value}"'
        case ast.Boolean(value=value):
            return "true" if value else "false"
        case ast.Nothing():
            return "none"
        case ast.Array(items=items):
            return f"[{', '.join([format_expression(item) for item in items])}]"
        case ast.Group(value=value):
            return f"({format_expression(value)})"
        case ast.Call(function=function, arguments=arguments):
            return f"({format_expression(function)}){format_arguments(arguments)}"
        case ast.Component():
            return _component(expression)
    return _operators(expression)


def format_arguments(arguments: tuple[ast.Argument, ...]) -> str:
    """Arguments in their parentheses."""
    return f"({', '.join([format_argument(argument) for argument in arguments])})"


def format_argument(argument: ast.Argument) -> str:
    """One argument."""
    value = format_expression(argument.value)
    return value if argument.name is None else f"{argument.name} = {value}"


def format_parameters(parameters: tuple[ast.Parameter, ...] | None) -> str:
    """The parameters of a ``def`` in their parentheses."""
    if parameters is None:
        return ""
    return f"({', '.join([format_parameter(parameter) for parameter in parameters])})"


def format_parameter(parameter: ast.Parameter) -> str:
    """One parameter."""
    if parameter.default is None:
        return parameter.name
    return f"{parameter.name} = {format_expression(parameter.default)}"


def format_body(body: ast.Body) -> str:
    """Layers or equations in their braces; two blanks keep neighbours apart."""
    items = [format_body_item(item) for item in body.items]
    return f"{{ {'  '.join(items)} }}" if items else "{}"


def format_body_item(item: ast.Layer | ast.Equation) -> str:
    """One layer or equation."""
    value = format_expression(item.value)
    if isinstance(item, ast.Equation):
        return f"{item.target} = {value}"
    return value if item.label is None else f"{item.label}: {value}"


def within(expression: ast.Expression, level: int) -> str:
    """An expression where only what binds at least so tightly can stand bare."""
    text = format_expression(expression)
    return text if binding(expression) >= level else f"({text})"


def binding(expression: ast.Expression) -> int:
    """How tightly an expression binds."""
    match expression:
        case ast.Choice() | ast.Compare():
            return CHOICE
        case ast.Range():
            return RANGE
        case ast.Binary(operator=operator):
            return SUM if operator in "+-" else PRODUCT
        case ast.Unary():
            return SIGNED
    return ATOM


def _component(component: ast.Component) -> str:
    text = component.text
    if component.arguments is not None:
        text += format_arguments(component.arguments)
    return text if component.body is None else f"{text} {format_body(component.body)}"


def _operators(expression: ast.Expression) -> str:
    match expression:
        case ast.Choice(alternatives=alternatives):
            return " | ".join([within(alternative, RANGE) for alternative in alternatives])
        case ast.Range():
            return _range(expression)
        case ast.Unary(operator=operator, operand=operand):
            return f"{operator}{within(operand, SIGNED)}"
        case ast.Binary(operator=operator, left=left, right=right):
            if operator == "/" and isinstance(left, ast.Number) and isinstance(right, ast.Number):
                return f"{left.text}/{right.text}"
            level = binding(expression)
            return f"{within(left, level)} {operator} {within(right, level + 1)}"
        case ast.Compare(operator=operator, left=left, right=right):
            return f"{format_expression(left)} {operator} {format_expression(right)}"
    raise TypeError(f"not an expression: {expression!r}")


def _range(expression: ast.Range) -> str:
    text = f"{within(expression.low, SUM)} .. {within(expression.high, SUM)}"
    if expression.step is not None:
        return f"{text} by {within(expression.step, SUM)}"
    return f"{text} log" if expression.log else text
