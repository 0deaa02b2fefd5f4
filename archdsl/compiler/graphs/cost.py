"""What an architecture costs, from its graph alone: no torch, no weights.

Parameters and state bytes are exact. FLOPs are the matrix products PyTorch's counter counts; where those
depend on which tokens go where, ``estimated_flops`` says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Literal

from archdsl.blocks.op import BYTES, Mode, Shape, Work
from archdsl.blocks.ops.loop import Loop
from archdsl.compiler.graphs.graph import Graph, Node, Now, Replacement
from archdsl.compiler.graphs.passes import MEANING, run

Count = Literal["weights", "runs", "trained"]
"""What a region counts for: its copies of weights, its runs, its runs with a gradient."""


class Cost:
    """The cost of a graph; every figure is for one model.

    Args:
        graph: a lowered graph, at any stage.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = run(graph, "recognise", MEANING)

    @property
    def params(self) -> int:
        """Parameters, shared ones once."""
        return self._total(_parameters, "weights") + self._shared

    @property
    def active_params(self) -> int:
        """Parameters one token uses: of memories and experts those it goes to."""
        return self._total(_active, "weights") + self._shared

    @property
    def _shared(self) -> int:
        """Parameters that several operations share."""
        return sum(map(prod, shared(self.graph).values()))

    def flops(self, length: int = 1024, mode: Mode = "prefill") -> float:
        """Matrix-product FLOPs a token, over a sequence of ``length`` tokens.

        ``prefill`` is the forward pass; ``train`` counts it three times (forward, and the backward
        products for inputs and weights) where a gradient flows; ``decode`` is one step after
        ``length - 1`` tokens.
        """
        work = Work(length=length, mode=mode)
        return self.total_flops(work) / work.tokens

    def total_flops(self, work: Work) -> int:
        """Matrix-product FLOPs of the whole work."""
        of = _Products(work)
        forward = self._total(of, "runs")
        return forward + 2 * self._total(of, "trained") if work.mode == "train" else forward

    def estimated_flops(self, work: Work) -> int:
        """The part of a forward pass that depends on which tokens go where; the rest is exact."""
        return self._total(_Estimated(work), "runs")

    def state_bytes(self, length: int = 1024, dtype: str = "float32") -> int:
        """Bytes a sequence carries after ``length`` tokens: recurrent states (float32) and caches."""
        return self._total(_State(length, dtype), "runs")

    def cache_bytes(self, length: int = 1024, dtype: str = "float32") -> int:
        """The part of :meth:`state_bytes` that grows with the length."""
        return self.state_bytes(length, dtype) - self.state_bytes(0, dtype)

    def activation_bytes(self, length: int = 1024, batch: int = 1, dtype: str = "float32") -> int:
        """Bytes of the outputs a training step keeps for its backward pass; an estimate."""
        work = Work(length=length, batch=batch, mode="train")
        return self._total(_Kept(work, dtype), "trained")

    def at(self, times: int) -> Cost:
        """The cost where every loop that iterates runs ``times`` times; a mere order stays as it is."""

        def rewrite(old: Graph, node: Node, now: Now) -> Replacement | None:
            if not isinstance(node.op, Loop) or not node.op.iterates:
                return None
            return Replacement.by(replace(node, op=node.op.model_copy(update={"times": times})))

        return Cost(self.graph.rebuilt(rewrite))

    @property
    def causal(self) -> bool:
        """Whether no output sees a later input."""
        return _causal(self.graph)

    def _total(self, measure: Callable[[Node], int], count: Count) -> int:
        return _summed(measure, count)(self.graph)


def _parameters(node: Node) -> int:
    return sum(map(prod, node.op.parameters().values()))


def _active(node: Node) -> int:
    return node.op.active


@dataclass(frozen=True)
class _Products:
    """FLOPs of an operation's matrix products."""

    work: Work

    def __call__(self, node: Node) -> int:
        return node.op.flops(node.types[0].work(self.work))


@dataclass(frozen=True)
class _Estimated(_Products):
    """Those of operations whose products depend on what tokens are."""

    def __call__(self, node: Node) -> int:
        return super().__call__(node) if node.op.estimated else 0


@dataclass(frozen=True)
class _State:
    """Bytes of an operation's state."""

    length: int
    dtype: str

    def __call__(self, node: Node) -> int:
        return own_state(node, self.length, self.dtype)


@dataclass(frozen=True)
class _Kept:
    """Bytes of the outputs an operation keeps for the backward pass."""

    work: Work
    dtype: str

    def __call__(self, node: Node) -> int:
        here = node.types[0].work(self.work)
        outputs = sum(t.width * t.streams for t in node.types) * here.tokens
        return (outputs + node.op.activations(here)) * BYTES[self.dtype]


def shared(graph: Graph) -> Mapping[str, Shape]:
    """Shapes of the parameters that operations share all over a graph, by name."""

    def found() -> Mapping[str, Shape]:
        parts = ((node.op.common, *map(shared, node.regions)) for node in graph.nodes())
        return {name: shape for part in parts for each in part for name, shape in each.items()}

    return graph.once(shared, found)


def own_state(node: Node, length: int, dtype: str = "float32") -> int:
    """Bytes of an operation's own state after ``length`` tokens, one for each memory it serves."""
    buffers = node.op.state(length).values()
    return sum(buffer.bytes(dtype) for buffer in buffers) * node.types[0].copies


def _causal(region: Graph) -> bool:
    def found() -> bool:
        nodes = region.nodes()
        return all(node.op.causal and all(map(_causal, node.regions)) for node in nodes)

    return region.once(_causal, found)


class _Sum:
    """Sums a measure over a graph: each region once, times how often it is there or runs.

    ``trained`` counts the runs that carry a gradient.
    """

    def __init__(self, measure: Callable[[Node], int], count: Count) -> None:
        self.measure, self.count = measure, count

    def __call__(self, graph: Graph) -> int:
        """The sum over a region, which is kept with it."""
        return graph.once(self, lambda: sum(map(self.node, graph.nodes())))

    def node(self, node: Node) -> int:
        """A node and what is inside it."""
        node = replace(node, op=node.op.trained) if self.count == "trained" else node
        inner = copies = node.op.weights(len(node.regions))
        if self.count != "weights":
            inner = tuple(copies[run] for run in node.op.runs(len(node.regions)))
        return self.measure(node) + sum(self(node.regions[index]) for index in inner)


@lru_cache(maxsize=64)
def _summed(measure: Callable[[Node], int], count: Count) -> _Sum:
    """The one that sums a measure: what it found of a region is known by it."""
    return _Sum(measure, count)
