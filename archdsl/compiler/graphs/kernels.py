"""Kernel selection: which form each site runs, and why. Notes only; the modules dispatch by shape."""

from __future__ import annotations

from dataclasses import replace

from archdsl.blocks.op import Op
from archdsl.blocks.ops.attention import SoftmaxAttention
from archdsl.blocks.ops.latent import LatentAttention
from archdsl.blocks.ops.learner import LearnerMemory
from archdsl.blocks.ops.memory import DecayMemory, DeltaMemory, ScanMemory
from archdsl.blocks.ops.persistent import PersistentAttention
from archdsl.compiler.graphs.graph import Graph, Node, Now, Replacement

FORMS: dict[type[Op], str] = {
    DecayMemory: "decay: chunk-parallel products for a sequence, one step for a token",
    DeltaMemory: "delta: chunk-parallel triangular solve for a sequence, one step for a token",
    ScanMemory: "scan: parallel prefix over time for a sequence, one step for a token",
    LearnerMemory: "learner: a chunk at a time for a sequence, part of a chunk for a token",
    SoftmaxAttention: "softmax: PyTorch's fused attention",
    LatentAttention: "softmax: PyTorch's fused attention, one step for a token",
    PersistentAttention: "softmax: PyTorch's fused attention",
}


def select_kernels(graph: Graph) -> Graph:
    """A note ``kernel …`` on every site that has a choice of forms."""
    return graph.rebuilt(_note, *FORMS)


def _note(old: Graph, node: Node, now: Now) -> Replacement | None:
    form = FORMS.get(type(node.op))
    return None if form is None else Replacement.by(replace(node).noted(f"kernel {form}"))
