"""Registered components: their arguments, and the bodies of containers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import BaseModel

from archdsl.blocks import registry
from archdsl.blocks.base import Component, Layer
from archdsl.compiler.reading import cells, unknown
from archdsl.compiler.reading.arguments import bind
from archdsl.compiler.reading.context import At, Call
from archdsl.compiler.terms.expect import LAYERS, fields
from archdsl.compiler.terms.term import Broken, Child, Constant, LayerTerm, Make, Term
from archdsl.diagnostics import ArchError, Span
from archdsl.grammar import ast

if TYPE_CHECKING:
    from archdsl.compiler.reading.elaborate import Elaborator

Calls = tuple[Call, ...]


def registered(elaborator: Elaborator, expression: ast.Component, at: At, calls: Calls) -> Term:
    """A name that no file defines: a component, a symbol, or a mistake."""
    name = expression.name[0]
    if at.expect.equation:
        return cells.function(elaborator, name, expression, at, calls)
    component = find(name, at)
    if component is not None:
        return _component(elaborator, component, expression, at, calls)
    if name in at.expect.symbols:
        if calls:
            message = f"`{name}` takes no arguments here"
            raise ArchError(unknown.diagnostic("not-callable", message, expression.span, at))
        return Constant(at.frame.spot(expression.span), name)
    raise ArchError(unknown.unknown_name(name, expression, at))


def find(name: str, at: At) -> type[Component] | None:
    """The component a name means in a place."""
    for base in at.expect.components:
        component = registry.find(base.kind, name)
        if component is not None and issubclass(component, base):
            return component
    return None


def _component(
    elaborator: Elaborator,
    component: type[Component],
    expression: ast.Component,
    at: At,
    calls: Calls,
) -> Term:
    """A component with its arguments, and with its body where layers stand."""
    made, complete = _made(elaborator, component, component.name, expression, at, calls)
    if issubclass(component, Layer):
        return _layer(elaborator, component, made, expression, at, calls, complete)
    if last_body(calls) is not None:
        raise ArchError(unknown.unexpected_body(expression, at))
    return made if complete else Broken(made.span)


def settle(
    elaborator: Elaborator,
    model: type[BaseModel],
    name: str,
    expression: ast.Component,
    at: At,
    calls: Calls,
) -> Term:
    """Something with arguments that is no component: a cost."""
    made, complete = _made(elaborator, model, name, expression, at, calls)
    return made if complete else Broken(made.span)


def _made(
    elaborator: Elaborator,
    model: type[BaseModel],
    name: str,
    expression: ast.Component,
    at: At,
    calls: Calls,
) -> tuple[Make, bool]:
    """The component, and whether nothing is wrong with its arguments."""
    expected = fields(model)
    arguments: dict[str, Term] = {}
    before = elaborator.report.told
    given = bind(name, list(expected), calls, elaborator.report)
    misnamed = elaborator.report.told > before
    for field, bound in given.items():
        frame, names = bound.call.frame, expected[field].names
        place = At(
            frame=replace(frame, locals=frozenset(names)) if names else frame,
            path=(*bound.call.path, field),
            expect=expected[field],
            what=f"`{field}` of `{name}`",
            fixed=at.fixed,
        )
        arguments[field] = elaborator.term(bound.argument.value, place)
    frame = at.frame
    span = frame.spot(expression.name_span)
    passed = tuple(frame.parameters.values()) if frame.word else ()
    made = Make(span, model, name, arguments, frame.trail, frame.word or name, passed)
    lacking = [
        field
        for field, info in model.model_fields.items()
        if info.is_required() and field not in arguments and field in expected
    ]
    for field in lacking if not misnamed else ():
        elaborator.report.add(unknown.missing_argument(expression, field, at))
    broken = any(term.broken for term in arguments.values())
    return made, not lacking and not broken


def last_body(calls: Calls) -> Call | None:
    """The last call that gives a body."""
    return next((call for call in reversed(calls) if call.body is not None), None)


def _layer(
    elaborator: Elaborator,
    component: type[Layer],
    made: Make,
    expression: ast.Component,
    at: At,
    calls: Calls,
    complete: bool,
) -> Term:
    call = last_body(calls)
    children: tuple[Child, ...] = ()
    if component.body == "none":
        if call is not None:
            raise ArchError(unknown.unexpected_body(expression, at))
    elif call is None or call.body is None:
        raise ArchError(unknown.needs_body(component, made.name, expression, at))
    elif component.body == "equations":
        complete = cells.body(elaborator, made, call) and complete
    else:
        inner = At(call.frame, call.path, LAYERS, f"the body of `{made.name}`", fixed=at.fixed)
        children = body(elaborator, call.body, inner, labelled=component.body == "labelled")
    if not complete:
        return Broken(made.span)
    return LayerTerm(made.span, made, children) if at.expect.layers else made


# --- bodies ---------------------------------------------------------------------------------------


def body(elaborator: Elaborator, body: ast.Body, at: At, *, labelled: bool) -> tuple[Child, ...]:
    """The children of a body."""
    if not body.items:
        raise ArchError(unknown.diagnostic("empty-body", "this body is empty", body.span, at))
    _check_labels(elaborator, body, at, labelled)
    names: dict[str, int] = {}
    return tuple(
        Child(getattr(item, "label", None), _item(elaborator, item, at, names))
        for item in body.items
    )


def _item(
    elaborator: Elaborator, item: ast.Layer | ast.Equation, at: At, names: dict[str, int]
) -> Term:
    if isinstance(item, ast.Equation):
        message = f"an equation belongs in the body of a cell, not in {at.what}"
        diagnostic = unknown.diagnostic("misplaced-equation", message, item.span, at)
        elaborator.report.add(diagnostic)
        return Broken(at.frame.spot(item.span))
    name = item.label or ("layer" if isinstance(item.value, ast.Choice) else None)
    path = at.path if name is None else (*at.path, name)
    inner = At(at.frame, path, LAYERS, "a body", fixed=at.fixed)
    return elaborator.term(item.value, inner)


def _check_labels(elaborator: Elaborator, body: ast.Body, at: At, labelled: bool) -> None:
    seen: dict[str, Span] = {}
    layers = [item for item in body.items if isinstance(item, ast.Layer)]
    mixed = any(item.label for item in layers)
    for item in layers:
        if item.label is None and mixed and labelled:
            message = "either every child of this body has a label, or none"
            diagnostic = unknown.diagnostic("missing-label", message, item.span, at)
            elaborator.report.add(diagnostic)
        elif item.label is not None:
            _check_label(elaborator, item, at, labelled, seen)


def _check_label(
    elaborator: Elaborator, item: ast.Layer, at: At, labelled: bool, seen: dict[str, Span]
) -> None:
    label, span = item.label or "", item.label_span or item.span
    if not labelled:
        message = f"labels mean nothing in {at.what}"
        elaborator.report.add(unknown.diagnostic("unexpected-label", message, span, at))
    elif label in seen:
        message, related = (
            f"two children have the label `{label}`",
            ((seen[label], "first used here"),),
        )
        elaborator.report.add(
            unknown.diagnostic("duplicate-label", message, span, at, related=related)
        )
    seen.setdefault(label, span)
