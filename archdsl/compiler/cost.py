"""What an architecture costs, from its graph alone: no torch, no weights.

Parameters and state bytes are exact. FLOPs are the matrix products PyTorch's counter counts.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from archdsl.blocks.op import BYTES, Mode, Work
from archdsl.compiler.graph import Graph, Node
from archdsl.compiler.passes import MEANING, run


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
        return self._total(lambda node: sum(map(prod, node.op.parameters().values())), "weights")

    @property
    def active_params(self) -> int:
        """Parameters one token uses."""
        return self.params

    def flops(self, length: int = 1024, mode: Mode = "prefill") -> float:
        """Matrix-product FLOPs a token, over a sequence of ``length`` tokens.

        ``prefill`` is the forward pass; ``train`` counts it three times (forward, and the backward
        products for inputs and weights); ``decode`` is one step after ``length - 1`` tokens.
        """
        work = Work(length=length, mode=mode)
        return self.total_flops(work) / work.tokens

    def total_flops(self, work: Work) -> int:
        """Matrix-product FLOPs of the whole work."""
        forward = self._total(lambda node: node.op.flops(work), "runs")
        return 3 * forward if work.mode == "train" else forward

    def state_bytes(self, length: int = 1024, dtype: str = "float32") -> int:
        """Bytes a sequence carries after ``length`` tokens: recurrent states (float32) and caches."""

        def of(node: Node) -> int:
            return sum(buffer.bytes(dtype) for buffer in node.op.state(length).values())

        return self._total(of, "runs")

    def cache_bytes(self, length: int = 1024, dtype: str = "float32") -> int:
        """The part of :meth:`state_bytes` that grows with the length."""
        return self.state_bytes(length, dtype) - self.state_bytes(0, dtype)

    def activation_bytes(self, length: int = 1024, batch: int = 1, dtype: str = "float32") -> int:
        """Bytes of the outputs a training step keeps for its backward pass; an estimate."""
        work = Work(length=length, batch=batch, mode="train")

        def of(node: Node) -> int:
            outputs = sum(t.width * t.streams for t in node.types) * work.tokens
            return (outputs + node.op.activations(work)) * BYTES[dtype]

        return self._total(of, "runs")

    @property
    def causal(self) -> bool:
        """Whether no output sees a later input."""
        return all(node.op.causal for _, node in self.graph.walk())

    def _total(self, measure: Callable[[Node], int], count: str) -> int:
        return _Sum(measure, count == "runs").region(self.graph)


class _Sum:
    """Sums a measure over a graph: each region once, times how often it is there or runs."""

    def __init__(self, measure: Callable[[Node], int], by_runs: bool) -> None:
        self.measure, self.by_runs = measure, by_runs
        self.known: dict[int, int] = {}

    def region(self, graph: Graph) -> int:
        """The sum over a region."""
        if id(graph) not in self.known:
            self.known[id(graph)] = sum(map(self.node, graph.nodes()))
        return self.known[id(graph)]

    def node(self, node: Node) -> int:
        """A node and what is inside it."""
        copies = node.op.weights(len(node.regions))
        inner = [copies[run] for run in node.op.runs(len(node.regions))] if self.by_runs else copies
        return self.measure(node) + sum(self.region(node.regions[index]) for index in inner)
