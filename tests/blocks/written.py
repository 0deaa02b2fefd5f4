"""Architectures from the language's own spelling, closed: ``written("attention(heads = 2)")``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import archdsl.blocks
from archdsl.blocks import equations as eq
from archdsl.blocks.base import Ratio
from archdsl.blocks.registry import find
from archdsl.compiler.arch import Element, Visit
from archdsl.compiler.build import compile_arch
from archdsl.compiler.canonical import architecture_hash
from archdsl.compiler.graph import Graph
from archdsl.compiler.lower import lower
from archdsl.compiler.model import Model
from archdsl.grammar import ast
from archdsl.grammar.parse import parse

STD = Path(archdsl.blocks.__file__).parent / "std"


class Written:
    def __init__(self, elements, text, symbols):
        self.elements, self.text, self.symbols = elements, text, symbols

    @cached_property
    def graph(self) -> Graph:
        return lower(self.elements, self.symbols)

    @cached_property
    def hash(self) -> str:
        return architecture_hash(self.graph)

    def compile(self, **how: Any) -> Model:
        return compile_arch(self, **how)


def arch(body: str, symbols: int = 0) -> Written:
    """The closed architecture ``model { body }`` for a task of so many symbols."""
    program = parse(f"model {{ {body} }}")
    return Written(_layers(program.items[0].body, {}), f"model {{ {body} }}", symbols)


def _layers(body, names):
    return tuple(_element(item.value, names) for item in body.items)


def _element(e, names, body=None, origin=None):
    assert isinstance(e, ast.Component), e
    name, args = e.name[0], e.arguments or ()
    if name in names and isinstance(names[name], Element):
        return names[name]
    std = STD / f"{name}.arch"
    if std.exists():
        d = next(i for i in parse(std.read_text()).items if isinstance(i, ast.Def))
        inner = {p.name: _value(p.default, {}) for p in d.parameters}
        for i, a in enumerate(args):
            inner[a.name or d.parameters[i].name] = _value(a.value, names)
        return _element(d.value, inner, origin=f"{name}(…)")
    component = _make("layer", e, names)
    if component.body == "equations":
        equations = tuple(eq.Assignment(i.target, _expr(i.value)) for i in e.body.items)
        component = component.model_copy(update={"equations": equations})
        return Element(component, (), None, origin)
    visits = ()
    if component.body != "none":
        labels = [i.label for i in e.body.items]
        children = [_element(i.value, names) for i in e.body.items]
        known: dict[tuple[int, ...], Visit] = {}
        found = []
        for visit in component.visits(labels):
            if visit not in known:
                known[visit] = Visit(
                    labels[visit[0]] if len(visit) == 1 else None, tuple(children[i] for i in visit)
                )
            found.append(known[visit])
        visits = tuple(found)
    return Element(component, visits, None, origin)


def _make(kind, e, names):
    cls = find(kind, e.name[0])
    assert cls, e.name
    fields = list(cls.model_fields)
    given = {}
    for i, a in enumerate(e.arguments or ()):
        n = a.name or fields[i]
        given[n] = _value(a.value, names, n if n in ("memory", "bias", "retention", "learner") else None)
    for n, v in given.items():
        if v is None and "'none'" in str(cls.model_fields[n].annotation):
            given[n] = "none"
    c = cls(**given)
    c.verify()
    return c


def _value(v, names, kind=None):
    match v:
        case ast.Number(value=x):
            return x
        case ast.Ratio(parts=p):
            return Ratio(parts=p)
        case ast.String(value=x) | ast.Boolean(value=x):
            return x
        case ast.Nothing():
            return None if kind or not names.get("_none") else "none"
        case ast.Array(items=items):
            return tuple(_value(i, names) for i in items)
        case ast.Binary(operator="/", left=a, right=b):
            from fractions import Fraction

            return Fraction(_value(a, names)) / _value(b, names)
        case ast.Component() if v.name[0] in names and v.arguments is None:
            return names[v.name[0]]
        case ast.Component():
            if kind and find(kind, v.name[0]):
                return _make(kind, v, names)
            return v.name[0]
    raise AssertionError(v)


def _expr(e):
    match e:
        case ast.Number(value=x):
            from fractions import Fraction

            return eq.Constant(Fraction(x))
        case ast.Group(value=x):
            return _expr(x)
        case ast.Unary(operand=x):
            return eq.Apply("neg", (_expr(x),))
        case ast.Binary(operator=o, left=a, right=b):
            return eq.Apply({"+": "add", "-": "sub", "*": "mul", "/": "div"}[o], (_expr(a), _expr(b)))
        case ast.Component(arguments=None):
            return eq.Name(e.name[0])
        case ast.Component(arguments=args):
            return eq.Apply(
                e.name[0],
                tuple(_expr(a.value) for a in args if not a.name),
                tuple((a.name, _value(a.value, {})) for a in args if a.name),
            )
