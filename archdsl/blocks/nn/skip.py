"""The module of a layer that may be left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from archdsl.blocks.nn.base import Context, Seeded, Site, State, widened
from archdsl.blocks.nn.dense import draw_matrix
from archdsl.blocks.nn.structure import RegionModule
from archdsl.blocks.ops import skip as ops

OPEN = 2.0
"""Where the router's bias starts: most of the layer."""


class Skip(Site):
    """See ``ops.Skip``.

    Attributes:
        decide: whether decoding takes one hard decision a sequence: the layer runs where the mean gate
            over the first call's tokens is above a half, and the state remembers it. Set it before a
            state is made. Where no sequence of a batch needs the layer, it is not run.
    """

    call: ClassVar[Literal["plain", "context", "state"]] = "state"

    def __init__(self, op: ops.Skip, regions: Sequence[nn.Module]) -> None:
        super().__init__(op)
        self.penalty, self.decide = float(op.penalty), False
        self.layers = regions[0]
        self.weight = nn.Parameter(torch.zeros(op.width))
        self.bias = nn.Parameter(torch.full((1,), OPEN))

    def draw(self, seeded: Seeded) -> None:
        """Small weights."""
        draw_matrix(self.weight[None], "small", seeded("weight"))

    def init_state(self, batch: int, like: Tensor) -> State:
        """The layers' state, and where a decision is due, that there is none yet."""
        assert isinstance(self.layers, RegionModule)
        inner = self.layers.init_state(batch, like)
        undecided = torch.full((batch, 1), -1.0, device=like.device)
        return ({"layers": inner} if inner else {}) | ({"open": undecided} if self.decide else {})

    def forward(
        self, x: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` → the same, and the layers' state."""
        wide = widened(x)
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        gate = torch.sigmoid((wide * weight).sum(-1, keepdim=True) + bias)
        inner = None if state is None else state.get("layers")
        if state is not None and "open" in state:
            return self._decided(x, gate, state["open"], inner, context)
        context.auxiliary.append(self.penalty * gate.mean())
        y, after = self.layers(x, inner, context)
        return torch.lerp(x, y.to(x.dtype), gate.to(x.dtype)), {"layers": after} if after else None

    def _decided(
        self, x: Tensor, gate: Tensor, known: Tensor, inner: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        needed = (gate.mean(1) > 0.5).to(known.dtype)
        chosen = torch.where(known < 0, needed, known)
        kept: State = {"open": chosen} if context.keep else {}
        y, after = self.layers(x, inner, context) if bool(chosen.any()) else (x, inner)
        if after:
            kept["layers"] = after
        return torch.where(chosen[:, None].bool(), y, x), kept if context.keep else None
