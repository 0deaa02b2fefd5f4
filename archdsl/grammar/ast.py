"""The syntax tree of a ``.arch`` file: frozen data, a span on every node, no names resolved.

Equality ignores spans, so ``parse(format(program)) == program`` is a meaningful test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cache
from typing import Any, Literal

from archdsl.diagnostics import Span


@dataclass(frozen=True, kw_only=True)
class Node:
    """Anything with a place in the text."""

    span: Span = field(compare=False, repr=False)

    def children(self) -> Iterator[Node]:
        """The nodes directly below this one, in the order of the text."""
        cls: Any = type(self)
        for name in _names(cls):
            value = getattr(self, name)
            for child in value if isinstance(value, tuple) else (value,):
                if isinstance(child, Node):
                    yield child


@cache
def _names(cls: Any) -> tuple[str, ...]:
    """The fields of a class that may hold nodes."""
    return tuple(field.name for field in fields(cls) if not _plain(str(field.type)))


def _plain(annotation: str) -> bool:
    """Whether a type, as it is written, holds no node: most fields that are looked into do not."""
    words = re.findall(r"\w+", re.sub(r'"[^"]*"', "", annotation))
    return {"Span", "str", "int", "bool", "Fraction", "None", "tuple", "Literal"}.issuperset(words)


# --- values ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number(Node):
    """A number; ``text`` keeps the user's spelling (``256KiB``). Exact: never a float."""

    value: int | Fraction
    text: str = field(compare=False)


@dataclass(frozen=True)
class Ratio(Node):
    """``3:1`` or ``6:1:1``."""

    parts: tuple[int, ...]


@dataclass(frozen=True)
class String(Node):
    """``"text"``."""

    value: str


@dataclass(frozen=True)
class Boolean(Node):
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True)
class Nothing(Node):
    """``none``."""


@dataclass(frozen=True)
class Array(Node):
    """``[a, b]``."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Argument(Node):
    """``value`` or ``name = value`` in a call."""

    name: str | None
    value: Expression
    name_span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Component(Node):
    """``name``, ``x.name``, ``name(arguments)``, ``name(arguments) { children }``.

    A bare name is a component without arguments: what it names is decided later. ``arguments`` and
    ``body`` are ``None`` where the text has no parentheses or braces.
    """

    name: tuple[str, ...]
    arguments: tuple[Argument, ...] | None
    body: Body | None
    name_span: Span = field(compare=False, repr=False)

    @property
    def text(self) -> str:
        """The dotted name."""
        return ".".join(self.name)


@dataclass(frozen=True)
class Call(Node):
    """``(a | b)(arguments)``: a parenthesised expression that is called."""

    function: Expression
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Group(Node):
    """``(a)``: kept so that the formatter can keep the user's parentheses."""

    value: Expression


@dataclass(frozen=True)
class Choice(Node):
    """``a | b | c``, at least two."""

    alternatives: tuple[Expression, ...]


@dataclass(frozen=True)
class Range(Node):
    """``low .. high``, ``low .. high by step`` or ``low .. high log``."""

    low: Expression
    high: Expression
    step: Expression | None
    log: bool


@dataclass(frozen=True)
class Unary(Node):
    """``-a`` or ``+a``."""

    operator: Literal["-", "+"]
    operand: Expression


@dataclass(frozen=True)
class Binary(Node):
    """``a + b`` and its kin; left-associative."""

    operator: Literal["+", "-", "*", "/"]
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Compare(Node):
    """``a <= b``; only in ``require``."""

    operator: Literal["<=", ">=", "==", "!=", "<", ">"]
    left: Expression
    right: Expression


Expression = (
    Number
    | Ratio
    | String
    | Boolean
    | Nothing
    | Array
    | Component
    | Call
    | Group
    | Choice
    | Range
    | Unary
    | Binary
    | Compare
)

# --- bodies ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer(Node):
    """One child of a body, with its label if it has one: ``linear: block(gla)``.

    ``value`` is a component, a call, or a choice among them.
    """

    label: str | None
    value: Expression
    label_span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Equation(Node):
    """``h = z * h + (1 - z) * c`` in the body of a ``cell``."""

    target: str
    value: Expression
    target_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Body(Node):
    """``{ … }``: layers, or the equations of a cell."""

    items: tuple[Layer | Equation, ...]


# --- the file -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use(Node):
    """``use "path" as name``; without ``as`` the file's own name is taken."""

    path: str
    alias: str | None
    path_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Let(Node):
    """``let name = value``."""

    name: str
    value: Expression
    name_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Parameter(Node):
    """One parameter of a ``def``, with its default if it has one."""

    name: str
    default: Expression | None


@dataclass(frozen=True)
class Def(Node):
    """``def name(parameters) = component`` or ``def name(parameters) { layers }``.

    Exactly one of ``value`` and ``body`` is set. ``parameters`` is ``None`` without parentheses.
    """

    name: str
    parameters: tuple[Parameter, ...] | None
    value: Expression | None
    body: Body | None
    name_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Model(Node):
    """``model { … }``."""

    body: Body


@dataclass(frozen=True)
class Require(Node):
    """``require params <= 4M``."""

    condition: Expression


@dataclass(frozen=True)
class Task(Node):
    """``task name = mqar(…)``."""

    name: str
    value: Expression
    name_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Setting(Node):
    """``name = value`` in a ``train`` or ``search`` section."""

    name: str
    value: Expression
    name_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Objective(Node):
    """``maximize recall.accuracy`` or ``minimize params``."""

    direction: Literal["maximize", "minimize"]
    value: Expression


@dataclass(frozen=True)
class Section(Node):
    """``train { … }`` or ``search { … }``."""

    name: Literal["train", "search"]
    settings: tuple[Setting | Objective, ...]


Item = Use | Let | Def | Model | Require | Task | Section


@dataclass(frozen=True)
class Comment(Node):
    """``# text``; ``text`` is without the ``#`` and the blanks around it."""

    text: str


@dataclass(frozen=True)
class Program(Node):
    """A whole file. Comments stand apart, by place, for the formatter."""

    items: tuple[Item, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False)
