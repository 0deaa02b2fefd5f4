"""The module of attention with learned keys and values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.attention import SoftmaxAttention
from archdsl.blocks.nn.base import Seeded
from archdsl.blocks.ops import persistent as ops


class PersistentAttention(SoftmaxAttention):
    """See ``ops.PersistentAttention``; keys and values start normal, small."""

    def __init__(self, op: ops.PersistentAttention) -> None:
        super().__init__(op)
        shape = op.parameters()["keys"]
        self.keys = nn.Parameter(torch.empty(shape))
        self.values = nn.Parameter(torch.empty(shape))

    def draw(self, seeded: Seeded) -> None:
        """Draw the learned places."""
        super().draw(seeded)
        with torch.no_grad():
            self.keys.normal_(generator=seeded("keys"))
            self.values.normal_(std=0.02, generator=seeded("values"))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, past: int) -> Tensor:
        q = q.transpose(1, 2)
        seen = self._mask(q, k, past)
        places = seen.new_zeros(*seen.shape[:-1], len(self.keys))
        keys = torch.cat([self._learned(self.keys, k), k], 2)
        values = torch.cat([self._learned(self.values, v), v], 2)
        mask = torch.cat([places, seen], -1)
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(-2)

    def _learned(self, x: Tensor, like: Tensor) -> Tensor:
        """``[P, G·D]`` → ``[B, H, P, D]``."""
        return self._grouped(x.to(like.dtype).expand(like.shape[0], -1, -1))
