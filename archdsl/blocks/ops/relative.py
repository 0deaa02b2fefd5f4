"""Softmax attention with learned scores of relative distance, as one operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from archdsl.blocks.op import Shape, Work
from archdsl.blocks.ops.attention import SoftmaxAttention


class RelativeAttention(SoftmaxAttention):
    """Attention whose scores are ``(q + u)·k_j + (q + v)·(W r_{i-j})``, over ``√D``, a head.

    ``r_n`` is the sinusoidal signal of distance ``n``, ``width`` wide; ``u`` and ``v`` are one vector
    for all positions (Transformer-XL, arXiv 1901.02860 §3.3, equation of ``A^rel``).
    """

    module: ClassVar[str] = "archdsl.blocks.nn.relative:RelativeAttention"
    width: int

    def parameters(self) -> Mapping[str, Shape]:
        """The map of distances, and the vectors that stand for the query's own position."""
        size = self.heads * self.head_dim
        own: dict[str, Shape] = {
            "distance": (size, self.width),
            "content_bias": (size,),
            "distance_bias": (size,),
        }
        return {**super().parameters(), **own}

    def distances(self, steps: int, keys: int) -> int:
        """How many distances lie between ``steps`` queries and ``keys`` keys."""
        return keys if self.causal_ else keys + steps - 1

    def flops(self, work: Work) -> int:
        """Attention's, the map of every distance, and every query with every distance."""
        keys = self.cached(work.length - 1) + 1 if work.mode == "decode" else work.length
        size = self.heads * self.head_dim
        count = self.distances(work.steps, keys)
        return super().flops(work) + 2 * count * size * (self.width + work.tokens)
