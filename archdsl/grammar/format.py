"""One canonical layout for a file, with every comment kept.

What fits on a line of 88 columns stands on one line; what does not has its parts one per line. Blank
lines between items and layers stay where the user put them, one at most. A comment stays behind what
it follows on its line, or on a line of its own before what it precedes.
"""

from __future__ import annotations

from dataclasses import dataclass

from archdsl.grammar import ast
from archdsl.grammar.comments import Comments
from archdsl.grammar.flat import format_expression, format_parameters
from archdsl.grammar.layout import WIDTH, Layout, Lines, Slots
from archdsl.grammar.parse import parse

__all__ = ["format_expression", "format_program"]

MOST_MOVES = 5
"""How often a text is laid out again because a comment moved in it."""


def format_program(program: ast.Program) -> str:
    """The canonical text of a file; empty for a file with nothing in it."""
    text, moved = _format_once(program)
    for _ in range(MOST_MOVES):
        if not moved:
            break
        text, moved = _format_once(parse(text))
    return text


def _format_once(program: ast.Program) -> tuple[str, bool]:
    """The text, and whether a comment moved: where it stands now, lines may break elsewhere."""
    comments = Comments(program)
    items = _Items(Layout(comments), comments)
    if comments.text:
        slots = Slots(program.items, 0, len(comments.text) + 1, items.item, spaced=True)
        lines = items.layout.one_per_line(slots, 0)
    else:
        lines = items.grouped(program.items)
    return "".join([f"{line}\n" for line in lines]), items.layout.moved


@dataclass
class _Items:
    """Writes the items of one program."""

    layout: Layout
    comments: Comments

    def grouped(self, items: tuple[ast.Item, ...]) -> Lines:
        """Items of a program that no user wrote: short ones of a kind stand together."""
        lines: Lines = []
        before: type[ast.Item] | None = None
        for item in items:
            written = self.item(item, 0, 0, 0)
            if lines and (before is not type(item) or len(written) > 1):
                lines.append("")
            lines += written
            before = type(item) if len(written) == 1 else None
        return lines

    def item(self, item: ast.Node, column: int, used: int, tail: int) -> Lines:
        """One item."""
        match item:
            case ast.Use(path=path, alias=alias):
                return [f'use "{path}"' + (f" as {alias}" if alias else "")]
            case ast.Let(name=name, value=value):
                return self.layout.assign(f"let {name} =", value, column)
            case ast.Task(name=name, value=value):
                return self.layout.assign(f"task {name} =", value, column)
            case ast.Model(body=body):
                return self.layout.body("model ", body, column)
            case ast.Def():
                return self.definition(item, column)
            case ast.Require(condition=condition):
                return self.layout.prefixed("require ", condition, column)
            case ast.Section():
                return self.section(item, column)
        raise TypeError(f"not an item: {item!r}")

    def definition(self, item: ast.Def, column: int) -> Lines:
        """A ``def`` of either form."""
        header = self.header(item, column)
        if item.body is not None:
            return [*header[:-1], *self.layout.body(f"{header[-1]} ", item.body, column)]
        assert item.value is not None
        return [*header[:-1], *self.layout.assign(f"{header[-1]} =", item.value, column)]

    def header(self, item: ast.Def, column: int) -> Lines:
        """The name and the parameters of a ``def``, one per line where they do not fit."""
        text = f"def {item.name}{format_parameters(item.parameters)}"
        if not item.parameters:
            return [text]
        start = self.comments.find("(", item.name_span.end) + 1
        end = self.comments.find(")", item.parameters[-1].span.end)
        if len(text) + 2 <= WIDTH and not self.comments.within(item.name_span.end, end):
            return [text]
        slots = Slots(item.parameters, start, end, self.parameter, separator=",")
        return self.layout.enclosed(f"def {item.name}(", slots, ")", column)

    def parameter(self, node: ast.Node, column: int, used: int, tail: int) -> Lines:
        """One parameter of a ``def``."""
        assert isinstance(node, ast.Parameter)
        if node.default is None:
            return [node.name]
        return self.layout.assign(f"{node.name} =", node.default, column, used, tail)

    def section(self, item: ast.Section, column: int) -> Lines:
        """``train { … }`` or ``search { … }``."""
        start, end = self.comments.find("{", item.span.start) + 1, item.span.end - 1
        if not item.settings and not self.comments.within(start, end):
            return [f"{item.name} {{}}"]
        slots = Slots(item.settings, start, end, self.setting, spaced=True)
        return self.layout.enclosed(f"{item.name} {{", slots, "}", column)

    def setting(self, node: ast.Node, column: int, used: int, tail: int) -> Lines:
        """One setting or objective of a section."""
        if isinstance(node, ast.Setting):
            return self.layout.assign(f"{node.name} =", node.value, column)
        assert isinstance(node, ast.Objective)
        return self.layout.prefixed(f"{node.direction} ", node.value, column)
