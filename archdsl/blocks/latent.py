"""``latent_attention``: softmax attention over compressed keys and values (MLA)."""

from __future__ import annotations

from typing import ClassVar, Literal

from archdsl.blocks.base import (
    Builder,
    Children,
    Count,
    Invalid,
    Layer,
    Value,
    divides,
    features,
)
from archdsl.blocks.op import Type
from archdsl.blocks.ops.dense import Linear, Norm
from archdsl.blocks.ops.latent import LatentAttention


class LatentAttentionLayer(Layer):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434 §2.1): a cache narrower than its keys.

    A token is compressed to ``latent`` channels, from which every head makes its own ``head_dim``
    channels of a key and ``value_dim`` of a value, and to a key of ``shared_dim`` channels that all heads
    have in common and ``position = rope`` turns. Queries may be made through ``query_latent`` channels.
    Where nothing is said a head has width over heads channels, values as many, the shared key half, and
    there are four times as many latent ones.
    """

    name: ClassVar[str] = "latent_attention"
    keeps: ClassVar[bool] = True
    heads: Count
    latent: Count | None = None
    query_latent: Count | None = None
    head_dim: Count | None = None
    value_dim: Count | None = None
    shared_dim: Count | None = None
    position: Literal["none", "rope"] = "none"
    base: Count = 10_000
    window: Count | None = None
    causal: bool = True

    def infer(self, stream: Type) -> Type:
        """Heads divide the width unless ``head_dim`` is given; rotated pairs need an even width."""
        shared = self._core(features(stream, self.name)).shared
        if self.position == "rope" and shared % 2:
            raise Invalid(
                "odd-rotary",
                f"RoPE turns pairs of channels, and the shared key here has {shared}",
                argument="position",
                help="give `shared_dim` an even number",
            )
        return stream

    def _core(self, width: int) -> LatentAttention:
        """The operation over projected streams."""
        size = self.head_dim or divides(self.heads, width, "heads", "width")
        shared = self.shared_dim or -(-size // 2)
        return LatentAttention(
            heads=self.heads,
            kv_heads=self.heads,
            head_dim=size + shared,
            position=self.position,
            base=self.base,
            window=self.window,
            causal_=self.causal,
            latent=self.latent or 4 * size,
            shared=shared,
            value_dim=self.value_dim or size,
        )

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """Queries, what is compressed, attention, one projection."""
        width = stream.type.width
        core = self._core(width)
        inner = stream
        if self.query_latent:
            narrow = Linear(width_in=width, width_out=self.query_latent)
            inner = build.add(narrow, stream, name="query_down")
            inner = build.add(Norm(width=self.query_latent), inner, name="query_norm")
        widen = Linear(width_in=inner.type.width, width_out=core.heads * core.head_dim)
        query = build.add(widen, inner, name="query")
        compress = Linear(width_in=width, width_out=core.latent + core.shared)
        compressed = build.add(compress, stream, name="latent")
        mixed = build.add(core, query, compressed, name="core")
        out = Linear(width_in=mixed.type.width, width_out=width)
        return build.add(out, mixed, name="out")
