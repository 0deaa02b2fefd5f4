"""``skip``: a router that learns which inputs need a layer."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Children, Layer, Real, Value, features
from archdsl.blocks.op import Type
from archdsl.blocks.ops.skip import Skip as SkipOp
from archdsl.blocks.structure import same_width


class Skip(Layer):
    """``g ⊙ layers(x) + (1 - g) ⊙ x`` with a gate ``g = σ(w·x + b)`` a token (FiRST, arXiv 2410.12513).

    ``penalty`` weighs the mean gate in the loss, so that layers learn to be left out. A model whose
    routers are told to ``decide`` takes one hard decision a sequence from its prompt and keeps it.
    """

    name: ClassVar[str] = "skip"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    keeps: ClassVar[bool] = True
    penalty: Annotated[Real, Field(ge=0, le=1000)] = Fraction(1, 100)

    def infer(self, stream: Type) -> Type:
        """Any features."""
        features(stream, self.name)
        return stream

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """The layers must keep the width."""
        return same_width(self.name, stream, outputs[0])

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One operation over the layers."""
        region = children.lower(0, stream.type, None)
        op = SkipOp(width=stream.type.width, penalty=self.penalty)
        return build.add(op, stream, regions=[region])
