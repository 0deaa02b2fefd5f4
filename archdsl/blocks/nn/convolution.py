"""The depthwise convolution's module."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.base import Context, Seeded, Site, State
from archdsl.blocks.nn.functions import activate
from archdsl.blocks.ops.dense import Convolution as Op


class Convolution(Site):
    """Taps ``weight [D, K]``, the last one for the current token; see ``ops.Convolution``."""

    call: ClassVar[Literal["plain", "context", "state"]] = "state"

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.op: Op = op
        self.weight = nn.Parameter(torch.empty(op.width, op.kernel))
        self.bias = nn.Parameter(torch.zeros(op.width)) if op.bias else None

    def draw(self, seeded: Seeded) -> None:
        """Uniform within ``kernel^-1/2``."""
        bound = self.op.kernel**-0.5
        with torch.no_grad():
            self.weight.uniform_(-bound, bound, generator=seeded("weight"))

    def forward(
        self, x: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` → the same, and the last inputs within reach."""
        if not self.op.causal:
            return self._activated(self._convolved(self._centred(x))), None
        seen = self._with_past(x, state)
        y = self._token(seen) if x.shape[1] == 1 else self._convolved(seen)
        return self._activated(y), self._kept(seen, context)

    def _with_past(self, x: Tensor, state: State | None) -> Tensor:
        reach = self.op.reach
        if state is None:
            return F.pad(x, (0, 0, reach, 0))
        return torch.cat([state["inputs"], x], 1) if reach else x

    def _centred(self, x: Tensor) -> Tensor:
        side = self.op.reach // 2
        return F.pad(x, (0, 0, side, side))

    def _kept(self, seen: Tensor, context: Context) -> State | None:
        if not context.keep or not self.op.reach:
            return None
        return {"inputs": seen[:, -self.op.reach :].contiguous()}

    def _token(self, seen: Tensor) -> Tensor:
        taps = seen[:, :: self.op.dilation]
        y = (taps * self.weight.T).sum(1, keepdim=True)
        return y if self.bias is None else y + self.bias

    def _convolved(self, seen: Tensor) -> Tensor:
        y = F.conv1d(
            seen.transpose(1, 2),
            self.weight[:, None],
            self.bias,
            dilation=self.op.dilation,
            groups=self.op.width,
        )
        return y.transpose(1, 2)

    def _activated(self, y: Tensor) -> Tensor:
        return activate(self.op.activation, y)
