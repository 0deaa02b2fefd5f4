"""``echo``: what the user writes, and the operation it becomes. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

from archdsl.blocks.base import Builder, Children, Layer, Real, Value, features
from archdsl.blocks.op import Buffer, Op, Shape, Type


class Echo(Layer):
    """``x_t + m ⊙ x_{t-1}``, with a learned mix ``m`` that starts at ``start``.

    What a language without it would miss: a residual of the token before.
    """

    name: ClassVar[str] = "echo"
    start: Real = Fraction(1, 2)

    def infer(self, stream: Type) -> Type:
        """Any features."""
        features(stream, self.name)
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One operation."""
        return build.add(Echoed(width=stream.type.width, start=float(self.start)), stream)


class Echoed(Op):
    """``[B, T, width]`` → the same; carries the last position."""

    module: ClassVar[str] = "archdsl_echo.module:Echoed"
    width: int
    start: float

    def parameters(self) -> Mapping[str, Shape]:
        """``mix [width]``."""
        return {"mix": (self.width,)}

    def state(self, length: int) -> Mapping[str, Buffer]:
        """The last position, in the model's dtype."""
        return {"last": Buffer((self.width,), "model")}
