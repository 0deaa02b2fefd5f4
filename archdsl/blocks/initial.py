"""``scaled_init``: layers whose projections start smaller, and those that end a residual branch by depth."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Children, Count, Real, Value
from archdsl.blocks.op import Op, Type
from archdsl.blocks.ops.dense import Linear
from archdsl.blocks.ops.loop import Loop
from archdsl.blocks.structure import Passing


class ScaledInit(Passing):
    """Projections that start normal with ``variance`` over the stream's width, whatever their own inputs.

    One that ends a residual branch starts with ``variance`` over ``branches`` times the width: as many
    branches as are added up in all, those inside a loop each time it runs (Takase et al., arXiv 2312.16903
    §4; Huginn, arXiv 2502.05171). A branch that ends in a norm, or on several residual streams, has no such
    projection. Gates, rates and what else a mixer starts in a way of its own stay as they are.
    """

    name: ClassVar[str] = "scaled_init"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "layers"
    keeps: ClassVar[bool] = False
    branches: Count
    variance: Annotated[Real, Field(gt=0, le=100)] = Fraction(2, 5)

    def combine(self, stream: Type, outputs: Sequence[Type]) -> Type:
        """What the layers give."""
        return outputs[0]

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """The layers, their projections with another start."""
        size = (float(self.variance) / stream.type.width) ** 0.5

        def started(op: Op) -> Op:
            plain = isinstance(op, Linear) and op.init == "fan_in"
            joins = isinstance(op, Loop) and op.inject in ("concat", "gate")
            return op.model_copy(update={"init": size}) if plain or joins else op

        def ended(op: Op) -> Op:
            smaller = isinstance(op, Linear) and op.init == size
            return op.model_copy(update={"init": size / self.branches**0.5}) if smaller else op

        region = build.changed(children.lower(0, stream.type, build.policy), started)
        region = build.changed(region, ended, ends=True)
        return build.inlined(region, stream)
