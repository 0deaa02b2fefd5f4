"""The depthwise convolution's module."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from archdsl.blocks.nn.base import Context, Seeded, Site, State
from archdsl.blocks.nn.functions import activate
from archdsl.blocks.ops.dense import Convolution as Op
from archdsl.kernels.common import segments
from archdsl.kernels.shell.choice import ACTIVATIONS
from archdsl.kernels.shell.convolution import MOST_TAPS, short_convolution, unit_heads


class Convolution(Site):
    """Taps ``weight [D, K]``, the last one for the current token; see ``ops.Convolution``."""

    call: ClassVar[Literal["plain", "context", "state"]] = "state"
    packs: ClassVar[bool] = True
    op: Op
    weight: Tensor
    bias: Tensor | None

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        bias = torch.zeros(op.width) if op.bias else None
        self.hold(weight=torch.empty(op.width, op.kernel), bias=bias)

    def draw(self, seeded: Seeded) -> None:
        """Uniform within ``kernel^-1/2``."""
        bound = self.op.kernel**-0.5
        self.weight.uniform_(-bound, bound, generator=seeded("weight"))

    def forward(
        self, x: Tensor, state: State | None, context: Context, copies: int = 1
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` → the same, and the last inputs within reach.

        With ``copies`` there are so many slices of ``D`` channels, all filtered by the same taps.
        """
        if context.cu_seqlens is not None:
            return self._packed(x, state, context, context.cu_seqlens)
        if not self.op.causal:
            return self._activated(self._convolved(self._centred(x))), None
        seen = self._with_past(x, state)
        one = x.shape[1] == 1
        y = (
            self._activated(self._token(seen, copies), copies)
            if one
            else self._filtered(seen, copies)
        )
        return y, self._kept(seen, context)

    def _taps(self, copies: int) -> tuple[Tensor, Tensor | None]:
        """Taps and biases, as often as there are copies."""
        if copies == 1:
            return self.weight, self.bias
        return self.weight.repeat(copies, 1), None if self.bias is None else self.bias.repeat(
            copies
        )

    def _packed(
        self, x: Tensor, state: State | None, context: Context, bounds: Tensor
    ) -> tuple[Tensor, State | None]:
        """One convolution over all sequences, each behind as many inputs of its past as are seen."""
        reach, count = self.op.reach, len(bounds) - 1
        rows, _ = segments(bounds, x.shape[1])
        place = torch.arange(x.shape[1], device=x.device) + rows * reach
        ends = bounds[1:] + torch.arange(1, count + 1, device=x.device) * reach
        last = ends[:, None] + torch.arange(-reach, 0, device=x.device)
        seen = x.new_zeros(x.shape[1] + (count + 1) * reach, x.shape[2])
        seen = seen.index_copy(0, place + reach, x[0])
        if state is not None:
            starts = (bounds[:-1] + torch.arange(count, device=x.device) * reach)[:, None]
            index = starts + torch.arange(reach, device=x.device)
            seen = seen.index_copy(0, index.flatten(), state["inputs"].flatten(0, 1))
        y = self._filtered(seen[None])[0]
        found = y.index_select(0, place if self.op.causal else place + reach - reach // 2)[None]
        kept = context.keep and reach > 0 and self.op.causal
        return found, {"inputs": seen[last]} if kept else None

    def _filtered(self, seen: Tensor, copies: int = 1) -> Tensor:
        """The convolution of what is seen and its activation, ``reach`` tokens shorter."""
        if self.short:
            weight, bias = self._taps(copies)
            heads = self.op.unit_heads * copies
            return short_convolution(seen, weight, bias, self.op.activation, heads, self.backend)
        return self._activated(self._convolved(seen, copies), copies)

    @property
    def short(self) -> bool:
        """Whether the shell's short convolution computes it."""
        return (
            self.op.dilation == 1
            and self.op.kernel <= MOST_TAPS
            and self.op.activation in ACTIVATIONS
        )

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

    def _token(self, seen: Tensor, copies: int = 1) -> Tensor:
        weight, bias = self._taps(copies)
        y = (seen[:, :: self.op.dilation] * weight.T).sum(1, keepdim=True)
        return (y if bias is None else y + bias).to(seen.dtype)

    def _convolved(self, seen: Tensor, copies: int = 1) -> Tensor:
        weight, bias = self._taps(copies)
        y = F.conv1d(
            seen.transpose(1, 2),
            weight[:, None],
            bias,
            dilation=self.op.dilation,
            groups=self.op.width * copies,
        )
        return y.transpose(1, 2).to(seen.dtype)  # autocast would narrow it

    def _activated(self, y: Tensor, copies: int = 1) -> Tensor:
        y = activate(self.op.activation, y)
        return unit_heads(y, self.op.unit_heads * copies) if self.op.unit_heads else y
