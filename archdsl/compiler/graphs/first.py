"""What only the first of several layers does: it hands its values on, and has none to take.

A layer whose values are mixed with the first layer's (RWKV-7) cannot mix its own with themselves: for
the first layer to run the operation would be the identity, with parameters that nothing trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from archdsl.blocks.base import Value
from archdsl.blocks.ops.memory import FirstValue, ValueResidual
from archdsl.blocks.ops.structure import Layers
from archdsl.compiler.graphs.graph import Graph, Node

Seen = frozenset[int]
"""Widths of which values were handed on before."""


def settle_first(graph: Graph) -> Graph:
    """The graph in which the first value residual of each width only hands its values on.

    A copy of weights that also runs later keeps its parameters.
    """
    if ValueResidual not in graph.classes:
        return graph
    return _First().region(graph, frozenset())[0]


class _First:
    """Rebuilds regions once for each set of widths that came before them."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, Seen], tuple[Graph, Seen]] = {}

    def region(self, old: Graph, seen: Seen) -> tuple[Graph, Seen]:
        """The new region, and the widths behind it."""
        key = (id(old), seen)
        if key not in self.known:
            self.known[key] = self._region(old, seen)
        return self.known[key]

    def _region(self, old: Graph, seen: Seen) -> tuple[Graph, Seen]:
        new, changed = Graph(old.stream), False
        for node in old.nodes():
            made, seen = self._node(node, seen)
            changed = changed or made is not node
            new.add(made)
        new.output = old.output
        return (new if changed else old), seen

    def _node(self, node: Node, seen: Seen) -> tuple[Node, Seen]:
        if isinstance(node.op, ValueResidual):
            first = node.op.width not in seen
            return (_handing_on(node) if first else node), seen | {node.op.width}
        return self._hosted(node, seen) if node.regions else (node, seen)

    def _hosted(self, node: Node, seen: Seen) -> tuple[Node, Seen]:
        """An operation with regions: each copy of weights as its runs need it."""
        copies = node.op.weights(len(node.regions))
        versions: dict[int, Graph] = {}
        for copy in node.op.runs(len(node.regions)):
            made, after = self.region(node.regions[copies[copy]], seen)
            known = versions.get(copy, made)
            versions[copy] = known if known is made else node.regions[copies[copy]]
            seen = after
        return _with_regions(node, [versions[copy] for copy in range(len(copies))]), seen


def _handing_on(node: Node) -> Node:
    value: Value = node.inputs[0]
    assert isinstance(node.op, ValueResidual)
    return replace(node, op=FirstValue(width=node.op.width), inputs=(value,))


def _with_regions(node: Node, graphs: Sequence[Graph]) -> Node:
    """The node with a region for each copy of weights, equal ones once."""
    distinct = list({id(graph): graph for graph in graphs}.values())
    if all(graph in node.regions for graph in distinct):
        return node
    if not isinstance(node.op, Layers):
        return replace(node, regions=tuple(graphs))
    index = {id(graph): place for place, graph in enumerate(distinct)}
    op = node.op.model_copy(update={"copies": tuple(index[id(graph)] for graph in graphs)})
    return replace(node, op=op, regions=tuple(distinct))
