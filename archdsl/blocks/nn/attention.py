"""Attention on PyTorch's fused kernel, with positions, windows and a cache."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

from archdsl.blocks.nn.base import Context, Site, State, heads_apart, widened
from archdsl.blocks.ops import attention as ops


def rotated(x: Tensor, base: int, position: int | Tensor, period: int | None = None) -> Tensor:
    """RoPE on ``[B, T, H, D]`` from ``position`` on: pairs are the halves of a head."""
    half = x.shape[-1] // 2
    dtype = widened(x).dtype
    rate = base ** (-torch.arange(half, device=x.device, dtype=dtype) / half)
    if not isinstance(position, Tensor):
        position = torch.arange(x.shape[1], device=x.device) + position
    place = position.to(dtype)
    place = place if period is None else place % period
    angle = (place[:, None] * rate)[:, None]
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


def partly_rotated(x: Tensor, base: int, position: int | Tensor, turned: int | None) -> Tensor:
    """RoPE on the first ``turned`` channels of each head, or on all."""
    if turned is None or turned == x.shape[-1]:
        return rotated(x, base, position)
    return torch.cat([rotated(x[..., :turned], base, position), x[..., turned:]], -1)


def slopes(heads: int) -> list[float]:
    """ALiBi's slope a head: ``2^(-8h/H)``; for other than powers of two as the paper's own code.

    Source: arXiv 2108.12409; the code takes the slopes of the next lower power, and every other one
    of the next higher power for the rest.
    """
    power = 1 << (heads.bit_length() - 1)
    first = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    rest = [2 ** (-8 * (h + 1) / (2 * power)) for h in range(0, 2 * power, 2)]
    return (first + rest)[:heads]


class Rotary(Site):
    """RoPE on a stream of heads."""

    call: ClassVar[Literal["plain", "context", "state"]] = "context"
    places: ClassVar[bool] = True

    def __init__(self, op: ops.Rotary) -> None:
        super().__init__(op)
        self.heads, self.base, self.period = op.heads, op.base, op.period

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """``[B, T, H·D]`` → the same."""
        apart = heads_apart(x, self.heads)
        return rotated(apart, self.base, context.places(x), self.period).flatten(-2)


class ValueMix(Site):
    """See ``ops.ValueMix``."""

    call: ClassVar[Literal["plain", "context", "state"]] = "context"

    def __init__(self, op: ops.ValueMix) -> None:
        super().__init__(op)
        self.width = op.width
        self.weight = nn.Parameter(torch.full((2,), 0.5)) if op.learned else None

    def forward(self, value: Tensor, context: Context) -> Tensor:
        """``[B, T, G·D]`` → the same."""
        first = context.carried.setdefault(f"attention value of {self.width}", value)
        if self.weight is None:
            return (first + value) / 2
        return self.weight[0] * first + self.weight[1] * value


class SoftmaxAttention(Site):
    """Attention over projected streams; see ``ops.SoftmaxAttention``."""

    call: ClassVar[Literal["plain", "context", "state"]] = "state"
    op: ops.SoftmaxAttention

    def __init__(self, op: ops.SoftmaxAttention) -> None:
        super().__init__(op)
        if op.qk_norm:
            self.query_norm = nn.Parameter(torch.ones(op.head_dim))
            self.key_norm = nn.Parameter(torch.ones(op.head_dim))

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, H·D]``, ``[B, T, G·D]`` twice → ``[B, T, H·D]``, and the cache."""
        q, k = self._positioned(query, key, context.position)
        k, past = k.flatten(-2), 0
        if state is not None:
            past = state["keys"].shape[1]
            k, value = torch.cat([state["keys"], k], 1), torch.cat([state["values"], value], 1)
        mixed = self._attend(q, self._grouped(k), self._grouped(value), past)
        return mixed, self._kept(k, value, context)

    def _positioned(self, query: Tensor, key: Tensor, position: int) -> tuple[Tensor, Tensor]:
        q, k = heads_apart(query, self.op.heads), heads_apart(key, self.op.kv_heads)
        if self.op.qk_norm:
            q = F.rms_norm(q, (self.op.head_dim,), self.query_norm.to(q.dtype), 1e-6)
            k = F.rms_norm(k, (self.op.head_dim,), self.key_norm.to(k.dtype), 1e-6)
        if self.op.position == "rope":
            q = partly_rotated(q, self.op.base, position, self.op.turned)
            k = partly_rotated(k, self.op.base, position, self.op.turned)
        return q, k

    def _grouped(self, x: Tensor) -> Tensor:
        """``[B, S, G·D]`` → ``[B, H, S, D]``, each group given to its query heads."""
        x = heads_apart(x, self.op.kv_heads).transpose(1, 2)
        times = self.op.heads // self.op.kv_heads
        return x if times == 1 else x.repeat_interleave(times, 1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, past: int) -> Tensor:
        q = q.transpose(1, 2)
        one = q.shape[2] == 1  # a single token sees all it is given: the cache holds nothing else
        plain = (self.op.window is None or one) and self.op.position != "alibi"
        if plain and not self.op.causal:
            mixed = F.scaled_dot_product_attention(q, k, v)
        elif plain and (past == 0 or one):
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=not one)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask(q, k, past))
        return mixed.transpose(1, 2).flatten(-2)

    def probabilities(self, query: Tensor, key: Tensor) -> Tensor:
        """Attention weights from the sequence's start, from its projections: ``[B, H, T, S]``."""
        q, k = self._positioned(query, key, 0)
        q, k = q.transpose(1, 2), self._grouped(k.flatten(-2))
        weights: Tensor = (q @ k.mT * q.shape[-1] ** -0.5 + self._mask(q, k, 0)).softmax(-1)
        return weights

    def _mask(self, q: Tensor, k: Tensor, past: int) -> Tensor:
        """Scores to add, ``[T, S]`` or ``[H, T, S]``: key ``j`` stands ``past`` tokens earlier."""
        rows = torch.arange(q.shape[2], device=q.device)[:, None]
        columns = torch.arange(k.shape[2], device=q.device) - past
        behind = rows - columns
        seen = behind >= 0 if self.op.causal else torch.ones_like(behind, dtype=torch.bool)
        if self.op.window is not None:
            seen = seen & (behind.abs() < self.op.window)
        zero = torch.zeros((), dtype=q.dtype, device=q.device)
        mask = torch.where(seen, zero, float("-inf"))
        if self.op.position == "alibi":
            slope = torch.tensor(slopes(self.op.heads), dtype=q.dtype, device=q.device)
            mask = mask - slope[:, None, None] * behind.abs().to(q.dtype)
        return mask

    def _kept(self, key: Tensor, value: Tensor, context: Context) -> State | None:
        if not context.keep or not self.op.causal:
            return None
        start = 0 if self.op.window is None else max(0, key.shape[1] - self.op.window + 1)
        return {"keys": key[:, start:], "values": value[:, start:]}


def _count_fused(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """FLOPs of the CPU's fused attention, which PyTorch's counter leaves out: two square products."""
    batch, heads, length, size = query
    return int(2 * batch * heads * length * key[2] * (size + value[3]))


def _count_fused_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    """Five products of the same size: scores again, and four gradients."""
    return _count_fused(query, key, value) * 5 // 2


def _register() -> None:
    aten = torch.ops.aten
    pairs: list[tuple[Any, Any]] = [
        (aten._scaled_dot_product_flash_attention_for_cpu, _count_fused),
        (aten._scaled_dot_product_flash_attention_for_cpu_backward, _count_fused_backward),
    ]
    for target, formula in pairs:
        if target not in flop_registry:
            register_flop_formula(target)(formula)


_register()
