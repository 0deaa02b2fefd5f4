"""Softmax attention as one operation over projected queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from archdsl.blocks.op import Buffer, Op, Shape, Type, Work


class SoftmaxAttention(Op):
    """``softmax(q kᵀ / √D + bias) v`` a head; q ``[B, T, H·D]``, k and v ``[B, T, G·D]``, G | H.

    ``window = w`` keeps keys ``t - w + 1 … t``. Decoding caches keys (rotated) and values of every
    token that a later one sees: all of them, or the last ``window - 1``. qk-norm is an RMS norm over
    each head, before RoPE, as published (arXiv 2010.04245; placement as in the public models). RoPE
    turns the first ``turned`` channels of a head.
    """

    module: ClassVar[str] = "archdsl.blocks.nn.attention:SoftmaxAttention"
    inputs: ClassVar[int] = 3
    heads: int
    kv_heads: int
    head_dim: int
    position: Literal["none", "rope", "alibi"] = "none"
    base: int = 10_000
    turned: int | None = None
    window: int | None = None
    causal_: bool = True
    qk_norm: bool = False

    @property
    def causal(self) -> bool:
        """As asked."""
        return self.causal_

    def parameters(self) -> Mapping[str, Shape]:
        """Gains of the query and key norms."""
        gain: Shape = (self.head_dim,)
        return {"query_norm": gain, "key_norm": gain} if self.qk_norm else {}

    def cached(self, length: int) -> int:
        """Tokens in the cache after ``length``."""
        return length if self.window is None else min(length, self.window - 1)

    def state(self, length: int) -> Mapping[str, Buffer]:
        """Keys and values; none where attention looks ahead."""
        if not self.causal_:
            return {}
        cache = Buffer((self.cached(length), self.kv_heads * self.head_dim), "model")
        return {"keys": cache, "values": cache}

    def flops(self, work: Work) -> int:
        """Scores and sums over the full square, masked or not: it is what the kernel computes."""
        keys = self.cached(work.length - 1) + 1 if work.mode == "decode" else work.length
        return 4 * work.tokens * keys * self.heads * self.head_dim


class Rotary(Op):
    """RoPE on each head's slice (half-split pairs, arXiv 2104.09864); places count modulo a ``period``."""

    module: ClassVar[str] = "archdsl.blocks.nn.attention:Rotary"
    width: int
    heads: int
    base: int = 10_000
    period: int | None = None

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The input."""
        return (inputs[0],)


class ValueMix(Op):
    """``λ₁ v_first + λ₂ v``: values mixed with those of the first layer that has this, of equal width.

    Source: arXiv 2410.17897. Both weights start at one half; fixed unless ``learned``.
    """

    module: ClassVar[str] = "archdsl.blocks.nn.attention:ValueMix"
    width: int
    learned: bool

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [2]`` where it is learned."""
        return {"weight": (2,)} if self.learned else {}
