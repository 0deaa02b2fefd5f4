"""What can be said about definitions before anything is written out: circles, doubles, idle names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from archdsl.blocks.equations import INPUTS
from archdsl.blocks.registry import BUILT_IN
from archdsl.compiler.reading.names import Definition, Scope, alias_of, scopes_of, standard
from archdsl.diagnostics import Diagnostic, Report, Severity, Span
from archdsl.grammar import ast

WARNING = Severity.WARNING


@dataclass(frozen=True)
class Reference:
    """A name that is read, and where."""

    name: tuple[str, ...]
    span: Span


def check_definitions(main: Scope, report: Report) -> set[int]:
    """Report what is wrong with the names of a program.

    Returns:
        the ``id`` of each definition that is part of a circle, and so can never be written out.
    """
    for scope in scopes_of(main):
        _doubles(scope, report)
        _hidden(scope, report)
    _idle(main, report)
    return _circles(main, report)


# --- names given twice, names that hide others ----------------------------------------------------


def _named(scope: Scope) -> Iterator[tuple[str, Span]]:
    for item in scope.program.items:
        if isinstance(item, ast.Let | ast.Def):
            yield item.name, item.name_span
        elif isinstance(item, ast.Use):
            yield alias_of(item), item.span


def _doubles(scope: Scope, report: Report) -> None:
    seen: dict[str, Span] = {}
    for name, span in _named(scope):
        if name in seen:
            report.add(_double(name, span, seen[name]))
        seen.setdefault(name, span)
    for item in scope.program.items:
        if isinstance(item, ast.Def):
            parameters: dict[str, Span] = {}
            for parameter in item.parameters or ():
                if parameter.name in parameters:
                    report.add(_double(parameter.name, parameter.span, parameters[parameter.name]))
                parameters.setdefault(parameter.name, parameter.span)


def _double(name: str, span: Span, first: Span) -> Diagnostic:
    return Diagnostic(
        "duplicate-name",
        f"the name `{name}` is given twice",
        span,
        related=((first, "first given here"),),
        help="choose another name for one of them",
    )


def _hidden(scope: Scope, report: Report) -> None:
    for item in scope.program.items:
        if isinstance(item, ast.Def) and (("layer", item.name) in BUILT_IN or standard(item.name)):
            message = f"this `{item.name}` hides the component of that name"
            help = "choose another name if the component is meant anywhere in this file"
            report.add(
                Diagnostic("hidden-component", message, item.name_span, help=help, severity=WARNING)
            )


# --- references -----------------------------------------------------------------------------------


def references(definition: Definition) -> Iterator[Reference]:
    """The names that a definition reads and does not give a meaning to itself."""
    if isinstance(definition, ast.Let):
        yield from _read(definition.value, frozenset())
        return
    own = frozenset(parameter.name for parameter in definition.parameters or ())
    for parameter in definition.parameters or ():
        if parameter.default is not None:
            yield from _read(parameter.default, own)
    meaning = definition.body if definition.value is None else definition.value
    assert meaning is not None
    yield from _read(meaning, own)


def _read(node: ast.Node, own: frozenset[str]) -> list[Reference]:
    """The names below a node, but for those that mean something there."""
    found: list[Reference] = []
    _add(node, own, found)
    return found


def _add(node: ast.Node, own: frozenset[str], found: list[Reference]) -> None:
    if isinstance(node, ast.Component):
        if node.name[0] not in own:
            found.append(Reference(node.name, node.name_span))
        if node.body is not None:
            own = own | _labels(node)
        elif node.arguments is None:  # a bare name, as most are
            return
    for child in node.children():
        _add(child, own, found)


def _labels(component: ast.Component) -> frozenset[str]:
    """Names that are taken as they stand inside a component: its labels, a cell's own names."""
    assert component.body is not None
    labels = [i.label for i in component.body.items if isinstance(i, ast.Layer) and i.label]
    targets = [i.target for i in component.body.items if isinstance(i, ast.Equation)]
    if any(argument.name == "cycle" for argument in component.arguments or ()):
        return frozenset([*labels, *targets])
    return frozenset([*targets, *INPUTS]) if targets else frozenset()


# --- names that nothing reads ---------------------------------------------------------------------


def _idle(scope: Scope, report: Report) -> None:
    """Warn of names that nothing reads; a file without a model is there to be used by others."""
    items = scope.program.items
    for item in items:
        if isinstance(item, ast.Def):
            _idle_parameters(item, report)
    if not any(isinstance(item, ast.Model) for item in items):
        return
    read = {reference.name[0] for item in items for reference in _item_references(item)}
    for item in items:
        if isinstance(item, ast.Let | ast.Def) and item.name not in read:
            what = "value" if isinstance(item, ast.Let) else "definition"
            report.add(_unused(f"nothing uses the {what} `{item.name}`", item.name_span))
    for item in items:
        if isinstance(item, ast.Use) and alias_of(item) not in read:
            report.add(_unused(f"nothing uses the file `{alias_of(item)}`", item.span))


def _item_references(item: ast.Item) -> Iterator[Reference]:
    if isinstance(item, ast.Let | ast.Def):
        yield from (r for r in references(item) if r.name[0] != item.name)
    else:
        yield from _read(item, frozenset())


def _idle_parameters(item: ast.Def, report: Report) -> None:
    meaning = item.body if item.value is None else item.value
    assert meaning is not None
    defaults = [p.default for p in item.parameters or () if p.default is not None]
    read = {r.name[0] for node in [meaning, *defaults] for r in _read(node, frozenset())}
    for parameter in item.parameters or ():
        if parameter.name not in read:
            message = f"`{item.name}` does nothing with its parameter `{parameter.name}`"
            report.add(_unused(message, parameter.span))


def _unused(message: str, span: Span) -> Diagnostic:
    return Diagnostic("unused-name", message, span, severity=WARNING)


# --- circles --------------------------------------------------------------------------------------


def _circles(main: Scope, report: Report) -> set[int]:
    """Report definitions that need themselves, each circle once."""
    graph = {
        id(definition): _edges(scope, definition)
        for scope in scopes_of(main)
        for definition in scope.definitions.values()
    }
    found: set[int] = set()
    for circle in _strong(graph):
        found |= set(circle)
        report.add(_circle(circle, graph))
    return found


Edge = tuple[int, Reference, Definition]


def _edges(scope: Scope, definition: Definition) -> list[Edge]:
    edges = []
    for reference in references(definition):
        target = scope.find(reference.name)
        if target is not None and not target[0].library:
            edges.append((id(target[1]), reference, target[1]))
    return edges


def _strong(graph: Mapping[int, Sequence[Edge]]) -> Iterator[list[int]]:
    """The circles: sets of definitions that all lead to each other."""
    reach = _Strong({node: [target for target, _, _ in edges] for node, edges in graph.items()})
    for group in reach.groups():
        if len(group) > 1 or group[0] in reach.graph[group[0]]:
            yield group


class _Strong:
    """Tarjan's strongly connected components, without recursion."""

    def __init__(self, graph: Mapping[int, Sequence[int]]) -> None:
        self.graph = graph

    def groups(self) -> Iterator[list[int]]:
        order = self._finished(self.graph)
        reverse: dict[int, list[int]] = {node: [] for node in self.graph}
        for node, targets in self.graph.items():
            for target in targets:
                reverse[target].append(node)
        seen: set[int] = set()
        for node in reversed(order):
            group = self._reached(node, reverse, seen)
            if group:
                yield group[::-1]

    def _finished(self, graph: Mapping[int, Sequence[int]]) -> list[int]:
        done: list[int] = []
        seen: set[int] = set()
        for root in graph:
            stack: list[tuple[int, bool]] = [(root, False)]
            while stack:
                node, left = stack.pop()
                if left:
                    done.append(node)
                elif node not in seen:
                    seen.add(node)
                    stack.append((node, True))
                    stack += [(target, False) for target in graph[node]]
        return done

    def _reached(self, root: int, graph: Mapping[int, Iterable[int]], seen: set[int]) -> list[int]:
        group, stack = [], [root]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                group.append(node)
                stack += graph[node]
        return group


def _circle(circle: Sequence[int], graph: Mapping[int, Sequence[Edge]]) -> Diagnostic:
    """The diagnostic of one circle, at the name that closes it."""
    inside = [edge for node in circle for edge in graph[node] if edge[0] in circle]
    names = list(dict.fromkeys(edge[2].name for edge in inside))
    _, reference, _ = max(inside, key=lambda edge: (edge[1].span.line, edge[1].span.column))
    name = reference.name[-1]
    if len(names) == 1:
        message = f"`{name}` is defined by itself"
    else:
        message = (
            f"{', '.join(f'`{n}`' for n in names[:-1])} and `{names[-1]}` are defined by each other"
        )
    return Diagnostic(
        "recursion",
        message,
        reference.span,
        help="a definition is written out where it is used, so it cannot contain itself;"
        " `repeat` and `stack` repeat layers",
    )
