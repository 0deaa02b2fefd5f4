"""Multi-head latent attention over projected queries and compressed keys and values, as one operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from archdsl.blocks.op import Buffer, Shape, Type, Work
from archdsl.blocks.ops.attention import SoftmaxAttention


class LatentAttention(SoftmaxAttention):
    """Softmax attention whose keys and values are maps of one narrow stream (arXiv 2405.04434 §2.1).

    Inputs are queries ``[B, T, H·(N + R)]`` and ``[B, T, L + R]``: the ``latent`` channels ``c``, and a
    key of ``shared`` channels for all heads. With ``c`` behind an RMS norm, a head's key is ``[W_k c;
    key]``, its value ``W_v c``; RoPE turns the shared channels alone. Decoding caches ``c`` and the
    shared key. ``head_dim`` is ``N + R``.
    """

    module: ClassVar[str] = "archdsl.blocks.nn.latent:LatentAttention"
    inputs: ClassVar[int] = 2
    latent: int
    shared: int
    value_dim: int

    @property
    def content(self) -> int:
        """Channels of a head that are its own, ``N``."""
        return self.head_dim - self.shared

    @property
    def fused(self) -> int:
        """Channels a head of the fused kernel, which wants queries, keys and values alike."""
        return max(self.head_dim, self.value_dim)

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """What is read: ``[B, T, H·V]``."""
        return (replace(inputs[0], width=self.heads * self.value_dim),)

    def parameters(self) -> Mapping[str, Shape]:
        """The norm's gain, and both maps out of the latent channels."""
        return {
            "norm": (self.latent,),
            "key": (self.heads * self.content, self.latent),
            "value": (self.heads * self.value_dim, self.latent),
        }

    def state(self, length: int) -> Mapping[str, Buffer]:
        """What is compressed; none where attention looks ahead."""
        if not self.causal_:
            return {}
        return {"latents": Buffer((self.cached(length), self.latent + self.shared), "model")}

    def flops(self, work: Work) -> int:
        """Maps of every token and the full square; a decoded token meets the cache as it is.

        Its query goes through the keys' map and what it reads through the values', so that no key or
        value is made.
        """
        maps = 2 * self.heads * self.latent * (self.content + self.value_dim)
        if work.mode == "decode":
            keys = self.cached(work.length - 1) + 1
            return work.tokens * (maps + 2 * self.heads * keys * (2 * self.latent + self.shared))
        return work.tokens * (maps + 4 * work.length * self.heads * self.fused)
