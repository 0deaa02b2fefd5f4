"""Definitions written out where they are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from archdsl.blocks import registry
from archdsl.blocks.base import Kind
from archdsl.compiler.reading import unknown
from archdsl.compiler.reading.arguments import Bound, bind
from archdsl.compiler.reading.components import body as body_of
from archdsl.compiler.reading.components import last_body
from archdsl.compiler.reading.context import At, Call, Closure, Frame
from archdsl.compiler.reading.names import Scope
from archdsl.compiler.reading.values import wrong_type
from archdsl.compiler.terms.origin import Origin
from archdsl.compiler.terms.term import Broken, LayerTerm, Series, Term
from archdsl.diagnostics import ArchError
from archdsl.grammar import ast

if TYPE_CHECKING:
    from archdsl.compiler.reading.elaborate import Elaborator


def written_out(
    elaborator: Elaborator,
    scope: Scope,
    item: ast.Def,
    expression: ast.Component,
    at: At,
    calls: tuple[Call, ...],
) -> Term:
    """What a definition means at a place of use."""
    elaborator.written.add(id(item))
    if scope.library and not _fits(item, at):
        found = f"`{expression.text}`, {unknown.listed_kinds(_kinds(item))}"
        raise ArchError(wrong_type(at, expression.span, found))
    parameters = [parameter.name for parameter in item.parameters or ()]
    before = elaborator.report.told
    given = bind(expression.text, parameters, calls, elaborator.report)
    misnamed = elaborator.report.told > before
    frame = use_frame(elaborator, scope, item, expression, at, given)
    lacking = [name for name in parameters if name not in frame.parameters]
    for name in lacking if not misnamed else ():
        elaborator.report.add(unknown.missing_argument(expression, name, at))
    if lacking:
        return Broken(at.frame.spot(expression.span))
    inner = replace(at, frame=frame, path=(*at.path, item.name), calls=(), each=None)
    return meaning(elaborator, item, expression, inner, calls)


def _fits(item: ast.Def, at: At) -> bool:
    """Whether a definition of the standard library is of a kind that may stand here."""
    return at.expect.layers or any(base.kind in _kinds(item) for base in at.expect.components)


def _kinds(item: ast.Def) -> list[Kind]:
    known = registry.kinds_of(item.value.text) if isinstance(item.value, ast.Component) else []
    return known or ["layer"]


def meaning(
    elaborator: Elaborator,
    item: ast.Def,
    expression: ast.Component,
    at: At,
    calls: tuple[Call, ...],
) -> Term:
    """The value or the layers of a definition in its own frame."""
    call = last_body(calls)
    if item.body is None:
        assert item.value is not None
        passed = () if call is None else (replace(call, arguments=()),)
        term = elaborator.term(item.value, replace(at, calls=passed))
        if at.frame.scope.library and isinstance(term, LayerTerm):
            term.origin = Origin(expression.text, tuple(at.frame.parameters.values()))
        return term
    if call is not None:
        raise ArchError(unknown.unexpected_body(expression, at))
    if not at.expect.layers:
        found = f"`{expression.text}`, a sequence of layers"
        raise ArchError(wrong_type(at, expression.span, found))
    children = body_of(elaborator, item.body, at, labelled=False)
    return Series(at.frame.spot(item.body.span), tuple(child.term for child in children))


def use_frame(
    elaborator: Elaborator,
    scope: Scope,
    item: ast.Def,
    expression: ast.Component,
    at: At,
    given: Mapping[str, Bound],
) -> Frame:
    """The frame of one use: what its parameters were given, and draws of its own."""
    closures: dict[str, Closure] = {}
    trail = at.frame.trail if scope.library else (expression.name_span, *at.frame.trail)
    frame = Frame(
        scope=scope,
        key=elaborator.key("use", id(expression), at.frame.key),
        parameters=closures,
        each=at.frame.each,
        anchor=at.frame.spot(expression.name_span) if scope.library else None,
        word=(at.frame.word or expression.text) if scope.library else "",
        trail=trail,
        locals=at.frame.locals.difference(p.name for p in item.parameters or ()),
    )
    for parameter in item.parameters or ():
        closure = _closure(item, parameter, given.get(parameter.name), frame, at)
        if closure is not None:
            closures[parameter.name] = closure
    return frame


def with_parameters(frame: Frame, closures: Mapping[str, Closure]) -> Frame:
    """The frame with other parameters."""
    return replace(frame, parameters=closures)


def _closure(
    item: ast.Def, parameter: ast.Parameter, bound: Bound | None, frame: Frame, at: At
) -> Closure | None:
    """What a parameter was given: its argument as the caller wrote it, else its default."""
    name, what = parameter.name, f"`{parameter.name}` of `{item.name}`"
    if bound is not None:
        path = (*bound.call.path, name)
        return Closure(name, bound.argument.value, bound.call.frame, path, what)
    if parameter.default is None:
        return None
    return Closure(name, parameter.default, frame, (*at.path, item.name, name), default=True)
