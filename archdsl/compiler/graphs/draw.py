"""Pictures of a graph: an outline for the terminal, Mermaid and DOT text, and the list of kernels.

The outline groups operations into the components that made them. Mermaid and DOT share one neutral
:class:`Sketch`: boxes in boxes for regions, dots for operations, arrows for values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from math import prod
from typing import Any

import pydot

from archdsl.blocks.op import Op, Type
from archdsl.blocks.ops.structure import Branches, Layers, ResidualSum
from archdsl.compiler.graphs.cost import own_state, shared
from archdsl.compiler.graphs.graph import INPUT, Graph, Node

KERNEL = "kernel "
"""What a note that names the chosen kernel begins with."""

# --- the outline ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Branch:
    """One line of an outline: a component, or what a container runs.

    Args:
        title: the component's name, or ``linear × 6 (layers 0–2, 4–6)``.
        widths: ``64 → 176``, or ``64`` where the width stays.
        params: parameters of all copies, those inside included.
        state: bytes a sequence carries from the start, over all runs.
        cache: bytes it carries more behind one token.
        notes: what the passes have to say.
        children: what runs inside.
        lines: how many lines the whole branch takes.
    """

    title: str
    widths: str = ""
    params: int = 0
    state: int = 0
    cache: int = 0
    notes: tuple[str, ...] = ()
    children: tuple[Branch, ...] = ()
    lines: int = field(default=1, repr=False)


def outline(graph: Graph) -> tuple[Branch, ...]:
    """The components of a graph, in order, and what they share; equal regions are one object."""
    return (*_Outline().region(graph), *_shared(graph))


class _Outline:
    """Groups nodes by the component that added them; each region is looked at once."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Branch, ...]] = {}

    def region(self, graph: Graph) -> tuple[Branch, ...]:
        """The branches of one region."""
        if id(graph) not in self.known:
            groups = _components(graph.nodes())
            self.known[id(graph)] = tuple(self.branch(name, nodes) for name, nodes in groups)
        return self.known[id(graph)]

    def branch(self, name: str, nodes: Sequence[Node]) -> Branch:
        """One component."""
        children = tuple(child for node in nodes for child in self.children(node))
        return Branch(
            title=name,
            widths=_widths(nodes),
            params=sum(_own_params(node.op) for node in nodes) + self._inside(nodes, "params"),
            state=sum(own_state(node, 0) for node in nodes) + self._inside(nodes, "state"),
            cache=sum(_own_cache(node) for node in nodes) + self._inside(nodes, "cache"),
            notes=tuple(note for node in nodes for note in node.notes),
            children=children,
            lines=1 + sum(len(node.notes) for node in nodes) + sum(c.lines for c in children),
        )

    def children(self, node: Node) -> Iterator[Branch]:
        """What a container runs: its layers as they are, or each kind of them under a title."""
        alone = len(node.regions) == 1 and not isinstance(node.op, Layers)
        for index, region in enumerate(node.regions):
            branches = self.region(region)
            if alone:
                yield from branches
            else:
                yield _gathered(_title(node.op, index), branches)

    def _inside(self, nodes: Sequence[Node], figure: str) -> int:
        return sum(
            getattr(branch, figure)
            for node in nodes
            for index in _times(node, figure)
            for branch in self.region(node.regions[index])
        )


def _shared(graph: Graph) -> Iterator[Branch]:
    """A line for each set of weights that belongs to no single operation."""
    sizes: dict[str, int] = {}
    for name, shape in shared(graph).items():
        owner = name.split(".")[0]
        sizes[owner] = sizes.get(owner, 0) + prod(shape)
    for owner, params in sizes.items():
        yield Branch(f"{owner} (shared)", params=params)


def _components(nodes: Iterable[Node]) -> Iterator[tuple[str, list[Node]]]:
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        groups.setdefault(node.name.split(".")[0], []).append(node)
    yield from groups.items()


def _gathered(title: str, branches: tuple[Branch, ...]) -> Branch:
    """Branches under a title, with their figures together."""
    return Branch(
        title=title,
        params=sum(branch.params for branch in branches),
        state=sum(branch.state for branch in branches),
        cache=sum(branch.cache for branch in branches),
        children=branches,
        lines=1 + sum(branch.lines for branch in branches),
    )


def _times(node: Node, figure: str) -> Iterable[int]:
    """The region of every copy of weights, or of every run for what is kept a run."""
    copies = node.op.weights(len(node.regions))
    if figure == "params":
        return copies
    return [copies[run] for run in node.op.runs(len(node.regions))]


def _own_params(op: Op) -> int:
    return sum(map(prod, op.parameters().values()))


def _own_cache(node: Node) -> int:
    return own_state(node, 1) - own_state(node, 0)


def _widths(nodes: Sequence[Node]) -> str:
    before, after = nodes[0].inputs[0].type, nodes[-1].types[0]
    if (before.kind, before.width) == (after.kind, after.width):
        return str(after.width)
    return f"{_width(before)} → {_width(after)}"


def _width(type: Type) -> str:
    if type.kind == "features":
        return str(type.width)
    return f"{type.width} {type.kind}" if type.width else type.kind


def _title(op: Op, region: int) -> str:
    """What a container runs one of its regions as."""
    if not isinstance(op, Layers):
        return f"branch {region}"
    runs = _runs(op, region)
    label = (op.labels[runs[0]] if op.labels else None) or "each"
    order = op.runs(len(op.copies))
    tied = len({order[run] for run in runs}) < len(runs)
    shared = ", weights shared" if tied else ""
    return f"{label} × {len(runs)} ({_spans(runs)}{shared})"


def _runs(op: Layers, region: int) -> list[int]:
    """The runs of one region, in order."""
    order = op.runs(len(op.copies))
    return [run for run, copy in enumerate(order) if op.copies[copy] == region]


def _spans(runs: Sequence[int]) -> str:
    """``layers 0–2, 4–6``; layers count from 0, as ``at`` does."""
    spans = []
    for _, group in groupby(enumerate(runs), key=lambda pair: pair[1] - pair[0]):
        members = [run for _, run in group]
        first, last = members[0], members[-1]
        spans.append(str(first) if first == last else f"{first}–{last}")
    return f"layer{'s' * (len(runs) > 1)} {', '.join(spans)}"


# --- which kernel runs where ----------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """What one operation runs as, and why.

    Args:
        path: the operation (``stack.linear.residual.gla.memory``).
        kernel: the kernel, or the operation that a pass made.
        reason: what the passes say.
    """

    path: str
    kernel: str
    reason: str


def kernels(graph: Graph) -> list[Choice]:
    """Every operation that a pass has something to say about, in order; shared regions once."""
    return list(_choices(graph, "", set()))


def _choices(graph: Graph, prefix: str, seen: set[int]) -> Iterator[Choice]:
    if id(graph) in seen:
        return
    seen.add(id(graph))
    for node in graph.nodes():
        if node.notes:
            yield _choice(f"{prefix}{node.name}", node)
        for index, region in enumerate(node.regions):
            label = _label(node, index)
            yield from _choices(region, f"{prefix}{node.name}.{label and label + '.'}", seen)


def _choice(path: str, node: Node) -> Choice:
    named = [note.removeprefix(KERNEL) for note in node.notes if note.startswith(KERNEL)]
    others = [note for note in node.notes if not note.startswith(KERNEL)]
    return Choice(path, "; ".join(named) or node.op.kind(), "; ".join(others))


def _label(node: Node, region: int) -> str:
    """A region's name in a path: nothing where there is one, else a label or a number."""
    if len(node.regions) == 1:
        return ""
    if isinstance(node.op, Layers) and node.op.labels:
        return node.op.labels[_runs(node.op, region)[0]] or str(region)
    return str(region)


# --- the neutral sketch ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Dot:
    """One operation, or the entrance of a region."""

    id: str
    title: str
    entrance: bool = False


@dataclass(frozen=True)
class Arrow:
    """A value on its way; ``again`` where a layer feeds the next run of its kind."""

    source: str
    target: str
    again: bool = False


@dataclass
class Sketch:
    """A box: dots and boxes inside it. The outermost box also has all arrows."""

    id: str
    title: str
    dots: list[Dot] = field(default_factory=list)
    boxes: list[Sketch] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)


def sketch(graph: Graph) -> Sketch:
    """A graph as boxes, dots and arrows; a region drawn already is a dot that says so."""
    return _Sketcher().whole(graph)


@dataclass(frozen=True)
class _Ends:
    """The dots where a region begins and ends."""

    entrance: str
    exit: str


class _Sketcher:
    """Numbers dots and boxes in the order they are drawn."""

    def __init__(self) -> None:
        self.count = 0
        self.arrows: list[Arrow] = []
        self.drawn: dict[int, str] = {}

    def whole(self, graph: Graph) -> Sketch:
        """The outermost box."""
        box = Sketch("model", "model")
        self.region(graph, box)
        box.arrows = self.arrows
        return box

    def region(self, graph: Graph, box: Sketch) -> _Ends:
        """Draw a region in a box."""
        if id(graph) in self.drawn:
            again = self.dot(box, f"the same as {self.drawn[id(graph)]}")
            return _Ends(again, again)
        self.drawn[id(graph)] = box.title
        places = {INPUT: self.dot(box, str(graph.stream), entrance=True)}
        for node in graph.nodes():
            sources = [places[value.node] for value in node.inputs]
            places[node.name] = self.node(node, box, list(dict.fromkeys(sources)))
        return _Ends(places[INPUT], places[graph.output.node])

    def node(self, node: Node, box: Sketch, sources: list[str]) -> str:
        """Draw an operation, with its regions in a box around it; gives its dot."""
        if not node.regions:
            return self.joined(sources, self.dot(box, _caption(node)))
        around = Sketch(self.number("box"), node.name)
        box.boxes.append(around)
        ends = [self.inner(node, index, around) for index in range(len(node.regions))]
        dot = self.dot(around, _caption(node))
        if isinstance(node.op, Layers):
            return self.sequence(node.op, ends, sources, dot)
        for end in ends:
            self.joined(sources, end.entrance)
            self.joined([end.exit], dot)
        skip = not isinstance(node.op, Branches)
        return self.joined(sources, dot) if skip else dot

    def inner(self, node: Node, index: int, around: Sketch) -> _Ends:
        """Draw one region of an operation; where it is the only one, right in the box around."""
        if len(node.regions) == 1 and not isinstance(node.op, Layers):
            return self.region(node.regions[index], around)
        box = Sketch(self.number("box"), _title(node.op, index))
        around.boxes.append(box)
        return self.region(node.regions[index], box)

    def sequence(self, op: Layers, ends: Sequence[_Ends], sources: list[str], dot: str) -> str:
        """Arrows from the layers of one kind to those that follow, each pair once."""
        order = [op.copies[copy] for copy in op.order]
        self.joined(sources, ends[order[0]].entrance)
        for before, after in dict.fromkeys(pairwise(order)):
            self.arrows.append(Arrow(ends[before].exit, ends[after].entrance, before == after))
        return self.joined([ends[order[-1]].exit], dot)

    def dot(self, box: Sketch, title: str, entrance: bool = False) -> str:
        """Add a dot."""
        dot = Dot(self.number("op"), title, entrance)
        box.dots.append(dot)
        return dot.id

    def joined(self, sources: Iterable[str], target: str) -> str:
        """Add arrows to a dot."""
        self.arrows += [Arrow(source, target) for source in sources]
        return target

    def number(self, kind: str) -> str:
        """A new id."""
        self.count += 1
        return f"{kind}{self.count}"


def _caption(node: Node) -> str:
    """Name, kind and the type it gives."""
    kind = node.op.kind()
    if isinstance(node.op, ResidualSum):
        kind = "+"
    short = node.name.rpartition(".")[2]
    first = node.name if short == kind or kind in node.name else f"{node.name} · {kind}"
    return f"{first}\n{node.types[0]}"


# --- Mermaid and DOT ------------------------------------------------------------------------------


def mermaid(graph: Graph) -> str:
    """A Mermaid flowchart."""
    whole = sketch(graph)
    arrows = [
        f"    {a.source} {'-.->|again|' if a.again else '-->'} {a.target}" for a in whole.arrows
    ]
    return "\n".join(["flowchart TD", *_mermaid_box(whole, "    "), *arrows]) + "\n"


def _mermaid_box(box: Sketch, indent: str) -> Iterator[str]:
    for dot in box.dots:
        text = _mermaid_text(dot.title)
        yield f'{indent}{dot.id}(["{text}"])' if dot.entrance else f'{indent}{dot.id}["{text}"]'
    for inner in box.boxes:
        yield f'{indent}subgraph {inner.id}["{_mermaid_text(inner.title)}"]'
        yield from _mermaid_box(inner, indent + "    ")
        yield f"{indent}end"


def _mermaid_text(text: str) -> str:
    """A label without what Mermaid would read as syntax."""
    codes = {'"': "#quot;", "<": "#lt;", ">": "#gt;", "\n": "<br>"}
    return "".join(codes.get(char, char) for char in text)


def dot(graph: Graph) -> str:
    """A Graphviz file, written by pydot."""
    whole = sketch(graph)
    picture = pydot.Dot("model", graph_type="digraph", rankdir="TB", fontname="sans-serif")
    picture.add_node(pydot.Node("node", shape="box", style="rounded", fontname="sans-serif"))
    _dot_box(picture, whole)
    for arrow in whole.arrows:
        again: dict[str, Any] = {"style": "dashed", "label": "again"} if arrow.again else {}
        picture.add_edge(pydot.Edge(arrow.source, arrow.target, **again))
    text: str = picture.to_string()
    return text


def _dot_box(picture: Any, box: Sketch) -> None:
    for one in box.dots:
        shape = "plaintext" if one.entrance else "box"
        picture.add_node(pydot.Node(one.id, label=_dot_text(one.title), shape=shape))
    for inner in box.boxes:
        cluster = pydot.Cluster(inner.id, label=_dot_text(inner.title), color="gray")
        _dot_box(cluster, inner)
        picture.add_subgraph(cluster)


def _dot_text(text: str) -> str:
    """A label in quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
