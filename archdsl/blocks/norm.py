"""``rms_norm`` and ``layer_norm``: normalise every position's channels, with a learned gain.

RMS norm: arXiv 1910.07467. Layer norm: arXiv 1607.06450.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Children, Layer, Real, Value, features
from archdsl.blocks.op import Type
from archdsl.blocks.ops.dense import Norm

Epsilon = Annotated[Real, Field(gt=0, le=1)]


class _Norm(Layer):
    """Shared by both norms; ``form`` says which."""

    form: ClassVar[Literal["rms", "layer"]]
    eps: Epsilon
    bias: bool

    def infer(self, stream: Type) -> Type:
        """Any features."""
        features(stream, self.name)
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One norm over all channels."""
        norm = Norm(width=stream.type.width, norm=self.form, eps=float(self.eps), bias=self.bias)
        return build.add(norm, stream)


class RMSNorm(_Norm):
    """``x / rms(x) · g``."""

    name: ClassVar[str] = "rms_norm"
    routes: ClassVar[frozenset[str]] = frozenset({"mom"})
    form: ClassVar[Literal["rms", "layer"]] = "rms"
    eps: Epsilon = Fraction(1, 10**6)
    bias: bool = False


class LayerNorm(_Norm):
    """``(x - mean) / sd · g + b``."""

    name: ClassVar[str] = "layer_norm"
    routes: ClassVar[frozenset[str]] = frozenset({"mom"})
    form: ClassVar[Literal["rms", "layer"]] = "layer"
    eps: Epsilon = Fraction(1, 10**5)
    bias: bool = True
