"""The module of multi-head latent attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.attention import SoftmaxAttention, rotated
from archdsl.blocks.nn.base import Context, Seeded, State, by_head, heads_apart, widened
from archdsl.blocks.nn.dense import draw_matrix
from archdsl.blocks.ops import latent as ops


class LatentAttention(SoftmaxAttention):
    """See ``ops.LatentAttention``."""

    op: ops.LatentAttention

    def __init__(self, op: ops.LatentAttention) -> None:
        super().__init__(op)
        shapes = op.parameters()
        self.norm = nn.Parameter(torch.ones(shapes["norm"]))
        self.key = nn.Parameter(torch.empty(shapes["key"]))
        self.value = nn.Parameter(torch.empty(shapes["value"]))

    def draw(self, seeded: Seeded) -> None:
        """Both maps as any projection."""
        draw_matrix(self.key, "fan_in", seeded("key"))
        draw_matrix(self.value, "fan_in", seeded("value"))

    def forward(  # type: ignore[override]
        self, query: Tensor, compressed: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, H·(N + R)]`` and ``[B, T, L + R]`` → ``[B, T, H·V]``, and the cache."""
        q, seen = self._placed(query, compressed, context.position)
        past = 0
        if state is not None:
            past = state["latents"].shape[1]
            seen = torch.cat([state["latents"], seen], 1)
        one = state is not None and query.shape[1] == 1
        mixed = self._token(q, seen) if one else self._expanded(q, seen, past)
        return mixed, self._cached(seen, context)

    def _placed(self, query: Tensor, compressed: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Queries ``[B, T, H, N + R]``, and what is cached: both with their shared channels turned."""
        op, q = self.op, heads_apart(query, self.op.heads)
        latent, key = torch.split(compressed, [op.latent, op.shared], -1)
        latent = F.rms_norm(latent, (op.latent,), self.norm.to(latent.dtype), 1e-6)
        if op.position == "rope":
            own, turned = torch.split(q, [op.content, op.shared], -1)
            q = torch.cat([own, rotated(turned, op.base, position)], -1)
            key = rotated(key[:, :, None], op.base, position)[:, :, 0]
        return q, torch.cat([latent, key], -1)

    def _expanded(self, q: Tensor, seen: Tensor, past: int) -> Tensor:
        """Attention with every key and value made."""
        op = self.op
        key, value = self._keys(seen), self._values(seen)
        q, key, value = (F.pad(x, (0, op.fused - x.shape[-1])) for x in (q, key, value))
        if op.fused > op.head_dim:
            q = q * (op.fused / op.head_dim) ** 0.5  # the kernel scales by what it is given
        mixed = self._attend(q, key.transpose(1, 2), value.transpose(1, 2), past)
        return heads_apart(mixed, op.heads)[..., : op.value_dim].flatten(-2)

    def _keys(self, seen: Tensor) -> Tensor:
        """``[B, S, L + R]`` → ``[B, S, H, N + R]``."""
        latent, shared = torch.split(seen, [self.op.latent, self.op.shared], -1)
        own = heads_apart(F.linear(latent, self.key.to(seen.dtype)), self.op.heads)
        return torch.cat([own, shared[:, :, None].expand(*own.shape[:3], -1)], -1)

    def _values(self, seen: Tensor) -> Tensor:
        """``[B, S, L + R]`` → ``[B, S, H, V]``."""
        latent = seen[..., : self.op.latent]
        return heads_apart(F.linear(latent, self.value.to(seen.dtype)), self.op.heads)

    def _token(self, q: Tensor, seen: Tensor) -> Tensor:
        """One query a sequence ``[B, 1, H, N + R]``, carried into the channels of what is cached."""
        op = self.op
        own, turned = torch.split(q[:, 0], [op.content, op.shared], -1)
        key, value = (w.to(q.dtype).view(op.heads, -1, op.latent) for w in (self.key, self.value))
        inner = by_head(own.flatten(1), key.mT.contiguous()).view(-1, op.heads, op.latent)
        scores = torch.cat([inner, turned], -1) @ seen.mT * op.head_dim**-0.5
        weights = widened(scores).softmax(-1).to(seen.dtype)
        read = weights @ seen[..., : op.latent]
        return by_head(read.flatten(1), value)[:, None]

    def probabilities(self, query: Tensor, key: Tensor) -> Tensor:
        """See ``SoftmaxAttention.probabilities``; ``key`` is what is compressed."""
        q, seen = self._placed(query, key, 0)
        q, k = q.transpose(1, 2), self._keys(seen).transpose(1, 2)
        weights: Tensor = (q @ k.mT * q.shape[-1] ** -0.5 + self._mask(q, k, 0)).softmax(-1)
        return weights

    def _cached(self, seen: Tensor, context: Context) -> State | None:
        if not context.keep or not self.op.causal:
            return None
        start = 0 if self.op.window is None else max(0, seen.shape[1] - self.op.window + 1)
        return {"latents": seen[:, start:]}
