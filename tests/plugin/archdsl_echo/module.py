"""The module of the operation."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from archdsl.blocks.nn.base import Context, Site, State
from archdsl_echo import component


class Echoed(Site):
    """See :class:`archdsl_echo.component.Echoed`."""

    call: ClassVar[Literal["plain", "context", "state"]] = "state"

    def __init__(self, op: component.Echoed) -> None:
        super().__init__(op)
        self.mix = nn.Parameter(torch.full((op.width,), op.start))

    def forward(
        self, x: Tensor, *, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` → ``[B, T, D]``, and the last position where it is asked for."""
        last = x.new_zeros(x.shape[0], x.shape[2]) if state is None else state["last"]
        before = torch.cat([last[:, None], x[:, :-1]], 1)
        return x + self.mix * before, {"last": x[:, -1]} if context.keep else None
