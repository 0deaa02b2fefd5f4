"""``fourier``: mix all positions by a Fourier or cosine transform, without a weight."""

from __future__ import annotations

from typing import ClassVar, Literal

from archdsl.blocks.base import Builder, Children, Count, Layer, Value, divides, features
from archdsl.blocks.op import Type
from archdsl.blocks.ops.fourier import FourierMix


class Fourier(Layer):
    """The real part of the discrete Fourier transform over time and channels, or the cosine transform.

    FNet (arXiv 2105.03824 §3.2), a head at a time; it sees the whole sequence at once. ``unitary``
    divides by the root of the transform's size, so that the stream keeps its scale; the published
    layers do not.
    """

    name: ClassVar[str] = "fourier"
    keeps: ClassVar[bool] = True
    form: Literal["dft", "dct"] = "dft"
    heads: Count = 1
    unitary: bool = False

    def infer(self, stream: Type) -> Type:
        """Any features whose width the heads divide."""
        divides(self.heads, features(stream, self.name), "heads", "width")
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One operation."""
        op = FourierMix(
            width=stream.type.width, heads=self.heads, form=self.form, unitary=self.unitary
        )
        return build.add(op, stream)
