"""Modules of several residual streams; equations are with the operations."""

from __future__ import annotations

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.base import Seeded, Site, exactly, widened
from archdsl.blocks.ops import streams as ops

Mixing = tuple[Tensor, Tensor, Tensor]
"""How streams are read ``[…, N]``, carried on ``[…, N, N]`` (to, from), and written to ``[…, N]``."""

APART = -8.0
"""Log-odds of one stream carrying on another's content at the start: a share of 0.0003."""

SMALL = 0.01
"""How much the mixing depends on the streams at the start, in both papers."""


class Expand(Site):
    """Equal streams."""

    def __init__(self, op: ops.Expand) -> None:
        super().__init__(op)
        self.streams = op.streams

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, D]`` → ``[B, T, N, D]``."""
        return x.unsqueeze(2).expand(-1, -1, self.streams, -1)


class Collapse(Site):
    """One stream of several."""

    def __init__(self, op: ops.Collapse) -> None:
        super().__init__(op)
        self.reduce = op.reduce

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, N, D]`` → ``[B, T, D]``."""
        return x.sum(2) if self.reduce == "sum" else x.mean(2)


class Connect(Site):
    """Reads the streams as :meth:`mixing` says; the streams keep their precision under autocast."""

    def mixing(self, h: Tensor) -> Mixing:
        """How the streams ``[B, T, N, D]`` are mixed."""
        raise AssertionError(f"{type(self).__name__} does not say how it mixes")

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, T, N, D]`` → ``[B, T, D]``, ``[B, T, N, D]`` and ``[B, T, N]``."""
        with exactly(h):
            read, carry, write = (part.to(h.dtype) for part in self.mixing(h))
            branch = (read[..., None] * h).sum(2)
            return branch, torch.matmul(carry, h), write.expand(h.shape[:3]).clone()


class HyperConnect(Connect):
    """See ``ops.HyperConnect``."""

    op: ops.HyperConnect

    def __init__(self, op: ops.HyperConnect) -> None:
        super().__init__(op)
        self.read = nn.Parameter(torch.zeros(op.streams))
        self.write = nn.Parameter(torch.ones(op.streams))
        self.carry = nn.Parameter(torch.eye(op.streams))
        if op.dynamic:
            self.moving = nn.Parameter(torch.zeros(op.streams + 2, op.width))
            self.scale = nn.Parameter(torch.full((2,), SMALL))

    def draw(self, seeded: Seeded) -> None:
        """Nothing is random; each branch starts on another stream."""
        with torch.no_grad():
            self.read.zero_()[self.place.index % self.op.streams] = 1

    def mixing(self, h: Tensor) -> Mixing:
        """``M``, ``Rᵀ`` and ``B``, and what the streams add to them."""
        if not self.op.dynamic:
            return self.read, self.carry.T, self.write
        wide = widened(h)
        moved = F.linear(F.layer_norm(wide, wide.shape[-1:]), self.moving.to(wide.dtype))
        moved = moved.tanh() if self.op.tanh else moved
        inner, outer = self.scale.to(wide.dtype)
        read = self.read + inner * moved[..., 0]
        carry = self.carry + inner * moved[..., 2:]
        return read, carry.mT, self.write + outer * moved[..., 1]


class ManifoldConnect(Connect):
    """See ``ops.ManifoldConnect``."""

    op: ops.ManifoldConnect

    def __init__(self, op: ops.ManifoldConnect) -> None:
        super().__init__(op)
        n = op.streams
        mean = torch.full((n,), -log(n - 1))
        apart = APART * (1 - torch.eye(n))
        self.bias = nn.Parameter(torch.cat([mean, torch.zeros(n), apart.flatten()]))
        if op.dynamic:
            self.moving = nn.Parameter(torch.zeros(op.maps, n * op.width))
            self.scale = nn.Parameter(torch.full((3,), SMALL))

    def mixing(self, h: Tensor) -> Mixing:
        """Shares of reading, writing, and a doubly stochastic matrix."""
        n, dtype = self.op.streams, widened(h).dtype
        sizes = [n, n, n * n]
        maps = torch.split(self.bias.to(dtype), sizes)
        if self.op.dynamic:
            flat = F.rms_norm(widened(h).flatten(2), (n * self.op.width,), None, 1e-6)
            moved = torch.split(F.linear(flat, self.moving.to(dtype)), sizes, -1)
            scales = self.scale.to(dtype).unbind()
            maps = tuple(b + a * m for b, a, m in zip(maps, scales, moved, strict=True))
        read, write, carry = maps
        balanced = sinkhorn(carry.reshape(*carry.shape[:-1], n, n), self.op.rounds)
        return read.sigmoid(), balanced, 2 * write.sigmoid()


def sinkhorn(logits: Tensor, rounds: int) -> Tensor:
    """``exp(logits)`` with rows and columns brought to a sum of one, columns first: ``[…, N, N]``.

    Source: Sinkhorn & Knopp 1967; in logarithms, so that no row underflows.
    """
    for _ in range(rounds):
        logits = logits - logits.logsumexp(-2, keepdim=True)
        logits = logits - logits.logsumexp(-1, keepdim=True)
    return logits.exp()


class Disperse(Site):
    """A branch's output on every stream."""

    def forward(self, y: Tensor, carried: Tensor, write: Tensor) -> Tensor:
        """``[B, T, D]``, ``[B, T, N, D]`` and ``[B, T, N]`` → ``[B, T, N, D]``."""
        return carried + write[..., None].to(carried.dtype) * y[:, :, None].to(carried.dtype)
