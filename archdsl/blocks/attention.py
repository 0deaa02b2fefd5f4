"""``attention``: softmax attention, full or windowed, with grouped heads and the usual positions."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import (
    Activation,
    Builder,
    Children,
    Count,
    Invalid,
    Layer,
    Real,
    Value,
    divides,
    features,
)
from archdsl.blocks.op import Type
from archdsl.blocks.ops.attention import SoftmaxAttention, ValueMix
from archdsl.blocks.ops.dense import Gate, Linear
from archdsl.blocks.ops.relative import RelativeAttention


class Attention(Layer):
    """Multi-head attention (arXiv 1706.03762) on PyTorch's fused kernel.

    ``kv_heads`` fewer than ``heads`` groups the queries (arXiv 2305.13245); ``window`` keeps that
    many keys including the token's own; ``rope`` is arXiv 2104.09864, ``alibi`` arXiv 2108.12409,
    ``relative`` arXiv 1901.02860. RoPE turns the first ``rotary`` share of each head's channels. All
    projections have a ``bias``, or those of queries and keys, or the one ``out``. What is read may pass
    a ``gate`` from the input, a number a channel (arXiv 2505.06708). A ``weighted`` product has one more
    matrix between queries and keys (arXiv 1508.04025 §3.1). ``value_residual`` mixes the values with
    those of the first such layer, in halves or with two learned weights (arXiv 2410.17897).
    """

    name: ClassVar[str] = "attention"
    keeps: ClassVar[bool] = True
    heads: Count
    kv_heads: Count | None = None
    head_dim: Count | None = None
    position: Literal["none", "rope", "alibi", "relative"] = "none"
    base: Count = 10_000
    window: Count | None = None
    causal: bool = True
    qk_norm: bool = False
    bias: bool | Literal["query_key", "out"] = False
    product: Literal["scaled", "weighted"] = "scaled"
    value_residual: Literal["none", "half", "learned"] = "none"
    rotary: Annotated[Real, Field(gt=0, le=1)] = Fraction(1)
    gate: Activation = "none"

    def verify(self) -> None:
        """Grouped heads share evenly."""
        if self.kv_heads:
            divides(self.kv_heads, self.heads, "kv_heads", "the number of heads")

    def infer(self, stream: Type) -> Type:
        """Heads divide the width unless ``head_dim`` is given; rotated pairs need an even width."""
        width = features(stream, self.name)
        size = self.head_dim or divides(self.heads, width, "heads", "width")
        turned = self.rotary * size
        if self.position == "rope" and turned % 2:
            part = "" if self.rotary == 1 else f", of which it is to turn {self.rotary}"
            which = "a head has" if self.rotary == 1 else "`rotary` of a head is"
            raise Invalid(
                "odd-rotary",
                f"RoPE turns pairs of channels, and a head here has {size}{part}",
                argument="position" if self.rotary == 1 else "rotary",
                help=f"choose `heads` or `head_dim` so that {which} an even number of channels",
            )
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """Three projections, attention, one projection."""
        width = stream.type.width
        size = self.head_dim or width // self.heads
        kv_heads = self.kv_heads or self.heads
        query, key, value = (
            build.add(self._linear(name, width, n * size), stream, name=name)
            for name, n in (("query", self.heads), ("key", kv_heads), ("value", kv_heads))
        )
        if self.value_residual != "none":
            mix = ValueMix(width=kv_heads * size, learned=self.value_residual == "learned")
            value = build.add(mix, value, name="value_mix")
        if self.product == "weighted":
            between = Linear(width_in=self.heads * size, width_out=self.heads * size)
            query = build.add(between, query, name="weight")
        mixed = build.add(self._core(width, size), query, key, value, name="core")
        if self.gate != "none":
            logits = build.add(self._linear("gate", width, self.heads * size), stream, name="gate")
            mixed = build.add(Gate(function=self.gate), mixed, logits, name="gated")
        return build.add(self._linear("out", self.heads * size, width), mixed, name="out")

    def _linear(self, name: str, width_in: int, width_out: int) -> Linear:
        """The projection of a name, with a bias where it has one."""
        biased = {"query_key": ("query", "key"), "out": ("out",)}.get(str(self.bias))
        bias = bool(self.bias) if biased is None else name in biased
        return Linear(width_in=width_in, width_out=width_out, bias=bias)

    def _core(self, width: int, size: int) -> SoftmaxAttention:
        """The operation over projected streams, ``size`` channels a head."""
        settings: dict[str, Any] = {
            "heads": self.heads,
            "kv_heads": self.kv_heads or self.heads,
            "head_dim": size,
            "base": self.base,
            "window": self.window,
            "causal_": self.causal,
            "qk_norm": self.qk_norm,
        }
        if self.position == "relative":
            return RelativeAttention(width=width, **settings)
        whole = self.rotary == 1 or self.position != "rope"
        turned = None if whole else int(self.rotary * size)
        return SoftmaxAttention(position=self.position, turned=turned, **settings)
