"""``rms_norm`` and ``layer_norm``: normalise every position's channels, with a learned gain.

RMS norm: arXiv 1910.07467. Layer norm: arXiv 1607.06450.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Children, Count, Layer, Real, Value, divides, features
from archdsl.blocks.op import Type
from archdsl.blocks.ops.dense import Norm

Epsilon = Annotated[Real, Field(gt=0, le=1)]


class _Norm(Layer):
    """Shared by both norms; ``form`` says which, ``heads`` over how many equal slices of the channels."""

    keeps: ClassVar[bool] = True
    form: ClassVar[Literal["rms", "layer"]]
    eps: Epsilon
    bias: bool
    heads: Count

    def infer(self, stream: Type) -> Type:
        """Any features that the slices share evenly."""
        divides(self.heads, features(stream, self.name), "heads", "width")
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One norm."""
        norm = Norm(
            width=stream.type.width,
            norm=self.form,
            groups=self.heads,
            eps=float(self.eps),
            bias=self.bias,
        )
        return build.add(norm, stream)


class RMSNorm(_Norm):
    """``x / rms(x) · g``, over each of ``heads`` equal slices of the channels."""

    name: ClassVar[str] = "rms_norm"
    routes: ClassVar[frozenset[str]] = frozenset({"mom"})
    form: ClassVar[Literal["rms", "layer"]] = "rms"
    eps: Epsilon = Fraction(1, 10**6)
    bias: bool = False
    heads: Count = 1


class LayerNorm(_Norm):
    """``(x - mean) / sd · g + b``, over each of ``heads`` equal slices of the channels."""

    name: ClassVar[str] = "layer_norm"
    routes: ClassVar[frozenset[str]] = frozenset({"mom"})
    form: ClassVar[Literal["rms", "layer"]] = "layer"
    eps: Epsilon = Fraction(1, 10**5)
    bias: bool = True
    heads: Count = 1
