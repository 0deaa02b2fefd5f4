"""Definitions that nothing uses, written out once all the same: a library is checked like a model."""

from __future__ import annotations

from archdsl.blocks import registry
from archdsl.compiler.reading import uses
from archdsl.compiler.reading.context import At, Closure, Frame
from archdsl.compiler.reading.elaborate import Elaborator
from archdsl.compiler.reading.names import Scope, scopes_of, standard
from archdsl.compiler.terms.expect import LAYERS, Expect
from archdsl.diagnostics import ArchError
from archdsl.grammar import ast


def try_definitions(elaborator: Elaborator, main: Scope) -> None:
    """Report what is wrong in definitions that were not written out anywhere."""
    for scope in scopes_of(main):
        for item in scope.definitions.values():
            idle = id(item) not in elaborator.written and id(item) not in elaborator.recursive
            if isinstance(item, ast.Def) and idle:
                _try(elaborator, scope, item)


def _try(elaborator: Elaborator, scope: Scope, item: ast.Def) -> None:
    expect = LAYERS if item.value is None else _expected(item.value, scope, item)
    if expect is None:
        return
    name = ast.Component(
        span=item.name_span, name=(item.name,), arguments=None, body=None, name_span=item.name_span
    )
    at = At(elaborator.frame_of(scope), (), expect, f"`{item.name}`")
    frame = _frame(elaborator, scope, item, name, at)
    inner = At(frame, (item.name,), expect, f"`{item.name}`")
    try:
        uses.meaning(elaborator, item, name, inner, ())
    except ArchError as error:
        for diagnostic in error.diagnostics:
            elaborator.report.add(diagnostic)


def _frame(
    elaborator: Elaborator, scope: Scope, item: ast.Def, name: ast.Component, at: At
) -> Frame:
    """The frame of a use that gives no argument; a parameter without a default is anything."""
    frame = uses.use_frame(elaborator, scope, item, name, at, {})
    closures = dict(frame.parameters)
    for parameter in item.parameters or ():
        if parameter.name not in closures:
            closures[parameter.name] = Closure(parameter.name, None, frame, (parameter.name,))
    return uses.with_parameters(frame, closures)


def _expected(value: ast.Expression, scope: Scope, item: ast.Def) -> Expect | None:
    """What a definition is meant to stand for, by the name its meaning begins with."""
    while isinstance(value, ast.Group | ast.Choice):
        value = value.value if isinstance(value, ast.Group) else value.alternatives[0]
    if not isinstance(value, ast.Component):
        return None
    if any(parameter.name == value.name[0] for parameter in item.parameters or ()):
        return None
    if scope.find(value.name) or standard(value.name[0]):
        return LAYERS
    kinds = registry.kinds_of(value.text)
    if not kinds or "layer" in kinds:
        return LAYERS
    component = registry.find(kinds[0], value.text)
    return None if component is None else Expect(components=(component,))
