"""Which argument is which parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from archdsl.compiler.reading.context import Call
from archdsl.diagnostics import Diagnostic, Report, did_you_mean
from archdsl.grammar import ast


@dataclass(frozen=True)
class Bound:
    """An argument and the call that gave it."""

    argument: ast.Argument
    call: Call


def bind(
    title: str, parameters: Sequence[str], calls: Sequence[Call], report: Report
) -> Mapping[str, Bound]:
    """Match the arguments of all calls with parameters; a later call overrides an earlier one."""
    bound: dict[str, Bound] = {}
    for call in calls:
        given: dict[str, Bound] = {}
        for name, argument in _named(title, parameters, call, report):
            if name in given:
                report.add(_duplicate(title, name, argument, given[name].argument, call))
            given.setdefault(name, Bound(argument, call))
        bound |= given
    return bound


def _named(
    title: str, parameters: Sequence[str], call: Call, report: Report
) -> Iterator[tuple[str, ast.Argument]]:
    """Each argument of one call with its parameter; what has none is reported."""
    position = 0
    for argument in call.arguments:
        if argument.name is not None:
            if argument.name in parameters:
                yield argument.name, argument
            else:
                report.add(_unknown(title, parameters, argument, call))
        elif position < len(parameters):
            yield parameters[position], argument
            position += 1
        else:
            report.add(_too_many(title, parameters, argument, call))
            return


def _unknown(
    title: str, parameters: Sequence[str], argument: ast.Argument, call: Call
) -> Diagnostic:
    name = argument.name or ""
    return Diagnostic(
        "unknown-parameter",
        f"`{title}` has no parameter `{name}`",
        call.frame.spot(argument.name_span or argument.span),
        label=did_you_mean(name, parameters),
        help=_parameters(title, parameters),
    )


def _parameters(title: str, parameters: Sequence[str]) -> str:
    if not parameters:
        return f"`{title}` takes no arguments"
    return f"parameters of `{title}`: {', '.join(parameters)}"


def _duplicate(
    title: str, name: str, argument: ast.Argument, first: ast.Argument, call: Call
) -> Diagnostic:
    return Diagnostic(
        "duplicate-argument",
        f"`{name}` of `{title}` is given twice",
        call.frame.spot(argument.name_span or argument.span),
        related=((first.name_span or first.span, "first given here"),),
        help="remove one of them",
    )


def _too_many(
    title: str, parameters: Sequence[str], argument: ast.Argument, call: Call
) -> Diagnostic:
    return Diagnostic(
        "too-many-arguments",
        f"`{title}` takes {len(parameters)} arguments at most, and here are more"
        if parameters
        else f"`{title}` takes no arguments",
        call.frame.spot(argument.span),
        help=_parameters(title, parameters) if parameters else "",
    )
