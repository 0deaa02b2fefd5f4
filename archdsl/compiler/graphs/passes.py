"""The pass pipeline: each pass takes a valid graph and leaves a valid graph; the driver checks.

To add a pass, write a function ``Graph → Graph`` (most are one ``rewrite`` for ``Graph.rebuilt``) and
put it in :data:`PIPELINE`; ``archdsl show --stage NAME`` prints what it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from archdsl.compiler.graphs.fusion import fuse, merge_projections
from archdsl.compiler.graphs.graph import Graph
from archdsl.compiler.graphs.kernels import select_kernels
from archdsl.compiler.graphs.recognise import recognise

Pass = Callable[[Graph], Graph]

PIPELINE: Mapping[str, Pass] = {
    "recognise": recognise,
    "merge": merge_projections,
    "fuse": fuse,
    "kernels": select_kernels,
}
"""Passes by the name of the stage they leave, in order; ``lower`` is the stage before the first."""

STAGES = ("lower", *PIPELINE)

MEANING: Mapping[str, Pass] = {"recognise": recognise}
"""The passes that say what a graph means; the others only make it faster."""


def run(graph: Graph, upto: str = "kernels", passes: Mapping[str, Pass] = PIPELINE) -> Graph:
    """The graph after the stage ``upto``, verified after every pass."""
    for name, function in passes.items():
        if upto == "lower":
            break
        graph = function(graph)
        graph.verify()
        if name == upto:
            break
    return graph
