"""What a Miras point is, and which family computes it exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from archdsl.blocks.cell_analysis import Analysis
from archdsl.blocks.op import Op
from archdsl.blocks.ops.cell import CellRecurrence
from archdsl.blocks.ops.learner import LearnerMemory
from archdsl.blocks.ops.memory import DecayMemory, DeltaMemory, Memory, Recurrence, ScanMemory
from archdsl.compiler.graphs.graph import Graph, Node, Now, Replacement
from archdsl.compiler.graphs.learned_names import described, learning

NAMES: dict[tuple[str, str, str], str] = {
    ("matrix", "dot", "none"): "linear attention",
    ("matrix", "dot", "constant"): "retention, as in RetNet",
    ("matrix", "dot", "head"): "a scalar-decay memory, as in Mamba-2",
    ("matrix", "dot", "channel"): "gated linear attention (GLA, HGRN2)",
    ("matrix", "l2", "none"): "DeltaNet",
    ("matrix", "l2", "constant"): "DeltaNet with a constant decay: no published name",
    ("matrix", "l2", "head"): "Gated DeltaNet",
    ("matrix", "l2", "channel"): "Kimi Delta Attention (KDA)",
    ("vector", "l2", "none"): "a delta rule a channel: no published name",
    ("vector", "l2", "constant"): "a delta rule a channel of constant decay: no published name",
    ("vector", "l2", "head"): "a gated delta rule a channel: no published name",
    ("vector", "dot", "none"): "a running sum",
    ("vector", "dot", "constant"): "a running mean of constant decay",
    ("vector", "dot", "head"): "a running mean of one decay",
    ("vector", "dot", "channel"): "a gated vector recurrence, as in HGRN",
}
"""The published name of each point, by memory, bias and what the decay is a number for."""

VARIANTS: tuple[tuple[str, Callable[[Memory], bool]], ...] = (
    ("an mLSTM memory, as in xLSTM", lambda p: p.normaliser == "max"),
    ("a memory read before it is written, as in RWKV-6", lambda p: p.read == "before"),
    ("a delta rule with a rate a channel, as in RWKV-7", lambda p: p.general),
    ("DeltaProduct", lambda p: p.steps > 1 and p.decay == "none"),
    ("Gated DeltaProduct", lambda p: p.steps > 1 and p.decay == "head"),
    ("a product of delta rules", lambda p: p.steps > 1),
    ("a delta rule with feedback, as in Comba", lambda p: p.erase),
)
"""Names of points that write or read in a way of their own, the first that fits."""


def name_of(point: Memory) -> str:
    """The published name of a point."""
    if point.rule is not None:
        return described(point.rule)
    variant = next((name for name, fits in VARIANTS if fits(point)), None)
    return variant or NAMES[point.memory, point.bias, point.decay]


def recognise(graph: Graph) -> Graph:
    """Every ``Memory`` becomes the family that computes it; the note says what it is and why.

    A graph that went through it comes back as it is.
    """
    return graph.rebuilt(_rewrite, Memory, CellRecurrence)


def _rewrite(old: Graph, node: Node, now: Now) -> Replacement | None:
    if isinstance(node.op, CellRecurrence):
        plan, note = cell_plan(node.op.analysis)
        if note in node.notes:
            return None
        op = node.op.model_copy(update={"plan": plan})
        return Replacement.by(replace(node, op=op).noted(note))
    if not isinstance(node.op, Memory):
        return None
    family = family_of(node.op, counted=node.types[0].routed is not None)
    note = f"this is {name_of(node.op)}: {reason(node.op, family)}"
    return Replacement.by(replace(node, op=family).noted(note))


@lru_cache(maxsize=256)
def cell_plan(analysis: Analysis) -> tuple[str, str]:
    """How a cell runs, and why, from its equations."""
    if analysis.scans is not None:
        turning = any(len(scan.states) == 2 for scan in analysis.scans)
        pairs = ", two of them the parts of a complex one" if turning else ""
        return "scan", (
            "this cell is a scan: no state inside a gate, and each state elementwise linear in itself"
            f"{pairs}, so family `scan`"
        )
    obstacle = analysis.obstacle()
    where = f" (`{obstacle}`)" if obstacle else ""
    if analysis.elementwise:
        return "sequential", (
            f"this cell is nonlinear in its state{where} with a diagonal Jacobian, so family `cell`,"
            " a step at a time"
        )
    return "sequential", (
        f"this cell is nonlinear in its state{where} across channels, so family `cell`, a step at a time"
    )


def family_of(point: Memory, *, counted: bool = False) -> Op:
    """The family operation that computes a point exactly; ``counted`` where it is one of several memories."""
    if point.rule is not None:
        return LearnerMemory(heads=point.heads, rule=point.rule, scale=point.scale, counted=counted)
    if point.memory == "vector" and point.bias == "dot":
        return ScanMemory(width=point.value_dim, decay=point.decay)
    shared = {name: getattr(point, name) for name in Recurrence.model_fields}
    return DecayMemory(**shared) if point.bias == "dot" else DeltaMemory(**shared)


def reason(point: Memory, family: Op) -> str:
    """Why that family: what the update is."""
    if isinstance(family, LearnerMemory):
        return learning(family.rule)
    if isinstance(family, ScanMemory):
        return "its state is a vector and linear in itself, so family `scan`"
    retention = "no decay" if point.decay == "none" else f"a decay a {point.decay}"
    if isinstance(family, DecayMemory):
        return f"a Hebbian write of rank one with {retention}, so family `decay`"
    steps = "one step" if point.steps == 1 else f"{point.steps} steps"
    return f"{steps} on the squared error with {retention}, so family `delta`"
