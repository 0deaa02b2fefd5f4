"""Fusions: one matrix product for projections of one input, one operation for a norm and its gate."""

from __future__ import annotations

from archdsl.blocks.base import Value
from archdsl.blocks.ops.dense import Gate, GatedNorm, Linear, MergedLinear, Norm
from archdsl.compiler.graph import Graph, Node, Now, Replacement


def merge_projections(graph: Graph) -> Graph:
    """Projections that read the same value become one; each keeps its weights and their names."""
    return graph.rebuilt(_merge)


def _merge(old: Graph, node: Node, now: Now) -> Replacement | None:
    if not isinstance(node.op, Linear):
        return None
    group = _siblings(old, old[node.name])
    if len(group) < 2:
        return None
    merged = _merged(group, node.inputs)
    position = [member.name for member in group].index(node.name)
    return Replacement(() if position else (merged,), (merged.value(position),))


def _siblings(graph: Graph, node: Node) -> list[Node]:
    """The projections of one component that read what ``node`` reads, itself among them."""
    scope = _scope(node)
    return [
        reader
        for reader in graph.readers(node.inputs[0])
        if isinstance(reader.op, Linear) and _scope(reader) == scope
    ]


def _scope(node: Node) -> str:
    return node.name.rpartition(".")[0]


def _merged(group: list[Node], inputs: tuple[Value, ...]) -> Node:
    names = tuple(member.name.rpartition(".")[2] for member in group)
    parts = tuple(member.op for member in group if isinstance(member.op, Linear))
    op = MergedLinear(parts=parts, names=names)
    scope = _scope(group[0])
    name = f"{scope}.projections" if scope else "projections"
    types = op.outputs([inputs[0].type])
    note = f"{len(parts)} projections of one input as one product"
    return Node(name, op, inputs, types, notes=(note,))


def fuse_epilogues(graph: Graph) -> Graph:
    """``norm → gate`` and ``gate → norm`` become one operation, named after the norm."""
    return graph.rebuilt(_fuse)


def _fuse(old: Graph, node: Node, now: Now) -> Replacement | None:
    """The second of a pair becomes the pair, and the first is dropped."""
    if not isinstance(node.op, Norm | Gate):
        return None
    before = old[node.name]
    if _second(old, before) is not None:
        return Replacement((), (node.inputs[0],))
    first = _first(old, before)
    return None if first is None else Replacement.by(_pair(first, before, now))


def _second(graph: Graph, node: Node) -> Node | None:
    """The gate that alone reads a norm, or the norm that alone reads a gate."""
    reader = graph.only_reader(node.value())
    if reader is None or reader.inputs[0] != node.value():
        return None
    return reader if {type(node.op), type(reader.op)} == {Norm, Gate} else None


def _first(graph: Graph, node: Node) -> Node | None:
    source = node.inputs[0].node
    if source not in graph:
        return None
    return graph[source] if _second(graph, graph[source]) == node else None


def _pair(first: Node, second: Node, now: Now) -> Node:
    norm, gate = (first, second) if isinstance(first.op, Norm) else (second, first)
    assert isinstance(norm.op, Norm)
    assert isinstance(gate.op, Gate)
    op = GatedNorm(norm=norm.op, function=gate.op.function, gate_first=first is gate)
    inputs = (now(first.inputs[0]), now(gate.inputs[1]))
    types = op.outputs([value.type for value in inputs])
    return Node(norm.name, op, inputs, types, notes=("norm and gate as one operation",))
