"""Channel mixers: what happens within a position."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.base import Activation, Builder, Children, Layer, Real, Value, features, scaled
from archdsl.blocks.op import Type
from archdsl.blocks.ops.dense import Activate, Gate, Linear

Expand = Annotated[Real, Field(gt=0, le=64)]


class SwiGLU(Layer):
    """``W_down(silu(W_gate x) ⊙ W_up x)`` (arXiv 2002.05202).

    The inner width is ``expand`` times the stream's, rounded up to a multiple of 8 where not whole.
    """

    name: ClassVar[str] = "swiglu"
    keeps: ClassVar[bool] = True
    routes: ClassVar[frozenset[str]] = frozenset({"mom", "moe"})
    expand: Expand = Fraction(8, 3)
    activation: Activation = "silu"
    bias: bool = False

    def infer(self, stream: Type) -> Type:
        """Any features, if the inner width is one."""
        scaled(self.expand, features(stream, self.name))
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """Two projections, a gate, one projection."""
        width = stream.type.width
        inner = scaled(self.expand, width)
        widen = Linear(width_in=width, width_out=inner, bias=self.bias)
        gate = build.add(widen, stream, name="gate")
        up = build.add(widen, stream, name="up")
        gated = build.add(Gate(function=self.activation), up, gate, name="product")
        narrow = Linear(width_in=inner, width_out=width, bias=self.bias)
        return build.add(narrow, gated, name="down")


class MLP(Layer):
    """``W_down f(W_up x)``."""

    name: ClassVar[str] = "mlp"
    keeps: ClassVar[bool] = True
    routes: ClassVar[frozenset[str]] = frozenset({"mom", "moe"})
    expand: Expand = Fraction(4)
    activation: Activation = "gelu"
    bias: bool = False

    def infer(self, stream: Type) -> Type:
        """Any features, if the inner width is one."""
        scaled(self.expand, features(stream, self.name))
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """A projection, an activation, a projection."""
        width = stream.type.width
        inner = scaled(self.expand, width)
        up = build.add(Linear(width_in=width, width_out=inner, bias=self.bias), stream, name="up")
        active = build.add(Activate(function=self.activation), up, name="activation")
        return build.add(
            Linear(width_in=inner, width_out=width, bias=self.bias), active, name="down"
        )
