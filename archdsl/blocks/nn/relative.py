"""Attention with scores of relative distance (Transformer-XL, arXiv 1901.02860)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.attention import SoftmaxAttention
from archdsl.blocks.nn.base import Seeded, heads_apart, widened
from archdsl.blocks.nn.dense import draw_matrix, sinusoidal
from archdsl.blocks.ops import relative as ops


class RelativeAttention(SoftmaxAttention):
    """See ``ops.RelativeAttention``: fused attention with the distances' scores as its mask."""

    op: ops.RelativeAttention

    def __init__(self, op: ops.RelativeAttention) -> None:
        super().__init__(op)
        size = op.heads * op.head_dim
        self.distance = nn.Parameter(torch.empty(size, op.width))
        self.content_bias = nn.Parameter(torch.zeros(size))
        self.distance_bias = nn.Parameter(torch.zeros(size))

    def draw(self, seeded: Seeded) -> None:
        """The map as any projection; the vectors start at zero."""
        draw_matrix(self.distance, "fan_in", seeded("distance"))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, past: int) -> Tensor:
        mask = self._scores(q.transpose(1, 2), k, past)
        content = heads_apart(self.content_bias, self.op.heads).to(q.dtype)
        seen = (q + content).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(seen, k, v, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(-2)

    def probabilities(self, query: Tensor, key: Tensor) -> Tensor:
        """See ``SoftmaxAttention.probabilities``."""
        q, k = self._positioned(query, key, 0)
        content = heads_apart(self.content_bias, self.op.heads).to(q.dtype)
        seen, k = (q + content).transpose(1, 2), self._grouped(k.flatten(-2))
        scores = self._scores(q.transpose(1, 2), k, 0)
        return (seen @ k.mT * math.sqrt(1 / q.shape[-1]) + scores).softmax(-1)

    def _scores(self, q: Tensor, k: Tensor, past: int) -> Tensor:
        """What is added to the products of contents for queries ``[B, H, T, D]``: ``[B, H, T, S]``."""
        own = heads_apart(self.distance_bias, self.op.heads).to(q.dtype)[:, None]
        scores = self._by_distance(q + own, k.shape[2], past)
        return self._mask(q, k, past) + scores * math.sqrt(1 / self.op.head_dim)

    def _by_distance(self, q: Tensor, keys: int, past: int) -> Tensor:
        """``(q + v)·(W r_{i-j})`` for queries ``[B, H, T, D]``: ``[B, H, T, S]``."""
        steps = q.shape[2]
        lowest = 0 if self.op.causal else past + 1 - keys
        far = torch.arange(lowest, steps + past, device=q.device)
        signal = sinusoidal(far.to(widened(q).dtype), self.op.width).to(q.dtype)
        mapped = heads_apart(F.linear(signal, self.distance.to(q.dtype)), self.op.heads)
        scores = q @ mapped.permute(1, 2, 0)
        rows = torch.arange(steps, device=q.device)[:, None] + past
        behind = rows - torch.arange(keys, device=q.device)
        place = (behind - lowest).clamp_min(0).expand(*scores.shape[:3], keys)
        return scores.gather(-1, place)
