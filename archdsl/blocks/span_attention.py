"""``span_attention``: attention in half of the heads, dynamic-span convolution in the other half."""

from __future__ import annotations

from typing import ClassVar

from archdsl.blocks.base import Builder, Children, Count, Invalid, Layer, Value, divides, features
from archdsl.blocks.conv import Kernel
from archdsl.blocks.op import Type
from archdsl.blocks.ops.attention import SoftmaxAttention
from archdsl.blocks.ops.dense import Add, Convolution, Linear, Multiply
from archdsl.blocks.ops.dynamic import DynamicConvolution


class SpanAttention(Layer):
    """ConvBERT's mixed attention (arXiv 2008.02496 §3.2 and 3.3) over ``heads`` heads in all.

    Half of the heads attend. The others convolve: a separable convolution sums the span around a
    token, its product with the token's query gives the weights of that token's own filter of
    ``kernel`` taps, through a softmax. Queries are shared by both halves.
    """

    name: ClassVar[str] = "span_attention"
    keeps: ClassVar[bool] = True
    heads: Count
    kernel: Kernel
    causal: bool = True
    bias: bool = False

    def verify(self) -> None:
        """Half of the heads is whole; a centred filter has a middle."""
        if self.heads % 2:
            raise Invalid(
                "does-not-divide",
                f"half of the heads attend and half convolve, and `heads = {self.heads}` is odd",
                argument="heads",
                help=f"use {self.heads + 1}",
            )
        if not self.causal and self.kernel % 2 == 0:
            raise Invalid(
                "even-centred-kernel",
                f"a convolution that is not causal needs an odd kernel, and {self.kernel} is even",
                argument="kernel",
                help=f"use {self.kernel - 1} or {self.kernel + 1}",
            )

    def infer(self, stream: Type) -> Type:
        """Heads divide the width."""
        divides(self.heads, features(stream, self.name), "heads", "width")
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """Projections, attention, the dynamic convolution, and one output a half."""
        half = stream.type.width // 2
        query, key, value, point = (
            self._linear(build, stream, half, name) for name in ("query", "key", "value", "point")
        )
        core = SoftmaxAttention(
            heads=self.heads // 2,
            kv_heads=self.heads // 2,
            head_dim=2 * half // self.heads,
            causal_=self.causal,
        )
        attended = build.add(core, query, key, value, name="core")
        weights = self._weights(build, stream, query)
        dynamic = DynamicConvolution(
            width=half, heads=self.heads // 2, kernel=self.kernel, causal_=self.causal
        )
        convolved = build.add(dynamic, point, weights, name="convolution")
        width = stream.type.width
        first = self._linear(build, attended, width, "out")
        second = Linear(width_in=half, width_out=width)
        return build.add(
            Add(), first, build.add(second, convolved, name="convolution_out"), name="sum"
        )

    def _weights(self, build: Builder, stream: Value, query: Value) -> Value:
        """Logits of every token's filter: ``[B, T, heads · kernel]``."""
        width, half = stream.type.width, stream.type.width // 2
        span = Convolution(width=width, kernel=self.kernel, causal_=self.causal)
        summed = build.add(span, stream, name="span")
        mapped = self._linear(build, summed, half, "span_key")
        product = build.add(Multiply(), mapped, query, name="product")
        return self._linear(build, product, self.heads // 2 * self.kernel, "filter")

    def _linear(self, build: Builder, stream: Value, out: int, name: str) -> Value:
        op = Linear(width_in=stream.type.width, width_out=out, bias=self.bias)
        return build.add(op, stream, name=name)
