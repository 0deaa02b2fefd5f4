"""The module of a projection that is tied but for a low-rank part."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.base import Context, Seeded, Site
from archdsl.blocks.nn.dense import draw_matrix
from archdsl.blocks.nn.start import first_bias
from archdsl.blocks.ops import adapted as ops


class AdaptedLinear(Site):
    """A projection with low-rank weights a run; see ``ops.AdaptedLinear``."""

    call: ClassVar[Literal["plain", "context", "state"]] = "context"
    op: ops.AdaptedLinear

    def __init__(self, op: ops.AdaptedLinear) -> None:
        super().__init__(op)
        shapes = op.parameters()
        self.weight = nn.Parameter(torch.empty(shapes["weight"]))
        self.bias = nn.Parameter(first_bias(op.linear)) if op.linear.bias else None
        self.down = nn.Parameter(torch.empty(shapes["down"]))
        self.up = nn.Parameter(torch.zeros(shapes["up"]))

    def draw(self, seeded: Seeded) -> None:
        """The projection as it is; the inner map of unit variance, the outer one zero."""
        draw_matrix(self.weight, self.op.linear.init, seeded("weight"))
        with torch.no_grad():
            self.down.normal_(std=self.op.linear.width_in**-0.5, generator=seeded("down"))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """``[…, in]`` → ``[…, out]``."""
        run = min(context.iteration, self.op.adapters - 1)
        thin = F.linear(F.linear(x, self.down[run]), self.up[run])
        return F.linear(x, self.weight, self.bias) + thin
