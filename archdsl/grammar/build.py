"""From what the grammar recognised to the syntax tree: one method a rule of ``arch.lark``.

Every method takes the children of its rule, punctuation included, so that a node's span runs from
its first child to its last without further bookkeeping.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, Protocol, cast

from archdsl.diagnostics import ArchError, Diagnostic, Source, Span
from archdsl.grammar import ast, numbers
from archdsl.grammar.foreign import CODE_IN_BODIES, code_in_file, misplaced_item

RESERVED = frozenset({"true", "false", "none"})
"""The words that are values everywhere and so can never be names."""

DEEPEST_TREE = 100
"""How many levels a tree may have, so that a recursive visitor never runs out of stack."""

LEVELS_A_BRACKET = 8
"""At most so many nodes lie above one another between two brackets, operators apart."""

LONGEST_CHAIN = 100
"""How many operators may follow one another (``1 + 1 + …``) before an expression is too deep."""


class Token(Protocol):
    """What the builder needs to know of a token: its kind, its place, and (``str``) its text."""

    type: str
    start_pos: int
    end_pos: int


Children = Sequence[Any]


class Enclosed(tuple[Any, ...]):
    """The nodes between a pair of brackets, and where the closing one ends."""

    end: int


def _start(child: Any) -> int:
    return child.span.start if isinstance(child, ast.Node) else int(child.start_pos)


def _end(child: Any) -> int:
    if isinstance(child, ast.Node):
        return child.span.end
    return child.end if isinstance(child, Enclosed) else int(child.end_pos)


def _nodes(children: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(child for child in children if isinstance(child, ast.Node))


def _enclosed(children: Children) -> Enclosed:
    result = Enclosed(_nodes(children))
    result.end = children[-1].end_pos
    return result


def _names(children: Children) -> tuple[str, ...]:
    return tuple(str(child) for child in children if getattr(child, "type", "") == "NAME")


_SECOND_HALVES: dict[str, type[ast.Node]] = {
    "let": ast.Equation,
    "task": ast.Equation,
    "def": ast.Layer,
}
"""What the rest of an item looks like when its keyword is read as a layer."""


def _bare_word(item: ast.Layer | ast.Equation) -> str:
    """The name of a layer that is nothing but a name; empty for any other."""
    value = item.value
    if not isinstance(item, ast.Layer) or item.label or not isinstance(value, ast.Component):
        return ""
    return value.text if value.arguments is None and value.body is None else ""


class Builder(threading.local):
    """Builds the nodes of one text at a time; each thread has its own.

    Mistakes that the grammar cannot see (a reserved name, a number out of bounds) are collected in
    ``found``; ``chain`` is the longest run of operators met.
    """

    def __init__(self) -> None:
        self.reset(Source("<text>", ""))

    def reset(self, source: Source) -> None:
        """Make ready for another text."""
        self.source = source
        self.found: list[Diagnostic] = []
        self.chain = 0

    # --- helpers ----------------------------------------------------------------------------------

    def span(self, children: Children) -> Span:
        """The stretch from the first child to the last."""
        return Span(self.source, _start(children[0]), _end(children[-1]))

    def at(self, token: Token) -> Span:
        """The stretch of one token."""
        return Span(self.source, token.start_pos, token.end_pos)

    def fresh(self, token: Token) -> Span:
        """The span of a name being given to something, which no reserved word may be."""
        span = self.at(token)
        if str(token) in RESERVED:
            self.found.append(reserved(str(token), span))
        return span

    def too_many(self, operators: int, span: Span) -> bool:
        """Keep the longest chain of operators and refuse one that would nest too deep."""
        self.chain = max(self.chain, operators)
        if operators > LONGEST_CHAIN:
            self.found.append(too_deep(span, f"{operators:,} operators follow one another here"))
        return operators > LONGEST_CHAIN

    # --- the file ---------------------------------------------------------------------------------

    def start(self, children: Children) -> tuple[ast.Item, ...]:
        """Every item of the file."""
        return tuple(children)

    def use(self, children: Children) -> ast.Use:
        """``use "path" as name``."""
        path = children[1]
        alias = children[3] if len(children) > 3 else None
        if alias is not None:
            self.fresh(alias)
        return ast.Use(
            span=self.span(children),
            path=path[1:-1],
            alias=None if alias is None else str(alias),
            path_span=self.at(path),
        )

    def let(self, children: Children) -> ast.Let:
        """``let name = value``."""
        _, name, _, value = children
        return ast.Let(
            span=self.span(children), name=str(name), value=value, name_span=self.fresh(name)
        )

    def definition(self, children: Children) -> ast.Def:
        """``def name(parameters) = value`` or with a body."""
        name, last = children[1], children[-1]
        body = last if isinstance(last, ast.Body) else None
        parameters = children[2] if isinstance(children[2], Enclosed) else None
        return ast.Def(
            span=self.span(children),
            name=str(name),
            parameters=None if parameters is None else tuple(parameters),
            value=None if body is not None else last,
            body=body,
            name_span=self.fresh(name),
        )

    def parameters(self, children: Children) -> Enclosed:
        """The parameters in their parentheses."""
        return _enclosed(children)

    def parameter(self, children: Children) -> ast.Parameter:
        """``name`` or ``name = default``."""
        self.fresh(children[0])
        default = children[2] if len(children) > 1 else None
        return ast.Parameter(span=self.span(children), name=str(children[0]), default=default)

    def model(self, children: Children) -> ast.Model:
        """``model { … }``."""
        return ast.Model(span=self.span(children), body=children[1])

    def require(self, children: Children) -> ast.Require:
        """``require a <= b``."""
        _, left, operator, right = children
        condition = ast.Compare(
            span=self.span(children[1:]), operator=cast(Any, str(operator)), left=left, right=right
        )
        return ast.Require(span=self.span(children), condition=condition)

    def task(self, children: Children) -> ast.Task:
        """``task name = value``."""
        _, name, _, value = children
        return ast.Task(
            span=self.span(children), name=str(name), value=value, name_span=self.fresh(name)
        )

    def section(self, children: Children) -> ast.Section:
        """``train { … }`` or ``search { … }``."""
        name = cast(Literal["train", "search"], str(children[0]))
        return ast.Section(span=self.span(children), name=name, settings=_nodes(children))

    def setting(self, children: Children) -> ast.Setting:
        """``name = value``."""
        name, _, value = children
        return ast.Setting(
            span=self.span(children), name=str(name), value=value, name_span=self.fresh(name)
        )

    def objective(self, children: Children) -> ast.Objective:
        """``maximize value`` or ``minimize value``."""
        direction = cast(Literal["maximize", "minimize"], str(children[0]))
        return ast.Objective(span=self.span(children), direction=direction, value=children[1])

    # --- bodies -----------------------------------------------------------------------------------

    def body(self, children: Children) -> ast.Body:
        """``{ … }``."""
        items = _nodes(children)
        for item, following in pairwise(items):
            self.check_word(item, following)
        return ast.Body(span=self.span(children), items=items)

    def check_word(self, item: ast.Layer | ast.Equation, following: ast.Node) -> None:
        """Refuse ``let x = 1`` and ``for x`` in a body, which the grammar reads as two layers."""
        word = _bare_word(item)
        if not word or "\n" in self.source.text[item.span.end : following.span.start]:
            return
        if word in CODE_IN_BODIES:
            self.found.append(code_in_file(word, item.span))
        elif isinstance(following, _SECOND_HALVES.get(word, ())):
            self.found.append(misplaced_item(word, item.span))

    def equation(self, children: Children) -> ast.Equation:
        """``name = value`` in a body."""
        target, _, value = children
        return ast.Equation(
            span=self.span(children),
            target=str(target),
            value=value,
            target_span=self.fresh(target),
        )

    def layer(self, children: Children) -> ast.Layer:
        """A layer with or without its label."""
        if isinstance(children[0], ast.Node):
            return ast.Layer(span=self.span(children), label=None, value=self.branches(children))
        return ast.Layer(
            span=self.span(children),
            label=str(children[0]),
            value=self.branches(children[2:]),
            label_span=self.fresh(children[0]),
        )

    def branches(self, children: Children) -> ast.Expression:
        """One alternative as it is, several as a choice."""
        return children[0] if len(children) == 1 else self.choice(children)

    # --- values -----------------------------------------------------------------------------------

    def choice(self, children: Children) -> ast.Choice:
        """``a | b``."""
        return ast.Choice(span=self.span(children), alternatives=_nodes(children))

    def plain_range(self, children: Children) -> ast.Range:
        """``low .. high``."""
        return self.range(children, None, log=False)

    def stepped_range(self, children: Children) -> ast.Range:
        """``low .. high by step``."""
        return self.range(children, children[4], log=False)

    def log_range(self, children: Children) -> ast.Range:
        """``low .. high log``."""
        return self.range(children, None, log=True)

    def range(self, children: Children, step: ast.Expression | None, log: bool) -> ast.Range:
        """The three forms of a range."""
        return ast.Range(
            span=self.span(children), low=children[0], high=children[2], step=step, log=log
        )

    def operation(self, children: Children) -> ast.Expression:
        """``a + b - c``, left-associative."""
        value = children[0]
        if self.too_many(len(children) // 2, self.span(children)):
            return cast(ast.Expression, value)
        for operator, right in zip(children[1::2], children[2::2], strict=True):
            span = Span(self.source, value.span.start, right.span.end)
            value = ast.Binary(span=span, operator=str(operator), left=value, right=right)  # type: ignore[arg-type]
        return cast(ast.Expression, value)

    def unary(self, children: Children) -> ast.Expression:
        """``-a``."""
        *signs, value = children
        if self.too_many(len(signs), self.span(children)):
            return cast(ast.Expression, value)
        for sign in reversed(signs):
            span = Span(self.source, sign.start_pos, value.span.end)
            value = ast.Unary(span=span, operator=str(sign), operand=value)  # type: ignore[arg-type]
        return cast(ast.Expression, value)

    def number(self, children: Children) -> ast.Number:
        """``4M``."""
        text, span = str(children[0]), self.at(children[0])
        return ast.Number(span=span, text=text, value=self.bounded(text, span, numbers.value))

    def ratio(self, children: Children) -> ast.Ratio:
        """``3:1``."""
        text, span = str(children[0]), self.at(children[0])
        return ast.Ratio(span=span, parts=self.bounded(text, span, numbers.parts))

    def bounded(self, text: str, span: Span, read: Callable[[str], Any]) -> Any:
        """What a number says, or a diagnostic and a stand-in where it is out of bounds."""
        complaint = numbers.complaint(text)
        if complaint:
            self.found.append(_out_of_bounds(span, complaint))
        return read("1" if ":" not in text else "1:1") if complaint else read(text)

    def string(self, children: Children) -> ast.String:
        """``"text"``."""
        return ast.String(span=self.at(children[0]), value=children[0][1:-1])

    def true(self, children: Children) -> ast.Boolean:
        """``true``."""
        return ast.Boolean(span=self.at(children[0]), value=True)

    def false(self, children: Children) -> ast.Boolean:
        """``false``."""
        return ast.Boolean(span=self.at(children[0]), value=False)

    def nothing(self, children: Children) -> ast.Nothing:
        """``none``."""
        return ast.Nothing(span=self.at(children[0]))

    def component(self, children: Children) -> ast.Component:
        """``name(arguments) { … }`` and its shorter forms."""
        names = [child for child in children if getattr(child, "type", "") == "NAME"]
        arguments = next((child for child in children if isinstance(child, Enclosed)), None)
        body = children[-1] if isinstance(children[-1], ast.Body) else None
        return ast.Component(
            span=self.span(children),
            name=_names(names),
            arguments=None if arguments is None else tuple(arguments),
            body=body,
            name_span=Span(self.source, names[0].start_pos, names[-1].end_pos),
        )

    def call(self, children: Children) -> ast.Call:
        """``(a | b)(arguments)``."""
        _, function, _, arguments = children
        return ast.Call(span=self.span(children), function=function, arguments=tuple(arguments))

    def group(self, children: Children) -> ast.Group:
        """``(a)``."""
        return ast.Group(span=self.span(children), value=children[1])

    def array(self, children: Children) -> ast.Array:
        """``[a, b]``."""
        return ast.Array(span=self.span(children), items=_nodes(children))

    def arguments(self, children: Children) -> Enclosed:
        """The arguments in their parentheses."""
        return _enclosed(children)

    def named_argument(self, children: Children) -> ast.Argument:
        """``name = value``."""
        name, _, value = children
        return ast.Argument(
            span=self.span(children), name=str(name), value=value, name_span=self.at(name)
        )

    def positional_argument(self, children: Children) -> ast.Argument:
        """``value``."""
        return ast.Argument(span=self.span(children), name=None, value=children[0])


def check_depth(program: ast.Program, chain: int, nesting: int) -> None:
    """Refuse a tree that is deeper than a recursive visitor can walk.

    Args:
        program: the tree.
        chain: the longest run of operators in it.
        nesting: the most brackets open at once; with ``chain`` it bounds the depth, so that the
            tree of an ordinary file need not be walked.

    Raises:
        ArchError: the tree is deeper than :data:`DEEPEST_TREE`.
    """
    if (nesting + 1) * (chain + LEVELS_A_BRACKET) < DEEPEST_TREE:
        return
    level: list[ast.Node] = [program]
    for _ in range(DEEPEST_TREE):
        level = [child for node in level for child in node.children()]
    if level:
        raise ArchError(too_deep(level[0].span, f"{DEEPEST_TREE} levels are open here"))


def reserved(name: str, span: Span) -> Diagnostic:
    """A value's word used as a name."""
    return Diagnostic(
        "reserved-name",
        f"`{name}` is a value and cannot be a name",
        span,
        help="choose another name; `true`, `false` and `none` are the only reserved words",
    )


def too_deep(span: Span, note: str) -> Diagnostic:
    """Nesting beyond what a reader or the compiler can follow."""
    return Diagnostic(
        "nested-too-deeply",
        "this is nested too deeply",
        span,
        label=note,
        help="name the inner parts with `let` or `def` and use the names",
    )


def _out_of_bounds(span: Span, complaint: str) -> Diagnostic:
    return Diagnostic("number-out-of-bounds", f"this number has {complaint}", span)
