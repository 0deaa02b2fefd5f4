"""The graph of a lowered architecture: typed operations on networkx, regions inside regions.

A graph is one region: it takes one stream and gives one. Nobody outside this file touches the
networkx attributes. Nodes are frozen; a pass builds a new graph (see :meth:`Graph.rebuilt`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import is_
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from archdsl.blocks.base import Value
from archdsl.blocks.op import Op, Type

if TYPE_CHECKING:
    from networkx import MultiDiGraph

INPUT = "input"

Found = TypeVar("Found")


@dataclass(frozen=True)
class Node:
    """One operation in place.

    Args:
        name: unique in its region; the path of its parameters in ``state_dict``.
        op: what it does, with all attributes.
        inputs: ports it reads, in order.
        types: types of its outputs.
        regions: for an operation with regions, the distinct ones (see ``Op.weights``).
        notes: what passes have to say about it ("Gated DeltaNet: …").
    """

    name: str
    op: Op
    inputs: tuple[Value, ...]
    types: tuple[Type, ...]
    regions: tuple[Graph, ...] = ()
    notes: tuple[str, ...] = ()

    def value(self, port: int = 0) -> Value:
        """One of its outputs."""
        return Value(self.name, port, self.types[port])

    def noted(self, note: str) -> Node:
        """The node with one more note."""
        return replace(self, notes=(*self.notes, note))


class Graph:
    """One region. ``input`` is the stream it takes; :attr:`output` the value it gives.

    Nodes are kept in the order they were added, which puts each behind those it reads. The networkx
    view is made when something asks who reads what: a cost needs only the order. A region is finished
    when an operation takes it: graphs share regions, so what is known of one is kept with it.
    """

    def __init__(self, stream: Type) -> None:
        self.stream = stream
        self._nodes: dict[str, Node] = {}
        self._output: Value | None = None
        self._forget()

    def _forget(self) -> None:
        """Drop what was found out about the region, which changes."""
        self._found: WeakKeyDictionary[Callable[..., object], Any] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_found"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def once(self, question: Callable[..., object], find: Callable[[], Found]) -> Found:
        """What ``find`` answers to a question; asked once, while the region and who asks are there."""
        try:
            found: Found = self._found[question]
        except KeyError:
            found = self._found[question] = find()
        return found

    @property
    def input(self) -> Value:
        """The stream at the region's entrance."""
        return Value(INPUT, 0, self.stream)

    @property
    def output(self) -> Value:
        """What the region gives; an empty region gives what it takes."""
        return self._output or self.input

    @output.setter
    def output(self, value: Value) -> None:
        self._output = value
        if self._found:
            self._forget()

    def add(self, node: Node) -> Node:
        """Put a node in; its inputs must be there."""
        taken = node.name in self._nodes or node.name == INPUT
        assert not taken, f"two nodes are named {node.name}"
        for value in node.inputs:
            known = value.node == INPUT or value.node in self._nodes
            assert known, f"{node.name} reads {value.node}, which is not there"
        self._nodes[node.name] = node
        if self._found:
            self._forget()
        return node

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def names(self) -> list[str]:
        """The nodes' names, in the order they were added."""
        return list(self._nodes)

    def nodes(self) -> list[Node]:
        """Every node, each behind those it reads."""
        return list(self._nodes.values())

    def regions(self) -> Iterator[Graph]:
        """The regions its operations have."""
        return (region for node in self._nodes.values() for region in node.regions)

    @property
    def classes(self) -> frozenset[type[Op]]:
        """The classes of its operations, with those of the regions inside."""
        return self.once(_classes, lambda: _classes(self))

    @property
    def kinds(self) -> frozenset[type[Op]]:
        """The classes of its own operations."""
        return self.once(_kinds, lambda: _kinds(self))

    @property
    def network(self) -> MultiDiGraph:
        """The region as a networkx graph: an edge an input, with the port it reads."""
        return self.once(_connected, lambda: _connected(self))

    def readers(self, value: Value) -> list[Node]:
        """The nodes that read a value; the region's own output is not among them."""
        edges = self.network.out_edges(value.node, data="port")
        names = dict.fromkeys(target for _, target, port in edges if port == value.port)
        return [self[name] for name in names]

    def only_reader(self, value: Value) -> Node | None:
        """The one node that reads a value, if nothing else does."""
        readers = self.readers(value)
        return readers[0] if len(readers) == 1 and value != self.output else None

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Every node of this region and those inside it, with its path; each region once."""
        seen: set[int] = set()
        yield from self._walk("", seen)

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Node]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        for node in self.nodes():
            path = f"{prefix}{node.name}"
            yield path, node
            for index, region in enumerate(node.regions):
                inner = f"{path}." if len(node.regions) == 1 else f"{path}[{index}]."
                yield from region._walk(inner, seen)

    def rebuilt(self, rewrite: Rewrite, *kinds: type[Op]) -> Graph:
        """A graph in which ``rewrite`` has replaced nodes, in this region and all inside it.

        ``rewrite(old, node, now)`` is asked for every node of the ``kinds`` (of any, if none is named) in
        order: ``old`` is the region as it was, ``node`` reads from the region under construction, and
        ``now`` translates a value of the one to the other. ``None`` keeps the node. A
        :class:`Replacement` takes its place. A region in which nothing changes stays the object it is.
        """
        return _Rebuild(rewrite, kinds or (Op,)).region(self)

    def verify(self) -> None:
        """Raise where the graph is not valid: a compiler's bug, never a user's mistake.

        A region that was found valid and has not changed is not read again.
        """
        self.once(_valid, lambda: _valid(self))

    def _verify(self) -> None:
        seen = {INPUT}
        for node in self.nodes():
            assert {value.node for value in node.inputs} <= seen, f"{node.name} reads ahead"
            seen.add(node.name)
            types = tuple(node.op.outputs([value.type for value in node.inputs]))
            assert types == node.types, f"{node.name}: {node.types} is not {types}"
            for value in node.inputs:
                assert value.type == self._type(value), f"{node.name} reads {value} as another type"
            known = range(len(node.regions))
            weights = node.op.weights(len(known)) if known else ()
            assert set(weights) <= set(known), f"{node.name} runs a region that it does not have"
        assert self.output.type == self._type(self.output), "the output has another type"

    def _type(self, value: Value) -> Type | None:
        """The type of a port; ``None`` where there is no such port."""
        if value.node == INPUT:
            return self.stream if value.port == 0 else None
        types = self[value.node].types if value.node in self else ()
        return types[value.port] if value.port < len(types) else None

    def text(self) -> str:
        """The graph as lines, a region indented below the operation that runs it."""
        return "\n".join(_Printer().lines(self))


def _kinds(region: Graph) -> frozenset[type[Op]]:
    return frozenset(type(node.op) for node in region.nodes())


def _classes(region: Graph) -> frozenset[type[Op]]:
    return region.kinds.union(*(each.classes for each in region.regions()))


def _connected(region: Graph) -> MultiDiGraph:
    from networkx import MultiDiGraph  # 0.1 s that checking a file does not need

    network = MultiDiGraph()
    network.add_node(INPUT)
    for node in region.nodes():
        network.add_node(node.name)
        for index, value in enumerate(node.inputs):
            network.add_edge(value.node, node.name, index=index, port=value.port)
    return network


def _valid(region: Graph) -> bool:
    """Raise where a region, or one inside it, is not valid."""
    for inner in region.regions():
        inner.verify()
    region._verify()
    return True


@dataclass(frozen=True)
class Replacement:
    """What stands for a node in a rebuilt graph.

    Args:
        nodes: nodes to add, each behind those it reads.
        values: what readers of the old node's outputs read now, an output each.
    """

    nodes: tuple[Node, ...]
    values: tuple[Value, ...]

    @classmethod
    def by(cls, *nodes: Node) -> Replacement:
        """Nodes whose last one gives the same outputs."""
        return cls(nodes, tuple(nodes[-1].value(port) for port in range(len(nodes[-1].types))))


Now = Callable[[Value], Value]
Rewrite = Callable[[Graph, Node, Now], Replacement | None]


@lru_cache(4096)
def _asked(classes: frozenset[type[Op]], kinds: tuple[type[Op], ...]) -> frozenset[type[Op]]:
    """Which of the classes are of the kinds; asking pydantic's classes takes its time."""
    return frozenset(cls for cls in classes if issubclass(cls, kinds))


class _Rebuild:
    """Rebuilds regions once each, so that shared regions stay shared."""

    def __init__(self, rewrite: Rewrite, kinds: tuple[type[Op], ...]) -> None:
        self.rewrite, self.kinds = rewrite, kinds

    def region(self, old: Graph) -> Graph:
        """The region that stands for an old one."""
        return old.once(self.rewrite, lambda: self._region(old))

    def _region(self, old: Graph) -> Graph:
        asked = _asked(old.classes, self.kinds)
        if not asked:
            return old
        new, changed = Graph(old.stream), False
        moved: dict[tuple[str, int], Value] = {}

        def now(value: Value) -> Value:
            return moved.get((value.node, value.port), value) if moved else value

        if not (asked & old.kinds or any(self.region(r) is not r for r in old.regions())):
            return old
        for node in old.nodes():
            kept = self._kept(node, now) if moved or node.regions else node
            replacement = self.rewrite(old, kept, now) if type(node.op) in asked else None
            changed |= replacement is not None or kept is not node
            if replacement is None:
                new.add(kept)
                continue
            for part in replacement.nodes:
                new.add(part)
            for port, value in enumerate(replacement.values):
                moved[node.name, port] = value
        new.output = now(old.output)
        return new if changed else old

    def _kept(self, node: Node, now: Now) -> Node:
        """The node as it reads the new region and has the new regions; itself if that is no change."""
        inputs, regions = tuple(map(now, node.inputs)), tuple(map(self.region, node.regions))
        same = all(map(is_, inputs, node.inputs)) and all(map(is_, regions, node.regions))
        return node if same else replace(node, inputs=inputs, regions=regions)


class _Printer:
    """Prints a graph; a region that several operations share is printed once."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}

    def lines(self, graph: Graph, indent: str = "") -> Iterator[str]:
        """One line an operation."""
        for node in graph.nodes():
            yield indent + self._line(node)
            for region in node.regions:
                yield from self._region(region, indent + "    ")
        yield f"{indent}give {self._value(graph.output)}"

    def _region(self, region: Graph, indent: str) -> Iterator[str]:
        if id(region) in self.seen:
            yield f"{indent}region #{self.seen[id(region)]} again"
            return
        self.seen[id(region)] = len(self.seen)
        yield f"{indent}region #{self.seen[id(region)]} of {region.stream}"
        yield from self.lines(region, indent + "    ")

    def _value(self, value: Value) -> str:
        return value.node if value.port == 0 else f"{value.node}.{value.port}"

    def _line(self, node: Node) -> str:
        inputs = ", ".join(map(self._value, node.inputs))
        types = ", ".join(map(str, node.types))
        attributes = f" {{{node.op.attributes}}}" if node.op.attributes else ""
        notes = f"    # {'; '.join(node.notes)}" if node.notes else ""
        return f"{node.name} = {node.op.kind()}({inputs}){attributes} : {types}{notes}"
