"""What is wrong with a name or a component, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from archdsl.blocks import registry
from archdsl.blocks.base import Layer
from archdsl.compiler.reading.context import At
from archdsl.compiler.reading.names import standard, standard_names
from archdsl.compiler.reading.values import described, wrong_type
from archdsl.compiler.terms.expect import article
from archdsl.diagnostics import Diagnostic, Span, did_you_mean
from archdsl.grammar import ast


def diagnostic(id: str, message: str, span: Span, at: At, **more: Any) -> Diagnostic:
    """A diagnostic at a place that may be in the standard library."""
    return Diagnostic(id, message, at.frame.spot(span), **more)


def missing_argument(expression: ast.Component, name: str, at: At) -> Diagnostic:
    """A required parameter nothing was given for."""
    title = expression.text
    return diagnostic(
        "missing-argument",
        f"`{title}` needs `{name}`",
        expression.name_span,
        at,
        help=f"write `{title}({name} = …)`",
    )


def unexpected_body(expression: ast.Component, at: At) -> Diagnostic:
    """Braces behind something that has no body."""
    span = expression.body.span if expression.body else expression.span
    message = f"`{at.frame.word or expression.text}` has no body"
    return diagnostic("unexpected-body", message, span, at, help="remove the braces")


def needs_body(component: type[Layer], name: str, expression: ast.Component, at: At) -> Diagnostic:
    """A container or a cell without braces."""
    inside = "h = tanh(linear(x, h))" if component.body == "equations" else "…"
    return diagnostic(
        "needs-body",
        f"`{name}` needs a body",
        expression.name_span,
        at,
        help=f"write `{name} {{ {inside} }}`",
    )


def not_callable(expression: ast.Expression, at: At) -> Diagnostic:
    """Arguments behind a value."""
    call = at.calls[-1]
    related = ((at.frame.spot(expression.span), "this"),) if at.via else ()
    message = f"{described(expression)} takes no arguments"
    return Diagnostic("not-callable", message, call.frame.spot(call.span), related=related)


def unknown_name(name: str, expression: ast.Component, at: At) -> Diagnostic:
    """A name that means nothing here: it may mean something elsewhere."""
    kinds = registry.kinds_of(name) or (["layer"] if standard(name) else [])
    if kinds:
        return wrong_type(at, expression.span, f"`{name}`, {listed_kinds(kinds)}")
    message = f"`{name}` is not defined"
    if not at.expect.layers and expression.arguments is None:
        message = f"{at.what} takes {at.expect}, and `{name}` is not defined"
    label = did_you_mean(name, in_scope(at))
    return diagnostic("unknown-name", message, expression.name_span, at, label=label)


def unknown_dotted(expression: ast.Component, at: At) -> Diagnostic:
    """``x.name`` where there is no such file, or no such name in it."""
    first, rest = expression.name[0], ".".join(expression.name[1:])
    used = at.frame.scope.used.get(first)
    if used is None:
        message = f"there is no `use` with the name `{first}`"
        label = did_you_mean(first, at.frame.scope.used)
    else:
        message, label = f"`{first}` defines no `{rest}`", did_you_mean(rest, used.definitions)
    return diagnostic("unknown-name", message, expression.name_span, at, label=label)


def in_scope(at: At) -> list[str]:
    """Every name that could stand in a place."""
    kinds = [base.kind for base in at.expect.components]
    registered = [name for kind in kinds for name in registry.names(kind)]
    library = list(standard_names()) if at.expect.components else []
    own = [*at.frame.parameters, *at.frame.scope.names(), *at.frame.locals]
    return [*own, *at.expect.symbols, *library, *registered]


def listed_kinds(kinds: Sequence[str]) -> str:
    """``a layer``, ``a bias or a retention``."""
    return " or ".join(map(article, kinds))
