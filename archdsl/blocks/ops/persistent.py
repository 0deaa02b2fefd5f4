"""Attention with learned keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from archdsl.blocks.op import Shape, Work
from archdsl.blocks.ops.attention import SoftmaxAttention


class PersistentAttention(SoftmaxAttention):
    """``SoftmaxAttention`` in which every token also sees ``persistent`` learned keys and values."""

    module: ClassVar[str] = "archdsl.blocks.nn.persistent:PersistentAttention"
    persistent: int

    def parameters(self) -> Mapping[str, Shape]:
        """``keys`` and ``values [persistent, G·D]`` besides those of attention."""
        shape = (self.persistent, self.kv_heads * self.head_dim)
        return {**super().parameters(), "keys": shape, "values": shape}

    def flops(self, work: Work) -> int:
        """As attention's, over so many more keys."""
        more = 4 * work.tokens * self.persistent * self.heads * self.head_dim
        return super().flops(work) + more
