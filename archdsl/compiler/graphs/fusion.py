"""Fusions: operations that stand next to each other as one, which makes fewer passes over memory.

Each pass only says which operations are one; what computes it is chosen where it runs, by device and
dtype (``archdsl.kernels.shell``). Parameters keep their names.
"""

from __future__ import annotations

from archdsl.blocks.base import Value
from archdsl.blocks.op import Op
from archdsl.blocks.ops.dense import (
    Convolution,
    Gate,
    GatedNorm,
    GatedUnit,
    HeadNormalise,
    Linear,
    MergedLinear,
    Norm,
)
from archdsl.blocks.ops.routing import CopiedLinear, Reroute, RoutedFilter
from archdsl.blocks.ops.structure import ResidualSum
from archdsl.compiler.graphs.graph import Graph, Node, Now, Replacement

GATES = ("none", "sigmoid", "silu")
"""Activations of which a gated unit has fused forms."""


def merge_projections(graph: Graph) -> Graph:
    """Projections that read the same value become one; each keeps its weights and their names."""
    return graph.rebuilt(_merge, Linear)


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
    types = op.outputs([inputs[0].type])
    note = f"{len(parts)} projections of one input as one product"
    return Node(_joint_name(group[0]), op, inputs, types, notes=(note,))


def _joint_name(node: Node) -> str:
    """``projections`` of a component's input; of something inside it, with its name and port."""
    scope, (source, *_) = _scope(node), node.inputs
    if scope and source.node.startswith(f"{scope}."):
        return f"{source.node}_projections" + (f"_{source.port}" if source.port else "")
    return f"{scope}.projections" if scope else "projections"


def fuse(graph: Graph) -> Graph:
    """Every fusion below, one after the other."""
    for one in (fuse_prologues, fuse_writes, fuse_units, fuse_epilogues, fuse_residuals):
        graph = one(graph)
    return graph


def fuse_epilogues(graph: Graph) -> Graph:
    """``norm → gate`` and ``gate → norm`` become one operation, named after the norm."""
    return graph.rebuilt(_fuse, Norm, Gate)


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
    if not {Norm, Gate} <= graph.kinds:
        return None
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


def fuse_prologues(graph: Graph) -> Graph:
    """``convolution → unit length`` becomes one operation, named after the convolution."""
    return graph.rebuilt(_fuse_prologue, Convolution, HeadNormalise)


def _fuse_prologue(old: Graph, node: Node, now: Now) -> Replacement | None:
    before = old[node.name]
    unit = _unit_behind(old, before)
    if unit is not None:
        op = node.op.model_copy(update={"unit_heads": unit.heads})
        note = "convolution, activation and unit length as one operation"
        return Replacement.by(Node(node.name, op, node.inputs, node.types, notes=(note,)))
    if isinstance(node.op, HeadNormalise) and before.inputs[0].node in old:
        first = old[before.inputs[0].node]
        if _unit_behind(old, first) == node.op:
            return Replacement((), (node.inputs[0],))
    return None


def _unit_behind(graph: Graph, node: Node) -> HeadNormalise | None:
    """The normalisation that alone reads a causal convolution."""
    if not isinstance(node.op, Convolution) or not node.op.causal or node.op.unit_heads:
        return None
    reader = graph.only_reader(node.value())
    op = None if reader is None else reader.op
    return op if isinstance(op, HeadNormalise) and op.form == "l2_norm" else None


def fuse_writes(graph: Graph) -> Graph:
    """Each memory's projection, its convolution and the rows that arrive become one operation."""
    return graph.rebuilt(_fuse_write, CopiedLinear, Convolution, Reroute)


def _fuse_write(old: Graph, node: Node, now: Now) -> Replacement | None:
    parts = _write(old, old[node.name])
    if parts is None:
        return None
    linear, filtering, reroute = parts
    if node.name != reroute.name:
        return Replacement((), (node.inputs[0],))
    assert isinstance(linear.op, CopiedLinear)
    assert isinstance(filtering.op, Convolution)
    names = (linear.name.rpartition(".")[2], filtering.name.rpartition(".")[2])
    op = RoutedFilter(linear=linear.op, filter=filtering.op, names=names)
    note = "projection, convolution and the rows that arrive as one operation"
    inputs = (now(linear.inputs[0]),)
    return Replacement.by(Node(filtering.name, op, inputs, node.types, notes=(note,)))


def _write(graph: Graph, node: Node) -> tuple[Node, Node, Node] | None:
    """Projection, convolution and rerouting that nobody else reads, if ``node`` is one of them."""
    while not isinstance(node.op, CopiedLinear):
        if node.inputs[0].node not in graph or not isinstance(node.op, Convolution | Reroute):
            return None
        node = graph[node.inputs[0].node]
    if node.op.source != "text" or node.op.bias:
        return None
    filtering = _only(graph, node, Convolution)
    reroute = None if filtering is None else _only(graph, filtering, Reroute)
    if filtering is None or reroute is None or _scope(filtering) != _scope(node):
        return None
    return node, filtering, reroute


def _only(graph: Graph, node: Node, kind: type[Op]) -> Node | None:
    """What alone reads an operation's output, if it is of a kind."""
    reader = graph.only_reader(node.value())
    return reader if reader is not None and isinstance(reader.op, kind) else None


def fuse_units(graph: Graph) -> Graph:
    """Two merged projections whose only reader is a gate become one operation with it."""
    return graph.rebuilt(_fuse_unit, MergedLinear, Gate)


def _fuse_unit(old: Graph, node: Node, now: Now) -> Replacement | None:
    before = old[node.name]
    if isinstance(node.op, MergedLinear) and _gate_of(old, before) is not None:
        return Replacement((), (node.inputs[0],) * 2)
    if not isinstance(node.op, Gate) or before.inputs[0].node not in old:
        return None
    merged = old[before.inputs[0].node]
    if _gate_of(old, merged) != before:
        return None
    assert isinstance(merged.op, MergedLinear)
    swapped = before.inputs[1].port == 1
    op = GatedUnit(merged=merged.op, function=node.op.function, swapped=swapped)
    inputs = (now(merged.inputs[0]),)
    types = op.outputs([inputs[0].type])
    notes = (*merged.notes, "and their gate as one operation")
    return Replacement.by(Node(merged.name, op, inputs, types, notes=notes))


def _gate_of(graph: Graph, node: Node) -> Node | None:
    """The gate that alone reads two merged projections as wide as each other."""
    if not isinstance(node.op, MergedLinear) or len(node.op.parts) != 2:
        return None
    left, right = node.op.parts
    readers = {id(reader): reader for port in (0, 1) for reader in graph.readers(node.value(port))}
    alike = left.width_out == right.width_out and left.bias == right.bias
    gate = next(iter(readers.values()), None)
    if not alike or gate is None or len(readers) > 1 or graph.output.node == node.name:
        return None
    asked = isinstance(gate.op, Gate) and gate.op.function in GATES
    ports = {value.port for value in gate.inputs}
    return gate if asked and ports == {0, 1} else None


def fuse_residuals(graph: Graph) -> Graph:
    """A residual addition moves into the next residual, next to the norm its branch begins with."""
    return graph.rebuilt(_fuse_residual, ResidualSum)


def _fuse_residual(old: Graph, node: Node, now: Now) -> Replacement | None:
    if not isinstance(node.op, ResidualSum):
        return None
    before = old[node.name]
    behind, ahead = _norm_behind(old, before) is not None, _sum_ahead(old, before)
    if not behind and ahead is None:
        return None
    op = node.op.model_copy(update={"deferred": behind, "pending": ahead is not None})
    inputs = node.inputs
    notes = node.notes
    if ahead is not None:
        stream = now(ahead.value())
        inputs = (Value(stream.node, 0, stream.type), Value(stream.node, 1, stream.type))
        notes = (*notes, "the addition before it and its norm as one operation")
    types = op.outputs([value.type for value in inputs])
    made = Node(node.name, op, inputs, types, node.regions, notes)
    return Replacement((made,), (made.value(0),))


def _norm_behind(graph: Graph, node: Node) -> Node | None:
    """The residual that alone reads this one, and begins with a norm that alone reads its stream."""
    reader = graph.only_reader(node.value())
    if reader is None or not isinstance(reader.op, ResidualSum) or reader.op.pending:
        return None
    region = reader.regions[0]
    readers = region.readers(region.input)
    if region.output == region.input or len(readers) != 1 or region.nodes()[0] != readers[0]:
        return None
    norm = readers[0].op
    plain = isinstance(norm, Norm) and norm.norm == "rms" and not norm.bias and norm.groups == 1
    return reader if plain else None


def _sum_ahead(graph: Graph, node: Node) -> Node | None:
    """The residual whose addition this one does."""
    source = node.inputs[0].node
    if source not in graph or not isinstance(graph[source].op, ResidualSum):
        return None
    return graph[source] if _norm_behind(graph, graph[source]) == node else None
