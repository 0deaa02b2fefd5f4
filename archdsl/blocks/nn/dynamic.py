"""The module of the dynamic convolution."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from archdsl.blocks.nn.base import Context, Site, State, heads_apart
from archdsl.blocks.ops import dynamic as ops


class DynamicConvolution(Site):
    """See ``ops.DynamicConvolution``."""

    call: ClassVar[Literal["plain", "context", "state"]] = "state"
    op: ops.DynamicConvolution

    def __init__(self, op: ops.DynamicConvolution) -> None:
        super().__init__(op)

    def forward(
        self, x: Tensor, weights: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` and ``[B, T, H·K]`` → ``[B, T, D]``, and the last inputs within reach."""
        reach = self.op.kernel - 1
        if not self.op.causal:
            seen = F.pad(x, (0, 0, reach // 2, reach // 2))
        elif state is None or not reach:
            seen = F.pad(x, (0, 0, reach, 0))
        else:
            seen = torch.cat([state["inputs"], x], 1)
        taps = heads_apart(weights, self.op.heads).softmax(-1).to(x.dtype)
        return self._convolved(seen, taps, x.shape[1]), self._kept(seen, context)

    def _convolved(self, seen: Tensor, taps: Tensor, length: int) -> Tensor:
        heads = heads_apart(seen, self.op.heads)
        parts = [heads[:, k : k + length] * taps[..., k, None] for k in range(self.op.kernel)]
        return torch.stack(parts).sum(0).flatten(-2)

    def _kept(self, seen: Tensor, context: Context) -> State | None:
        if not context.keep or not self.op.causal or self.op.kernel == 1:
            return None
        return {"inputs": seen[:, 1 - self.op.kernel :].contiguous()}
