"""Modules of the recurrent memories: they shape tensors and call the kernel families."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.base import (
    Context,
    Seeded,
    Site,
    State,
    exactly,
    heads_apart,
    unit,
    widened,
)
from archdsl.blocks.nn.start import inverse_softplus, step_sizes, zigzag
from archdsl.blocks.ops import memory as ops
from archdsl.kernels.decay import MaxState, SumState, decay
from archdsl.kernels.delta import delta, delta_general
from archdsl.kernels.scan import scan
from archdsl.kernels.shell.loss import capped

Call = Literal["plain", "context", "state"]


def retention_decay(heads: int, like: Tensor) -> Tensor:
    """RetNet's log decay a head, ``log(1 - 2^(-5-h))`` (arXiv 2307.08621): ``[H]``."""
    h = torch.arange(heads, device=like.device, dtype=widened(like).dtype)
    return torch.log1p(-torch.exp2(-5 - h))


class _Recurrence(Site):
    """What decay and delta share: heads, scale and the decay's shape."""

    call: ClassVar[Call] = "state"
    packs: ClassVar[bool] = True
    op: ops.Recurrence
    heads: int
    decay: str
    ports: tuple[str, ...]
    scale: float
    bonus: Tensor | None

    def __init__(self, op: ops.Recurrence) -> None:
        super().__init__(op)
        scale = op.key_dim**-0.5 if op.scale is None else op.scale
        self.note(heads=op.heads, decay=op.decay, ports=op.ports, scale=scale)
        self.hold(bonus=torch.empty(op.parameters()["bonus"]) if op.bonus else None)

    def draw(self, seeded: Seeded) -> None:
        """RWKV-6's bonus: falling over the channels, the more the deeper, and a zigzag."""
        if self.bonus is not None:
            falling = 1 - torch.linspace(0, 1, self.bonus.numel())
            zigzag = (torch.arange(1, self.bonus.numel() + 1) % 3 - 1) * 0.1
            with torch.no_grad():
                self.bonus.copy_((self.place.share * falling + zigzag).view_as(self.bonus))

    def log_decay(self, given: dict[str, Tensor]) -> Tensor | None:
        """``[H]``, ``[B, T, H]`` or ``[B, T, H, K]``, as the decay is."""
        if self.decay == "none":
            return None
        if self.decay == "constant":
            return retention_decay(self.heads, given["query"])
        log = given["decay"]
        return log if self.decay == "head" else heads_apart(log, self.heads)

    def micro(self, x: Tensor, *sizes: int) -> Tensor:
        """``[B, T, n·H·…]`` → ``[B, T·n, H, …]``: several writes a token, one after the other."""
        return x.reshape(x.shape[0], x.shape[1] * self.op.steps, self.heads, *sizes)


class DecayMemory(_Recurrence):
    """See ``ops.DecayMemory``."""

    def forward(
        self, *inputs: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """The operation's ports → ``[B, T, H·V]``, and the memory."""
        given = dict(zip(self.ports, inputs, strict=True))
        q, k, v = (heads_apart(given[name], self.heads) for name in self.ports[:3])
        with exactly(q):
            out, after = decay(
                q,
                k,
                v,
                self.log_decay(given),
                scale=self.scale,
                initial_state=self._before(state),
                cu_seqlens=context.cu_seqlens,
                read=self.op.read,
                bonus=self.bonus,
                normalise=self.op.normaliser,
                log_input=given.get("input"),
            )
        return out.flatten(-2).to(v.dtype), self._after(after) if context.keep else None

    def _before(self, state: State | None) -> Any:
        kinds: dict[str, Any] = {"sum": SumState, "max": MaxState}
        if state is None:
            return None
        kind = kinds.get(self.op.normaliser)
        return state["memory"] if kind is None else kind(**state)

    def _after(self, after: Any) -> State:
        return {"memory": after} if isinstance(after, Tensor) else after._asdict()


class DeltaMemory(_Recurrence):
    """See ``ops.DeltaMemory``."""

    def forward(
        self, *inputs: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """The operation's ports → ``[B, T, H·V]``, and the memory."""
        given = dict(zip(self.ports, inputs, strict=True))
        how: dict[str, Any] = {
            "scale": self.scale,
            "initial_state": None if state is None else state["memory"],
            "cu_seqlens": context.cu_seqlens,
        }
        with exactly(inputs[0]):
            out, after = (self._general if self.op.general else self._steps)(given, how)
        kept = {"memory": after} if context.keep else None
        return out.flatten(-2).to(given["value"].dtype), kept

    def _steps(self, given: dict[str, Tensor], how: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """One or more writes a token."""
        erase = given.get("erase")
        return delta(
            heads_apart(given["query"], self.heads),
            self.micro(given["key"], self.op.key_dim),
            self.micro(given["value"], self.op.value_dim),
            self.micro(given["rate"]),
            self.log_decay(given),
            erase_key=None if erase is None else self.micro(erase, self.op.key_dim),
            rank=self.op.steps,
            **how,
        )

    def _general(self, given: dict[str, Tensor], how: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Keys of its own for what is erased and where that is written."""
        q, k, v, erase, rate = (
            heads_apart(given[name], self.heads)
            for name in ("query", "key", "value", "erase", "rate")
        )
        return delta_general(q, k, v, erase, rate, self.log_decay(given), **how)


class ScanMemory(Site):
    """See ``ops.ScanMemory``."""

    call: ClassVar[Call] = "state"
    packs: ClassVar[bool] = True

    def __init__(self, op: ops.ScanMemory) -> None:
        super().__init__(op)
        self.decay = op.decay

    def forward(
        self, k: Tensor, v: Tensor, *gates: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` twice and the log decay → the states ``[B, T, D]``."""
        written = widened(k) * widened(v)
        before = None if state is None else state["memory"]
        h, after = scan(
            None,
            written,
            log_a=self._log(gates, written),
            initial_state=before,
            cu_seqlens=context.cu_seqlens,
        )
        return h.to(v.dtype), {"memory": after} if context.keep else None

    def _log(self, gates: tuple[Tensor, ...], like: Tensor) -> Tensor:
        if gates:
            return gates[0].expand_as(like)
        constant = retention_decay(1, like) if self.decay == "constant" else like.new_zeros(1)
        return constant.expand_as(like)


class DecayGate(Site):
    """See ``ops.DecayGate``. Step sizes start log-uniform in (1e-3, 0.1)."""

    op: ops.DecayGate

    def __init__(self, op: ops.DecayGate) -> None:
        super().__init__(op)
        for name, shape in op.parameters().items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def draw(self, seeded: Seeded) -> None:
        """Rates, biases and bounds, as the operation says."""
        op = self.op
        with torch.no_grad():
            if op.form == "softplus":
                rate = self.get_parameter("A_log")
                rate.uniform_(op.smallest, op.largest, generator=seeded("A_log"))
                rate.clamp_(min=1e-4).log_()
            if op.start != "none":
                self.get_parameter("bias").copy_(self._start(seeded))
            if op.deepening:
                depth = max(self.place.index / self.place.count, 1e-3)
                self.get_parameter("bound").fill_(math.log(depth / (1 - depth)))

    def _start(self, seeded: Seeded) -> Tensor:
        """Where the bias starts: ``[width]``."""
        op, share = self.op, self.place.share
        rising = torch.linspace(0, 1, op.width)
        if op.start == "steps":
            return inverse_softplus(step_sizes(op.width, seeded("bias")))
        if op.start == "open":
            return 3 + 3 * rising
        if op.start == "ramp":
            return -6 + 5 * rising ** (0.7 + 1.3 * share)
        if op.start == "zigzag":
            return -5.5 + 6 * rising ** float(1 + share**0.3) + 2.5 * zigzag(op.width, op.heads)
        return torch.zeros(op.width)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits ``[B, T, H]`` or ``[B, T, H·K]`` → the log decay, and the step size if asked."""
        logits = widened(x)
        if self.op.start != "none":
            logits = logits + self.held("bias")
        if self.op.cap is not None:
            logits = capped(logits, self.op.cap)
        if self.op.form == "softplus":
            return self._softplus(F.softplus(logits))
        if self.op.form == "exponential":
            return -torch.exp(logits.clamp(max=FASTEST))
        if self.op.form == "bounded":
            return math.log(self.op.lower) * torch.sigmoid(logits)
        return self._sigmoid(logits)

    def _softplus(self, step: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        rate = -self.held("A_log").exp()
        log = (heads_apart(step, self.op.heads) * rate[:, None]).flatten(-2)
        return (log, step) if self.op.step else log

    def _sigmoid(self, x: Tensor) -> Tensor:
        lower, upper = self.op.lower, self.op.upper
        if self.op.deepening:
            bound = torch.sigmoid(self.held("bound").to(x.dtype))
            return torch.log(bound + (1 - bound) * torch.sigmoid(x)) / self.op.temperature
        if (lower, upper) == (0, 1):
            return F.logsigmoid(x) / self.op.temperature
        return torch.log(lower + (upper - lower) * torch.sigmoid(x)) / self.op.temperature


FASTEST = 5.0
"""Logits above this one give no faster an exponential decay: ``exp(-exp(5))`` is 1e-65."""


class RunningSoftmax(Site):
    """See ``ops.RunningSoftmax``."""

    call: ClassVar[Call] = "state"

    def forward(
        self, x: Tensor, state: State | None, context: Context
    ) -> tuple[tuple[Tensor, Tensor], State | None]:
        """Logits ``[B, T, D]`` → the log decay and the key, and the total."""
        logits = widened(x)
        before = (self.init_state(x.shape[0], x) if state is None else state)["total"]
        before = before[:, None].to(logits.dtype)
        total = torch.logaddexp(before, torch.logcumsumexp(logits, 1))
        previous = torch.cat([before, total[:, :-1]], 1)
        first = previous.isneginf()
        log_decay = previous.masked_fill(first, 0) - total.masked_fill(first, 0)
        kept = {"total": total[:, -1]} if context.keep else None
        return (log_decay.clamp(max=0), torch.exp(logits - total).to(x.dtype)), kept


class RemovalKeys(Site):
    """See ``ops.RemovalKeys``."""

    def __init__(self, op: ops.RemovalKeys) -> None:
        super().__init__(op)
        self.heads = op.heads
        self.removal = nn.Parameter(0.71 - 0.1 * (torch.linspace(0, 1, op.width) - 0.5))
        self.mix = nn.Parameter(torch.full((op.width,), 1.02))

    def forward(self, k: Tensor, rate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, T, H·K]`` twice → the write key, the erase key, and the key it is written by."""
        key, a = widened(k), widened(rate)
        removed = unit(heads_apart(key * self.removal, self.heads)).flatten(-2)
        written = key * (1 + (a - 1) * self.mix)
        return written.to(k.dtype), -removed.to(k.dtype), (removed * a).to(k.dtype)


class ReadBonus(Site):
    """See ``ops.ReadBonus``; RWKV-7 starts it at -0.04."""

    def __init__(self, op: ops.ReadBonus) -> None:
        super().__init__(op)
        self.heads = op.heads
        self.weight = nn.Parameter(torch.full((op.heads, op.key_dim), -0.04))

    def forward(self, y: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``[B, T, H·V]`` → the same."""
        query, key, value = (heads_apart(x, self.heads) for x in (q, k, v))
        bonus = (query * key * self.weight).sum(-1, keepdim=True) * value
        return y + bonus.flatten(-2).to(y.dtype)


class ValueResidual(Site):
    """See ``ops.ValueResidual``; RWKV-7's bias falls over the channels."""

    call: ClassVar[Call] = "context"
    op: ops.ValueResidual

    def __init__(self, op: ops.ValueResidual) -> None:
        super().__init__(op)
        self.bias = nn.Parameter(0.73 - 0.4 * (torch.linspace(0, 1, op.width) - 0.5))
        self.down = nn.Parameter(torch.empty(op.rank, op.width_in))
        self.up = nn.Parameter(torch.empty(op.width, op.rank))

    def draw(self, seeded: Seeded) -> None:
        """The low-rank map gives nothing yet."""
        with torch.no_grad():
            self.down.zero_()
            self.up.normal_(std=0.02, generator=seeded("up"))

    def forward(self, v: Tensor, x: Tensor, context: Context) -> Tensor:
        """Values ``[B, T, H·V]`` and the stream ``[B, T, D]`` → values."""
        first = context.carried.setdefault(f"value of {self.op.width}", v)  # a loop's first run
        share = torch.sigmoid(F.linear(F.linear(x, self.down), self.up) + self.bias)
        return torch.lerp(v, first.to(v.dtype), share.to(v.dtype))


class FirstValue(Site):
    """See ``ops.FirstValue``."""

    call: ClassVar[Call] = "context"

    def __init__(self, op: ops.FirstValue) -> None:
        super().__init__(op)
        self.width = op.width

    def forward(self, v: Tensor, context: Context) -> Tensor:
        """Values ``[B, T, H·V]``, as they are."""
        context.carried[f"value of {self.width}"] = v
        return v


class SoftCap(Site):
    """See ``ops.SoftCap``."""

    def __init__(self, op: ops.SoftCap) -> None:
        super().__init__(op)
        self.cap = op.cap

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return capped(x, self.cap)


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
            return widened(x).new_full((*x.shape[:2], self.heads), self.maximum)
        return (self.maximum * torch.sigmoid(self.weight)).expand(*x.shape[:2], self.heads)
