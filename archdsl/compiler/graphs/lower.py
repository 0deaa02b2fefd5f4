"""Closed architecture → graph: every component adds its operations, each distinct region once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from archdsl.blocks.base import LARGEST, Region, ResidualPolicy, Value
from archdsl.blocks.op import Op, Type
from archdsl.blocks.ops.structure import ResidualSum
from archdsl.compiler.graphs.first import settle_first
from archdsl.compiler.graphs.graph import INPUT, Graph, Node, Now, Replacement
from archdsl.compiler.graphs.route import routed
from archdsl.compiler.terms.elements import Element, Visit


def lower(root: Sequence[Element], symbols: int, regions: Regions | None = None) -> Graph:
    """The graph of a model that reads tokens of a vocabulary.

    Args:
        root: the model's layers in order.
        symbols: the task's vocabulary; 0 where there is no task.
        regions: of architectures that share elements with this one.
    """
    regions = regions or Regions()
    return settle_first(regions.sequence(tuple(root), Type("tokens", symbols), None))


class Regions:
    """Lowers sequences of elements, and keeps them alive, since it knows them by identity."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, Type, ResidualPolicy | None], tuple[Graph, object]] = {}

    def lower(
        self, elements: tuple[Element, ...], stream: Type, policy: ResidualPolicy | None
    ) -> Graph:
        """The graph of a sequence; the same object for the same elements and stream."""
        key = (id(elements), stream, policy)
        if key not in self.known:
            self.known[key] = (self.sequence(elements, stream, policy), elements)
        return self.known[key][0]

    def sequence(
        self, elements: tuple[Element, ...], stream: Type, policy: ResidualPolicy | None
    ) -> Graph:
        """The graph of a sequence that is not to be known again."""
        graph = Graph(stream)
        build = GraphBuilder(graph, policy)
        value = graph.input
        for element in elements:
            scope = build.within(element.name)
            value = element.component.lower(scope, value, _Children(self, element))
        graph.output = value
        return routed(graph)


class _Children:
    """The visits of one container element, as its component sees them."""

    def __init__(self, regions: Regions, element: Element) -> None:
        self.regions, self.element = regions, element

    @property
    def labels(self) -> tuple[str | None, ...]:
        """One a visit."""
        return tuple(visit.label for visit in self.element.visits)

    def lower(self, visit: int, stream: Type, policy: ResidualPolicy | None = None) -> Region:
        """The graph of one visit."""
        chosen: Visit = self.element.visits[visit]
        return self.regions.lower(chosen.elements, stream, policy)


class GraphBuilder:
    """Adds operations to one region, under the name of the component that is being lowered."""

    def __init__(self, graph: Graph, policy: ResidualPolicy | None, scope: str = "") -> None:
        self.graph, self._policy, self.scope = graph, policy, scope

    @property
    def policy(self) -> ResidualPolicy | None:
        """The surrounding region's, if there is one."""
        return self._policy

    def within(self, name: str) -> GraphBuilder:
        """A builder for one component; a second one of the same name gets a number."""
        taken = {node.split(".")[0] for node in self.graph.names()}
        number, free = 1, name
        while free in taken:
            number, free = number + 1, f"{name}_{number}"
        return GraphBuilder(self.graph, self._policy, free)

    def add(
        self, op: Op, *inputs: Value, name: str | None = None, regions: Sequence[Region] = ()
    ) -> Value:
        """An operation with one output."""
        return self._node(op, inputs, name, regions).value()

    def add_many(self, op: Op, *inputs: Value, name: str | None = None) -> tuple[Value, ...]:
        """An operation with several outputs."""
        node = self._node(op, inputs, name, ())
        return tuple(node.value(port) for port in range(len(node.types)))

    def changed(self, region: Region, change: Callable[[Op], Op], *, ends: bool = False) -> Region:
        """The region with another operation in the place of each, or of those that end a branch."""
        assert isinstance(region, Graph)
        if ends:
            return region.rebuilt(partial(_ended, change), ResidualSum)
        return region.rebuilt(
            lambda old, node, now: Replacement.by(replace(node, op=change(node.op)))
        )

    def inlined(self, region: Region, stream: Value) -> Value:
        """The region's nodes in this one, their names behind the component's."""
        assert isinstance(region, Graph)
        moved = {INPUT: (stream.node, stream.port)}

        def here(value: Value) -> Value:
            node, port = moved.get(value.node, (f"{self.scope}.{value.node}", value.port))
            return replace(value, node=node, port=port)

        for node in region.nodes():
            inputs = tuple(map(here, node.inputs))
            self.graph.add(replace(node, name=f"{self.scope}.{node.name}", inputs=inputs))
        return here(region.output)

    def _node(
        self, op: Op, inputs: tuple[Value, ...], name: str | None, regions: Sequence[Region]
    ) -> Node:
        full = f"{self.scope}.{name}" if name else self.scope
        types = tuple(op.outputs([value.type for value in inputs]))
        assert all(0 < t.width <= LARGEST for t in types), f"{full} has no width"
        graphs = tuple(region for region in regions if isinstance(region, Graph))
        return self.graph.add(Node(full, op, inputs, types, graphs))


def _ended(change: Callable[[Op], Op], old: Graph, node: Node, now: Now) -> Replacement:
    """An operation whose branches end in another one."""
    return Replacement.by(replace(node, regions=tuple(_end(r, change) for r in node.regions)))


def _end(region: Graph, change: Callable[[Op], Op]) -> Graph:
    """A region whose output comes from another operation; of one with regions, those regions' outputs."""

    def rewrite(old: Graph, node: Node, now: Now) -> Replacement | None:
        if old is not region or node.name != region.output.node:
            return None
        if node.regions:
            return Replacement.by(
                replace(node, regions=tuple(_end(inner, change) for inner in node.regions))
            )
        return Replacement.by(replace(node, op=change(node.op)))

    return region.rebuilt(rewrite)
