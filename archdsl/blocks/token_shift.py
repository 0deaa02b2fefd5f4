"""``token_shift``: a learned mix of every token with the one before it."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.base import Builder, Children, Layer, Real, Value, features
from archdsl.blocks.op import Type
from archdsl.blocks.ops.shift import TokenShift as Shift


class TokenShift(Layer):
    """``x_t + μ ⊙ (x_{t-1} - x_t)``, ``μ`` a channel (RWKV, arXiv 2305.13048 eq. 11).

    ``μ`` starts at ``1 - (i/D)^(exponent · r^power)`` for channel ``i`` of ``D``, with ``r`` from 1 in
    the first layer towards 0 in the last; the channel mixing of RWKV-6 has a power of 3, of RWKV-7 of 4.
    """

    name: ClassVar[str] = "token_shift"
    keeps: ClassVar[bool] = True
    routes: ClassVar[frozenset[str]] = frozenset({"mom"})
    exponent: Annotated[Real, Field(gt=0, le=64)] = Fraction(1)
    power: Annotated[int, Field(ge=1, le=64)] = 1

    def infer(self, stream: Type) -> Type:
        """Any features."""
        features(stream, self.name)
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One operation with one reader."""
        op = Shift(
            width=stream.type.width,
            names=("stream",),
            exponents=(float(self.exponent),),
            offsets=(0.0,),
            power=self.power,
        )
        return build.add(op, stream)
