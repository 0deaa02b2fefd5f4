"""``gated``: layers between two projections, multiplied by a gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar, Literal

from archdsl.blocks.base import (
    Activation,
    Builder,
    Children,
    Invalid,
    Layer,
    Value,
    features,
    scaled,
)
from archdsl.blocks.channel import Expand
from archdsl.blocks.conv import Kernel
from archdsl.blocks.op import Type
from archdsl.blocks.ops.dense import Convolution, Gate, Linear
from archdsl.blocks.ops.structure import Layers


class Gated(Layer):
    """``W_out(layers(conv(W_in x)) ⊙ f(W_gate x))``: the block around Mamba's and Griffin's recurrences.

    The layers stand on ``expand`` times the stream's width, rounded up to a multiple of 8 where that is
    not whole (arXiv 2312.00752 §3.4, arXiv 2402.19427 §2.3); a short convolution of ``conv`` taps, with
    a bias, may stand before them.
    """

    name: ClassVar[str] = "gated"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    keeps: ClassVar[bool] = True
    routes: ClassVar[frozenset[str]] = frozenset({"mom"})
    expand: Expand = Fraction(1)
    activation: Activation = "silu"
    conv: Kernel | None = None
    conv_activation: Activation = "none"
    bias: bool = False

    def infer(self, stream: Type) -> Type:
        """What the layers inside are given."""
        return replace(stream, width=scaled(self.expand, features(stream, self.name)))

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """The stream, where the layers keep the width they are given."""
        inner = self.infer(stream)
        if outputs[0].kind != inner.kind or outputs[0].width != inner.width:
            raise Invalid(
                "width-changes",
                f"`gated` needs layers that keep their width, and these make {inner} into {outputs[0]}",
                help=f"bring it back with `linear(dim = {inner.width})`",
            )
        return replace(stream, routed=outputs[0].routed)

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """Two projections, a convolution, the layers, a gate, one projection."""
        width, inner = stream.type.width, self.infer(stream.type)
        widen = Linear(width_in=width, width_out=inner.width, bias=self.bias)
        x = build.add(widen, stream, name="in")
        gate = build.add(widen, stream, name="gate")
        if self.conv:
            taps = Convolution(
                width=inner.width, kernel=self.conv, activation=self.conv_activation, bias=True
            )
            x = build.add(taps, x, name="conv")
        region = children.lower(0, inner, None)
        x = build.add(Layers(copies=(0,), order=(0,)), x, name="layers", regions=[region])
        gated = build.add(Gate(function=self.activation), x, gate, name="product")
        narrow = Linear(width_in=inner.width, width_out=width, bias=self.bias)
        return build.add(narrow, gated, name="out")
