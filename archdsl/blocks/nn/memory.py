"""Modules of the recurrent memories: they shape tensors and call the kernel families."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.base import Context, Seeded, Site, State, exactly, heads_apart, widened
from archdsl.blocks.ops import memory as ops
from archdsl.kernels.decay import SumState, decay
from archdsl.kernels.delta import delta
from archdsl.kernels.scan import scan

Call = Literal["plain", "context", "state"]


def retention_decay(heads: int, like: Tensor) -> Tensor:
    """RetNet's log decay a head, ``log(1 - 2^(-5-h))`` (arXiv 2307.08621): ``[H]``."""
    h = torch.arange(heads, device=like.device, dtype=widened(like).dtype)
    return torch.log1p(-torch.exp2(-5 - h))


class _Recurrence(Site):
    """What decay and delta share: heads, scale and the decay's shape."""

    call: ClassVar[Call] = "state"

    def __init__(self, op: ops.Recurrence) -> None:
        super().__init__(op)
        self.heads, self.decay, self.lower = op.heads, op.decay, op.lower
        self.scale = op.key_dim**-0.5 if op.scale is None else op.scale

    def log_decay(self, gates: tuple[Tensor, ...], like: Tensor) -> Tensor | None:
        """``[H]``, ``[B, T, H]`` or ``[B, T, H, K]``, as the decay is."""
        if self.decay == "none":
            return None
        if self.decay == "constant":
            return retention_decay(self.heads, like)
        return gates[0] if self.decay == "head" else heads_apart(gates[0], self.heads)


class DecayMemory(_Recurrence):
    """See ``ops.DecayMemory``."""

    def __init__(self, op: ops.DecayMemory) -> None:
        super().__init__(op)
        self.normaliser = op.normaliser

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *gates: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, H·K]`` twice and ``[B, T, H·V]`` → ``[B, T, H·V]``, and the memory."""
        with exactly(q):
            out, after = decay(
                heads_apart(q, self.heads),
                heads_apart(k, self.heads),
                heads_apart(v, self.heads),
                self.log_decay(gates, q),
                scale=self.scale,
                initial_state=self._before(state),
                normalise=self.normaliser,
            )
        return out.flatten(-2).to(v.dtype), self._after(after) if context.keep else None

    def _before(self, state: State | None) -> Any:
        if state is None:
            return None
        return SumState(**state) if self.normaliser == "sum" else state["memory"]

    def _after(self, after: Any) -> State:
        return after._asdict() if self.normaliser == "sum" else {"memory": after}


class DeltaMemory(_Recurrence):
    """See ``ops.DeltaMemory``."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *gates: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, H·K]`` twice, ``[B, T, H·V]``, decay, rate → ``[B, T, H·V]``, and the memory."""
        with exactly(q):
            out, after = delta(
                heads_apart(q, self.heads),
                heads_apart(k, self.heads),
                heads_apart(v, self.heads),
                gates[-1],
                self.log_decay(gates, q),
                scale=self.scale,
                initial_state=None if state is None else state["memory"],
            )
        return out.flatten(-2).to(v.dtype), {"memory": after} if context.keep else None


class ScanMemory(Site):
    """See ``ops.ScanMemory``."""

    call: ClassVar[Call] = "state"

    def __init__(self, op: ops.ScanMemory) -> None:
        super().__init__(op)
        self.decay = op.decay

    def forward(
        self, k: Tensor, v: Tensor, *gates: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` twice and the log decay → the states ``[B, T, D]``."""
        written = widened(k) * widened(v)
        before = None if state is None else state["memory"]
        h, after = scan(None, written, log_a=self._log(gates, written), initial_state=before)
        return h.to(v.dtype), {"memory": after} if context.keep else None

    def _log(self, gates: tuple[Tensor, ...], like: Tensor) -> Tensor:
        if gates:
            return gates[0].expand_as(like)
        constant = retention_decay(1, like) if self.decay == "constant" else like.new_zeros(1)
        return constant.expand_as(like)


class DecayGate(Site):
    """See ``ops.DecayGate``. ``A`` starts uniform in (1, 16), step sizes log-uniform in (1e-3, 0.1)."""

    def __init__(self, op: ops.DecayGate) -> None:
        super().__init__(op)
        self.op: ops.DecayGate = op
        if op.form == "softplus":
            self.A_log = nn.Parameter(torch.empty(op.heads))
            self.bias = nn.Parameter(torch.empty(op.width))

    def draw(self, seeded: Seeded) -> None:
        """Rates and step sizes of the softplus form."""
        if self.op.form == "softplus":
            with torch.no_grad():
                self.A_log.uniform_(1, self.op.largest, generator=seeded("A_log")).log_()
                self.bias.copy_(inverse_softplus(step_sizes(self.op.width, seeded("bias"))))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits ``[B, T, H]`` or ``[B, T, H·K]`` → the log decay, and the step size if asked."""
        if self.op.form == "sigmoid":
            return self._sigmoid(widened(x))
        step = F.softplus(widened(x) + self.bias)
        rate = -self.A_log.exp()
        log = (heads_apart(step, self.op.heads) * rate[:, None]).flatten(-2)
        return (log, step) if self.op.step else log

    def _sigmoid(self, x: Tensor) -> Tensor:
        lower, upper = self.op.lower, self.op.upper
        if (lower, upper) == (0, 1):
            return F.logsigmoid(x) / self.op.temperature
        return torch.log(lower + (upper - lower) * torch.sigmoid(x)) / self.op.temperature


def step_sizes(count: int, generator: torch.Generator) -> Tensor:
    """Step sizes log-uniform between 0.001 and 0.1, at least 1e-4 (Mamba's initialisation)."""
    low, high = math.log(1e-3), math.log(1e-1)
    return torch.exp(torch.rand(count, generator=generator) * (high - low) + low).clamp(min=1e-4)


def inverse_softplus(y: Tensor) -> Tensor:
    """``x`` with ``softplus(x) = y``."""
    return y + torch.log(-torch.expm1(-y))


class Complement(Site):
    """``1 - exp(g)``, exact for small decays."""

    def forward(self, log_decay: Tensor) -> Tensor:
        """Same shape."""
        return -torch.expm1(log_decay)


class FixedRate(Site):
    """See ``ops.FixedRate``; a learned one starts at half its maximum."""

    def __init__(self, op: ops.FixedRate) -> None:
        super().__init__(op)
        self.heads, self.maximum = op.heads, op.maximum
        self.weight = nn.Parameter(torch.zeros(op.heads)) if op.learned else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, …]`` → ``[B, T, H]``."""
        if self.weight is None:
            return widened(x).new_ones(*x.shape[:2], self.heads)
        return (self.maximum * torch.sigmoid(self.weight)).expand(*x.shape[:2], self.heads)
