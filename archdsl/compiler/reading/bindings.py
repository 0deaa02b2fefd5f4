"""Values given to the ``let`` items of a file from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from archdsl.compiler.reading.names import Scope
from archdsl.compiler.reading.sources import Bound
from archdsl.compiler.terms.expect import whole
from archdsl.diagnostics import ArchError, Diagnostic, Span, did_you_mean
from archdsl.grammar import ast


def bind_lets(scope: Scope, bindings: Mapping[str, Bound]) -> None:
    """Put values in the place of what the file says.

    Raises:
        ArchError: the file has no such ``let``.
    """
    unknown = [name for name in bindings if not isinstance(scope.definitions.get(name), ast.Let)]
    if unknown:
        raise ArchError([_unknown(name, scope) for name in unknown])
    for name, value in bindings.items():
        item = scope.definitions[name]
        assert isinstance(item, ast.Let)
        scope.definitions[name] = replace(item, value=expression(value, item.value.span))


def _unknown(name: str, scope: Scope) -> Diagnostic:
    lets = [n for n, item in scope.definitions.items() if isinstance(item, ast.Let)]
    return Diagnostic(
        "unknown-binding",
        f"`{scope.source.name}` has no `let {name}` to give a value to",
        label=did_you_mean(name, lets),
        help=f"values of this file: {', '.join(lets)}" if lets else "",
    )


def expression(value: Bound, span: Span) -> ast.Expression:
    """A Python value as a literal of the language."""
    if value is None:
        return ast.Nothing(span=span)
    if isinstance(value, bool):
        return ast.Boolean(value=value, span=span)
    if isinstance(value, str):
        return ast.String(value=value, span=span)
    exact = whole(Fraction(str(value)))
    return ast.Number(value=exact, text=str(exact), span=span)
