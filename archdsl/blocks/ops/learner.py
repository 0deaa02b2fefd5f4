"""Memories that learn at test time, and the features they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import comb
from typing import Annotated, ClassVar

from pydantic import SkipValidation

from archdsl.blocks.op import Buffer, Op, Shape, Type, Work
from archdsl.kernels.learner.flops import flops, step_flops
from archdsl.kernels.learner.rule import Rule
from archdsl.kernels.learner.states import state_shapes

NN = "archdsl.blocks.nn.learner:"


def rule_ports(rule: Rule) -> tuple[str, ...]:
    """What a learner's inputs are, in order.

    ``query``, ``key``, ``value`` ``[B, T, writes·H·K or ·V]`` (the query once a token), the log
    ``decay`` ``[B, T, H]`` or ``[B, T, H·K]``, the ``rate`` ``[B, T, writes·H]`` or a key channel's, the
    logarithm of the ``momentum``, the ``weight`` in a window, the ``threshold`` of the loss, each
    ``[B, T, writes·H]``.
    """
    given = {
        "decay": rule.keep.decay in ("head", "channel"),
        "rate": True,
        "momentum": rule.learn.carries,
        "weight": rule.learn.window > 1,
        "threshold": rule.loss.token,
    }
    return ("query", "key", "value", *[name for name, there in given.items() if there])


class LearnerMemory(Op):
    """A memory whose weights descend a loss while the sequence is read; see ``kernels.learner``.

    Args:
        heads: memories side by side.
        rule: the point.
        scale: of what is read; by default a matrix reads with ``key_dim^-1/2``, as its family does.
        counted: whether it counts its writes, because it does not take every token of the text.
    """

    module: ClassVar[str] = NN + "LearnerMemory"
    heads: int
    rule: Annotated[Rule, SkipValidation]
    scale: float | None = None
    counted: bool = False

    @property
    def ports(self) -> tuple[str, ...]:
        """See :func:`rule_ports`."""
        return rule_ports(self.rule)

    @property
    def factor(self) -> float:
        """What is read is multiplied by."""
        if self.scale is not None:
            return self.scale
        return float(self.rule.store.widths[0] ** -0.5) if self.rule.store.linear else 1.0

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """What is read: ``[B, T, H·V]``."""
        width = self.heads * self.rule.store.widths[-1]
        return (replace(inputs[0], width=width, dtype="model"),)

    def parameters(self) -> Mapping[str, Shape]:
        """What a sequence begins with, the norm inside, the numbers a position (where there are any)."""
        store, found = self.rule.store, dict[str, Shape]()
        if store.learned:
            found |= {f"start_{i}": (self.heads, *shape) for i, shape in enumerate(store.shapes)}
        if store.norm != "none":
            found["gain"] = (self.heads, store.widths[-1])
        if store.norm == "layer":
            found["offset"] = (self.heads, store.widths[-1])
        if self.rule.learn.average:
            found["position"] = (self.rule.learn.chunk,)
        return found

    def state(self, length: int) -> Mapping[str, Buffer]:
        """The memory, in float32; what it begins with is learned, so a fresh one is not all zeros."""
        shapes = state_shapes(self.rule, self.heads)
        written = {"writes": Buffer((), "int64")} if self.counted else {}
        return {name: Buffer(shape) for name, shape in shapes.items()} | written

    @property
    def estimated(self) -> bool:
        """Where only some tokens are taken: how they fill chunks; costs take all of them as one sequence."""
        return self.counted

    def flops(self, work: Work) -> int:
        """See the kernel family."""
        if work.mode == "decode":
            return step_flops(self.rule, work.batch, self.heads, work.length - 1)
        return flops(self.rule, work.batch, work.length, self.heads)

    def activations(self, work: Work) -> int:
        """The memory at every chunk's start."""
        chunks = -(-work.length * self.rule.learn.writes // self.rule.learn.chunk)
        kinds = 1 + self.rule.learn.carries
        return work.batch * chunks * kinds * self.heads * self.rule.store.size


class PolynomialFeatures(Op):
    """All monomials up to a degree of each head's slice (ATLAS, arXiv 2505.23735 §3.1).

    ``φ(q) · φ(k) = Σ_i a_i² (q · k)^i / Σ_i a_i²``, with ``a_i`` learned from ``1/√(i!)``.
    ``[B, T, H·D]`` → ``[B, T, H·C(D + degree, degree)]``.
    """

    module: ClassVar[str] = NN + "PolynomialFeatures"
    heads: int
    width: int
    degree: int

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """As wide as there are monomials."""
        channels = self.width // self.heads
        return (replace(inputs[0], width=self.heads * comb(channels + self.degree, self.degree)),)

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [degree + 1]``."""
        return {"weight": (self.degree + 1,)}
