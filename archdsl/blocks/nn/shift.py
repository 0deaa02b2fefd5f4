"""The token shift's module."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.base import Context, Seeded, Site, State
from archdsl.blocks.ops import shift as ops
from archdsl.kernels.common import segments


class TokenShift(Site):
    """See ``ops.TokenShift``."""

    call: ClassVar[Literal["plain", "context", "state"]] = "state"
    packs: ClassVar[bool] = True
    op: ops.TokenShift

    def __init__(self, op: ops.TokenShift) -> None:
        super().__init__(op)
        for name, shape in op.parameters().items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))

    def draw(self, seeded: Seeded) -> None:
        """Mixes by channel and depth; the low-rank map gives nothing yet."""
        along = torch.arange(self.op.width) / self.op.width
        left = (1 - self.place.index / self.place.count) ** self.op.power
        with torch.no_grad():
            for row, (exponent, offset) in enumerate(
                zip(self.op.exponents, self.op.offsets, strict=True)
            ):
                mix = 1 - along ** (exponent * left) - offset * self.place.share
                self.get_parameter("mix")[row] = mix
            if self.op.rank is not None:
                self.get_parameter("mix_input").copy_(1 - along**left)
                down, up = self.get_parameter("down"), self.get_parameter("up")
                down.zero_()
                up.uniform_(-0.01, 0.01, generator=seeded("up"))

    def forward(
        self, x: Tensor, state: State | None, context: Context
    ) -> tuple[tuple[Tensor, ...], State | None]:
        """``[B, T, D]`` → one a reader, and the last token's stream."""
        bounds = context.cu_seqlens
        change = self._before(x, state, bounds) - x
        outputs = tuple(x + change * mix for mix in self._mixes(x, change))
        if not context.keep:
            return outputs, None
        if bounds is None:
            return outputs, {"last": x[:, -1]}
        fresh = x.new_zeros(len(bounds) - 1, x.shape[2]) if state is None else state["last"]
        empty = (bounds[1:] == bounds[:-1])[:, None]
        return outputs, {"last": torch.where(empty, fresh, x[0, (bounds[1:] - 1).clamp(min=0)])}

    def _before(self, x: Tensor, state: State | None, bounds: Tensor | None) -> Tensor:
        """The token before each; zeros, or the state's, before the first of a sequence."""
        past = None if state is None else state["last"]
        if bounds is None:
            first = torch.zeros_like(x[:, :1]) if past is None else past[:, None]
            return torch.cat([first, x[:, :-1]], 1)
        rows, first_there = segments(bounds, x.shape[1])
        start = x.new_zeros(()) if past is None else past[rows]
        return torch.where(first_there[:, None], start, x.roll(1, 1))

    def _mixes(self, x: Tensor, change: Tensor) -> tuple[Tensor, ...]:
        """``[D]`` or ``[B, T, D]`` a reader."""
        mix = self.held("mix")
        if self.op.rank is None:
            return mix.unbind(0)
        inner = F.linear(x + change * self.held("mix_input"), self.held("down"))
        rows = torch.tanh(inner).reshape(-1, len(self.op.names), self.op.rank).transpose(0, 1)
        moved = torch.bmm(rows, self.held("up").transpose(1, 2)) + mix[:, None]
        return tuple(part.reshape(x.shape) for part in moved.unbind(0))
