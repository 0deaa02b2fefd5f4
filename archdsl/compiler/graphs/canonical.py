"""What two spellings of one architecture have in common: the graph without names, as text and hash.

Layers that run once each are read as one sequence, whether a stack, a repetition or the text itself
says so; what an operation reads is written as a distance, so a region reads the same wherever it
stands; labels, names and notes do not count.
"""

from __future__ import annotations

from hashlib import sha256

from archdsl.blocks.base import Value
from archdsl.blocks.ops.structure import Layers
from archdsl.compiler.graphs.graph import INPUT, Graph, Node


def canonical_text(graph: Graph) -> str:
    """One line an operation; equal exactly where the lowered architectures are."""
    return "\n".join([str(graph.stream), *_Canonical().lines(graph)])


def architecture_hash(graph: Graph) -> str:
    """SHA-256 of the canonical text, in hexadecimal."""
    return sha256(canonical_text(graph).encode()).hexdigest()


class _Canonical:
    """Writes regions, each once: a region reads the same wherever it stands."""

    def lines(self, graph: Graph) -> list[str]:
        """The region's operations, and how far behind the end its output stands."""
        return graph.once(_Canonical, lambda: self._lines(graph))

    def _lines(self, graph: Graph) -> list[str]:
        written: list[str] = []
        place = {INPUT: 0}
        for node in graph.nodes():
            if isinstance(node.op, Layers) and node.op.plain:
                written += self._give(len(written) - place[node.inputs[0].node])
                for copy in node.op.copies:
                    written += self.lines(node.regions[copy])
            else:
                written.append(self._line(node, place, len(written)))
            place[node.name] = len(written)
        return written + self._give(len(written) - place[graph.output.node])

    def _give(self, back: int) -> list[str]:
        """The value ``back`` operations ago, brought to the end of what is written."""
        return [f"give {back}"] if back else []

    def _line(self, node: Node, place: dict[str, int], here: int) -> str:
        inputs = " ".join(self._value(value, place, here) for value in node.inputs)
        if isinstance(node.op, Layers):
            inner = [self._digest(node.regions[copy]) for copy in node.op.copies]
            runs = node.op.runs(len(node.regions))
            return f"tied {inputs} {runs} {node.op.ties} {inner}"
        inner = [self._digest(region) for region in node.regions]
        return f"{node.op.kind()} {inputs} {node.op.attributes} {' '.join(inner)}"

    def _value(self, value: Value, place: dict[str, int], here: int) -> str:
        return f"{here - place[value.node]}.{value.port}"

    def _digest(self, region: Graph) -> str:
        return sha256("\n".join(self.lines(region)).encode()).hexdigest()[:32]
