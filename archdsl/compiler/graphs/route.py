"""A region inside ``mom`` or ``moe``: which of its operations run for which rows, made explicit.

Lowered, such a region reads as if there were one memory. Here projections become the memories' own
where what they give is written, every value gets a form (see ``op.Routed``), and a ``Reroute`` stands
wherever an operation needs another form than it is given:

- a memory runs on ``packed`` rows, and what it gives is summed back to ``text``;
- what looks at neighbouring tokens in front of it (a convolution, a rotation by position) sees the
  text: it runs on ``every`` row where the projection before it is the memories' own;
- what stands between that and the memory runs on the rows that arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from archdsl.blocks.base import Value
from archdsl.blocks.op import Form, Op, Routed
from archdsl.blocks.ops.attention import Rotary
from archdsl.blocks.ops.cell import CellRecurrence
from archdsl.blocks.ops.dense import Convolution, HeadNormalise, Linear
from archdsl.blocks.ops.memory import FirstValue, Memory, RunningSoftmax, ValueResidual
from archdsl.blocks.ops.routing import CopiedLinear, IdleDecay, Reroute
from archdsl.compiler.graphs.graph import INPUT, Graph, Node

MEMORIES: tuple[type[Op], ...] = (Memory, CellRecurrence, RunningSoftmax)
"""What keeps a state of the tokens it takes."""

COMMON: tuple[type[Op], ...] = (ValueResidual, FirstValue)
"""What hands values on from layer to layer: they are the same for all memories."""

Names = frozenset[str]


def routed(graph: Graph) -> Graph:
    """The region with forms made explicit; one outside of routed containers as it is."""
    how = graph.stream.routed
    if how is None:
        return graph
    packed: dict[str, Form] = dict.fromkeys(graph.names(), how.form)
    forms = packed if how.form == "packed" else _forms(graph, how)
    return _Rewrite(graph, how, forms).graph()


def _forms(graph: Graph, how: Routed) -> dict[str, Form]:
    """The form each operation runs on; what stands in no mixer runs on text."""
    mixers: dict[str, list[Node]] = {}
    for node in graph.nodes():
        mixers.setdefault(node.name.rpartition(".")[0], []).append(node)
    found: dict[str, Form] = {}
    for nodes in mixers.values():
        found |= _Mixer(nodes, how).forms()
    return found


class _Mixer:
    """The operations of one component, and which of them stand where around its memory."""

    def __init__(self, nodes: list[Node], how: Routed) -> None:
        self.nodes, self.how = nodes, how
        memories = [node for node in nodes if isinstance(node.op, MEMORIES)]
        keeping = {node.name for node in memories if not isinstance(node.op, RunningSoftmax)}
        self.ahead = self._before({v.node for node in memories for v in node.inputs})
        self.behind = self._after(lambda node: node.name in keeping) - keeping

    def forms(self) -> dict[str, Form]:
        """A form for each."""
        written, filtered = self._written(), self._filtered()
        looking = {n.name for n in self.nodes if n.name in written and self._looks(n)}
        textual = self._before(looking) | self._small(written)
        textual |= self._finished(textual)
        found: dict[str, Form] = {}
        for node in self.nodes:
            if isinstance(node.op, MEMORIES) or node.name in filtered:
                found[node.name] = "packed"
            elif node.name in written:
                found[node.name] = "every" if node.name in textual else "packed"
            else:
                found[node.name] = "text"
        return found

    def _written(self) -> Names:
        """Projections of what is written, and what follows them in front of the memory or beside it."""
        if not self.how.own:
            return frozenset()
        common = self._before({node.name for node in self.nodes if isinstance(node.op, COMMON)})
        writes = self._before({v.node for node in self.nodes for v in _writes(node)}) - common
        own = self._after(lambda node: isinstance(node.op, Linear) and node.name in writes)
        return own - self.behind

    def _filtered(self) -> Names:
        """Convolutions that see what a memory took, and what follows them."""
        if self.how.neighbours == "text":
            return frozenset()
        filters = self._after(
            lambda node: isinstance(node.op, Convolution) and node.name in self.ahead
        )
        return filters - self.behind

    def _looks(self, node: Node) -> bool:
        """Whether an operation needs the text around a token, or is needed where a memory idles."""
        if isinstance(node.op, Convolution):
            return self.how.neighbours == "text"
        return isinstance(node.op, Rotary) or (self.how.idle == "decay" and self._decays(node))

    def _small(self, written: Names) -> Names:
        """Projections to so few channels that each memory's costs less than a row of the stream."""
        return frozenset(
            node.name
            for node in self.nodes
            if isinstance(node.op, Linear)
            and node.name in written
            and node.inputs[0].node == INPUT
            and node.op.width_out * self.how.copies <= node.op.width_in
        )

    def _finished(self, textual: Names) -> Names:
        """Unit lengths right behind a convolution, which does them in the same pass."""
        filters = {n.name for n in self.nodes if isinstance(n.op, Convolution)} & textual
        return frozenset(
            node.name
            for node in self.nodes
            if isinstance(node.op, HeadNormalise) and node.inputs[0].node in filters
        )

    def _decays(self, node: Node) -> bool:
        values = [node.value(port) for port in range(len(node.types))]
        return any(decay_of(reader) in values for reader in self.nodes)

    def _before(self, names: set[str]) -> Names:
        """Operations and all in front of them, within the component."""
        found = set(names)
        for node in reversed(self.nodes):
            if node.name in found:
                found |= {value.node for value in node.inputs}
        return frozenset(found & {node.name for node in self.nodes})

    def _after(self, first: Callable[[Node], bool]) -> Names:
        """Operations and all behind them, within the component."""
        found: set[str] = set()
        for node in self.nodes:
            if first(node) or any(value.node in found for value in node.inputs):
                found.add(node.name)
        return frozenset(found)


class _Rewrite:
    """Builds the region anew. Nested regions are done when they are lowered: text in, text out."""

    def __init__(self, old: Graph, how: Routed, forms: dict[str, Form]) -> None:
        self.old, self.how, self.forms = old, how, forms
        self.new = Graph(old.stream)
        self.moved: dict[tuple[str, int], Value] = {}
        self.converted: dict[tuple[Value, Form], Value] = {}

    def graph(self) -> Graph:
        """The rewritten region."""
        for node in self.old.nodes():
            self._put(node, self.forms[node.name])
        self.new.output = self._as(self._now(self.old.output), self.how.form)
        return self.new

    def _put(self, node: Node, form: Form) -> None:
        op, given = node.op, [self._now(value) for value in node.inputs]
        if isinstance(op, Linear) and form != "text":
            source: Form = "text" if form == "every" and given[0].type.form == "text" else form
            op = CopiedLinear.of(op, self.how.copies, self.how.chosen, source)
            given = [self._as(given[0], source)]
        else:
            idling = decay_of(node) if self.how.idle == "decay" else None
            pairs = zip(node.inputs, given, strict=True)
            given = [self._idle(v) if old == idling else self._as(v, form) for old, v in pairs]
        types = tuple(op.outputs([value.type for value in given]))
        made = self.new.add(replace(node, op=op, inputs=tuple(given), types=types))
        for port in range(len(types)):
            self.moved[node.name, port] = made.value(port)

    def _now(self, value: Value) -> Value:
        """A value of the old region in the new one."""
        return self.moved.get((value.node, value.port), value)

    def _as(self, value: Value, form: Form) -> Value:
        """A value in another form, converted once."""
        if value.type.form == form:
            return value
        if (value, form) not in self.converted:
            through = (value.type.form, form) == ("every", "text")
            source = self._as(value, "packed") if through else value
            op = Reroute(source=source.type.form, target=form)
            self.converted[value, form] = self._convert(op, source, form)
        return self.converted[value, form]

    def _idle(self, value: Value) -> Value:
        """A decay as the tokens that arrive see it."""
        return self._convert(IdleDecay(), self._as(value, "every"), "idle")

    def _convert(self, op: Op, value: Value, suffix: str) -> Value:
        port = f"_{value.port}" if value.port else ""
        name = f"{'stream' if value.node == INPUT else value.node}{port}_{suffix}"
        return self.new.add(Node(name, op, (value,), op.outputs([value.type]))).value()


def _writes(node: Node) -> tuple[Value, ...]:
    """What a memory is given apart from a query; nothing of what is no memory."""
    if not isinstance(node.op, MEMORIES):
        return ()
    reads = isinstance(node.op, Memory) and node.op.memory == "matrix"
    return node.inputs[1:] if reads else node.inputs


def decay_of(node: Node) -> Value | None:
    """The log decay a memory is given, if it is given one."""
    if not isinstance(node.op, Memory) or "decay" not in node.op.ports:
        return None
    if node.op.memory == "vector":
        return node.inputs[2]
    return node.inputs[node.op.ports.index("decay")]
