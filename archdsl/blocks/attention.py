"""``attention``: softmax attention, full or windowed, with grouped heads and the usual positions."""

from __future__ import annotations

from typing import ClassVar, Literal

from archdsl.blocks.base import Builder, Children, Count, Invalid, Layer, Value, divides, features
from archdsl.blocks.op import Type
from archdsl.blocks.ops.attention import SoftmaxAttention
from archdsl.blocks.ops.dense import Linear


class Attention(Layer):
    """Multi-head attention (arXiv 1706.03762) on PyTorch's fused kernel.

    ``kv_heads`` fewer than ``heads`` groups the queries (arXiv 2305.13245); ``window`` keeps that
    many keys including the token's own; ``rope`` is arXiv 2104.09864, ``alibi`` arXiv 2108.12409.
    """

    name: ClassVar[str] = "attention"
    heads: Count
    kv_heads: Count | None = None
    head_dim: Count | None = None
    position: Literal["none", "rope", "alibi"] = "none"
    base: Count = 10_000
    window: Count | None = None
    causal: bool = True
    qk_norm: bool = False
    bias: bool = False

    def verify(self) -> None:
        """Grouped heads share evenly."""
        if self.kv_heads:
            divides(self.kv_heads, self.heads, "kv_heads", "the number of heads")

    def infer(self, stream: Type) -> Type:
        """Heads divide the width unless ``head_dim`` is given; rotated pairs need an even width."""
        width = features(stream, self.name)
        size = self.head_dim or divides(self.heads, width, "heads", "width")
        if self.position == "rope" and size % 2:
            raise Invalid(
                "odd-rotary",
                f"RoPE turns pairs of channels, and a head here has {size}",
                argument="position",
                help="choose `heads` or `head_dim` so that a head has an even number of channels",
            )
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """Three projections, attention, one projection."""
        width = stream.type.width
        size = self.head_dim or width // self.heads
        kv_heads = self.kv_heads or self.heads
        query, key, value = (
            build.add(Linear(width_in=width, width_out=n * size, bias=self.bias), stream, name=name)
            for name, n in (("query", self.heads), ("key", kv_heads), ("value", kv_heads))
        )
        core = SoftmaxAttention(
            heads=self.heads,
            kv_heads=kv_heads,
            head_dim=size,
            position=self.position,
            base=self.base,
            window=self.window,
            causal_=self.causal,
            qk_norm=self.qk_norm,
        )
        mixed = build.add(core, query, key, value, name="core")
        return build.add(
            Linear(width_in=self.heads * size, width_out=width, bias=self.bias), mixed, name="out"
        )
