"""Where lines are broken: expressions, bodies and comments in the canonical layout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from archdsl.grammar import ast
from archdsl.grammar.comments import Comments, comment_text
from archdsl.grammar.flat import (
    RANGE,
    binding,
    format_arguments,
    format_expression,
    within,
)

WIDTH = 88
"""Columns of a line, comments behind it apart."""

INDENT = "    "

MOST_INLINE_LAYERS = 3
"""More layers than this stand one per line, however short."""

Lines = list[str]
"""Lines without the indentation of the place they are put at."""

Write = Callable[[ast.Node, int, int, int], Lines]
"""Writes an element at a column, with so much before it on its line and so much behind it."""


@dataclass(frozen=True)
class Slots:
    """Elements that stand one per line.

    Args:
        elements: the nodes.
        start: the offset behind the opening bracket.
        end: the offset of the closing one.
        write: how an element is written.
        leads: what stands before each element (``| ``), if anything.
        separator: what stands behind each element.
        spaced: whether the user's blank lines are kept.
    """

    elements: Sequence[ast.Node]
    start: int
    end: int
    write: Write
    leads: Sequence[str] = ()
    separator: str = ""
    spaced: bool = False


@dataclass
class Layout:
    """Writes the parts of one program."""

    comments: Comments
    moved: bool = field(default=False, init=False)
    """Whether a comment had to move to another line, before what it stood in."""
    _last: int = field(default=-1, init=False)
    """Where the last thing ended that was written one per line; -1 where there is none."""

    # --- elements one per line --------------------------------------------------------------------

    def enclosed(self, opening: str, slots: Slots, closing: str, column: int) -> Lines:
        """Elements one per line between two brackets."""
        first = slots.elements[0].span.start if slots.elements else slots.end
        comment = self.comments.beside(slots.start, first)
        inner = self.one_per_line(slots, column + len(INDENT))
        return [_beside(opening, comment), *indented(inner), closing]

    def one_per_line(self, slots: Slots, column: int) -> Lines:
        """Elements one per line, each with its comments."""
        lines: Lines = []
        self._last = -1
        limits = [*[element.span.start for element in slots.elements], slots.end][1:]
        leads = slots.leads or [""] * len(slots.elements)
        for element, limit, lead in zip(slots.elements, limits, leads, strict=True):
            self._own_lines(lines, element.span.start, slots.spaced)
            self._blank(lines, element.span.start, slots.spaced)
            written = slots.write(element, column, len(lead), len(slots.separator))
            inside = self.comments.take(element.span.end)
            self.moved = self.moved or bool(inside)
            lines += map(comment_text, inside)
            comment = self.comments.beside(element.span.end, limit)
            lines += [lead + written[0], *written[1:]]
            lines[-1] = _beside(lines[-1] + slots.separator, comment)
            self._last = comment.span.end if comment else element.span.end
        self._own_lines(lines, slots.end, slots.spaced)
        return lines

    def _own_lines(self, lines: Lines, end: int, spaced: bool) -> None:
        """Add the comments before an offset, each on a line of its own."""
        for comment in self.comments.take(end):
            self._blank(lines, comment.span.start, spaced)
            lines.append(comment_text(comment))
            self._last = comment.span.end

    def _blank(self, lines: Lines, start: int, spaced: bool) -> None:
        if spaced and lines and self._last >= 0 and self.comments.blank_line(self._last, start):
            lines.append("")

    # --- expressions ------------------------------------------------------------------------------

    def assign(
        self, prefix: str, value: ast.Expression, column: int, used: int = 0, tail: int = 0
    ) -> Lines:
        """``name = value``; a long choice or operation begins on the next line."""
        taken = used + len(prefix) + 1
        if isinstance(value, ast.Choice | ast.Binary) and not self.fits(value, column, taken, tail):
            inner = self.expression(value, column + len(INDENT), 0, tail)
            return [prefix, *indented(inner)]
        return self.prefixed(f"{prefix} ", value, column, used, tail)

    def prefixed(
        self, prefix: str, value: ast.Expression, column: int, used: int = 0, tail: int = 0
    ) -> Lines:
        """A value behind something on its line."""
        lines = self.expression(value, column, used + len(prefix), tail)
        return [prefix + lines[0], *lines[1:]]

    def expression(self, value: ast.Expression, column: int, used: int, tail: int) -> Lines:
        """A value, on one line if it fits there."""
        if self.fits(value, column, used, tail):
            return [format_expression(value)]
        match value:
            case ast.Choice():
                return self.choice(value, column, tail)
            case ast.Binary():
                return self.operation(value, column, tail)
            case ast.Component():
                return self.component(value, column, used, tail)
            case ast.Call():
                return self.call(value, column, used, tail)
            case ast.Group(value=inner):
                return self.group(value, inner, column)
            case ast.Array():
                return self.array(value, column)
            case ast.Unary(operator=operator, operand=operand) if binding(operand) >= RANGE:
                return self.prefixed(operator, operand, column, used, tail)
            case ast.Compare(operator=operator, left=left, right=right):
                lines = self.expression(left, column, used, tail)
                behind = self.prefixed(f"{lines[-1]} {operator} ", right, column, 0, tail)
                return [*lines[:-1], *behind]
        return [format_expression(value)]

    def element(self, node: ast.Node, column: int, used: int, tail: int) -> Lines:
        """An expression as an element of a list or a choice."""
        return self.expression(_expression(node), column, used, tail)

    def fits(self, value: ast.Expression, column: int, used: int, tail: int) -> bool:
        """Whether a value can stand on one line here."""
        if self.comments.within(value.span.start, value.span.end):
            return False
        room = WIDTH - column - used - tail
        return len(format_expression(value)) <= room and _inline([value])

    def choice(self, value: ast.Choice, column: int, tail: int) -> Lines:
        """The alternatives one per line."""
        leads = ["", *["| "] * (len(value.alternatives) - 1)]
        return self.operands(value, value.alternatives, leads, RANGE, column)

    def operation(self, value: ast.Binary, column: int, tail: int) -> Lines:
        """The operands of one level one per line."""
        level = binding(value)
        first: ast.Expression = value
        operands: list[ast.Expression] = []
        leads: list[str] = []
        while isinstance(first, ast.Binary) and binding(first) == level:
            operands.append(first.right)
            leads.append(f"{first.operator} ")
            first = first.left
        parts = [first, *reversed(operands)]
        return self.operands(value, parts, ["", *reversed(leads)], level, column)

    def operands(
        self,
        value: ast.Expression,
        parts: Sequence[ast.Expression],
        leads: Sequence[str],
        level: int,
        column: int,
    ) -> Lines:
        """Parts of an expression one per line, each behind its sign."""

        def write(part: ast.Node, column: int, used: int, tail: int) -> Lines:
            bare = binding(_expression(part)) >= level
            return self.element(part, column, used, tail) if bare else [within(part, level)]  # type: ignore[arg-type]

        return self.one_per_line(
            Slots(parts, value.span.start, value.span.end, write, leads), column
        )

    def component(self, value: ast.Component, column: int, used: int, tail: int) -> Lines:
        """A component whose arguments or layers stand one per line."""
        lines = [value.text]
        behind = tail if value.body is None else 2
        if value.arguments is not None:
            lines = self.arguments(
                value.text, value.arguments, value.name_span.end, column, used, behind
            )
        if value.body is None:
            return lines
        return [*lines[:-1], *self.body(f"{lines[-1]} ", value.body, column)]

    def call(self, value: ast.Call, column: int, used: int, tail: int) -> Lines:
        """A parenthesised choice that is called."""
        function = value.function
        lines = [f"({format_expression(function)})"]
        if not self.fits(function, column, used + 1, 2):
            lines = self.group(value, function, column)
        last = lines[-1]
        behind = self.arguments(last, value.arguments, function.span.end, column, 0, tail)
        return [*lines[:-1], *behind]

    def group(self, value: ast.Expression, inner: ast.Expression, column: int) -> Lines:
        """A parenthesised value on lines of its own."""
        end = self.comments.find(")", inner.span.end)
        slots = Slots([inner], value.span.start + 1, end, self.element)
        return self.enclosed("(", slots, ")", column)

    def array(self, value: ast.Array, column: int) -> Lines:
        """A list with its items one per line, or filling the lines where they are short."""
        start, end = value.span.start + 1, value.span.end - 1
        if not self.comments.within(start, end) and all(map(_short, value.items)):
            room = WIDTH - column - len(INDENT)
            return ["[", *indented(_filled(map(format_expression, value.items), room)), "]"]
        slots = Slots(value.items, start, end, self.element, separator=",")
        return self.enclosed("[", slots, "]", column)

    def arguments(
        self,
        head: str,
        arguments: Sequence[ast.Argument],
        after: int,
        column: int,
        used: int,
        tail: int,
    ) -> Lines:
        """Arguments behind a name, one per line where they do not fit."""
        start = self.comments.find("(", after) + 1
        last = arguments[-1].span.end if arguments else start
        end = self.comments.find(")", last)
        text = head + format_arguments(tuple(arguments))
        values = [argument.value for argument in arguments]
        if not self.comments.within(after, end) and (
            not arguments or (len(text) + column + used + tail <= WIDTH and _inline(values))
        ):
            return [text]
        slots = Slots(arguments, start, end, self.argument, separator=",")
        return self.enclosed(f"{head}(", slots, ")", column)

    def argument(self, node: ast.Node, column: int, used: int, tail: int) -> Lines:
        """One argument."""
        assert isinstance(node, ast.Argument)
        if node.name is None:
            return self.expression(node.value, column, used, tail)
        return self.assign(f"{node.name} =", node.value, column, used, tail)

    # --- bodies -----------------------------------------------------------------------------------

    def body(self, opening: str, body: ast.Body, column: int) -> Lines:
        """A body with its items one per line."""
        start, end = body.span.start + 1, body.span.end - 1
        if not body.items and not self.comments.within(start, end):
            return [f"{opening}{{}}"]
        slots = Slots(body.items, start, end, self.body_item, spaced=True)
        return self.enclosed(f"{opening}{{", slots, "}", column)

    def body_item(self, node: ast.Node, column: int, used: int, tail: int) -> Lines:
        """One layer or equation."""
        if isinstance(node, ast.Equation):
            return self.assign(f"{node.target} =", node.value, column)
        assert isinstance(node, ast.Layer)
        if node.label is not None:
            return self.assign(f"{node.label}:", node.value, column)
        return self.expression(node.value, column, 0, 0)


def indented(lines: Iterable[str]) -> Lines:
    """The lines one level deeper."""
    return [INDENT + line if line else "" for line in lines]


def _beside(line: str, comment: ast.Comment | None) -> str:
    return line if comment is None else f"{line}  {comment_text(comment)}"


def _expression(node: ast.Node) -> ast.Expression:
    assert isinstance(node, ast.Expression)
    return node


def _short(value: ast.Expression) -> bool:
    if isinstance(value, ast.Component):
        return value.arguments is None and value.body is None
    return isinstance(value, ast.Number | ast.Ratio | ast.Boolean | ast.Nothing)


def _filled(items: Iterable[str], room: int) -> Lines:
    lines = [""]
    for item in items:
        if lines[-1] and len(lines[-1]) + len(item) + 2 > room:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{item},"
    return lines


def _inline(values: Iterable[ast.Node]) -> bool:
    """Whether the bodies in values are short enough, and hold none themselves, for one line."""
    nodes = [(value, False) for value in values]
    while nodes:
        node, inside = nodes.pop()
        if isinstance(node, ast.Body):
            if inside or len(node.items) > MOST_INLINE_LAYERS or not all(map(_plain, node.items)):
                return False
            inside = True
        nodes += [(child, inside) for child in node.children()]
    return True


def _plain(item: ast.Layer | ast.Equation) -> bool:
    return isinstance(item, ast.Layer) and item.label is None
