"""Projections that are tied but for a low-rank part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from archdsl.blocks.op import Op, Shape, Type, Work
from archdsl.blocks.ops.dense import Linear


class AdaptedLinear(Op):
    """``y = W x + b + U_r V_r x``: a projection with low-rank weights for each run of its loop.

    Source: arXiv 2410.20672. Runs beyond the last of ``adapters`` use its weights. ``U`` starts at zero.
    """

    module: ClassVar[str] = "archdsl.blocks.nn.adapted:AdaptedLinear"
    linear: Linear
    adapters: int
    rank: int

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The projection's."""
        return self.linear.outputs(inputs)

    def parameters(self) -> Mapping[str, Shape]:
        """The projection's, ``down [runs, rank, in]`` and ``up [runs, out, rank]``."""
        down: Shape = (self.adapters, self.rank, self.linear.width_in)
        up: Shape = (self.adapters, self.linear.width_out, self.rank)
        return {**self.linear.parameters(), "down": down, "up": up}

    def flops(self, work: Work) -> int:
        """Three matrix products."""
        thin = 2 * work.tokens * self.rank * (self.linear.width_in + self.linear.width_out)
        return self.linear.flops(work) + thin
