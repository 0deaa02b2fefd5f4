"""``cell``: a recurrent cell written as its equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SkipValidation

from archdsl.blocks.base import Builder, Children, Count, Invalid, Layer, Value, Word, divides, features
from archdsl.blocks.equations import Apply, Assignment, Expression, Name, text
from archdsl.blocks.op import Type
from archdsl.blocks.ops.cell import CellRecurrence


class Cell(Layer):
    """The equations in its body, once a token.

    ``x`` is the input, names in ``state`` are the previous step's values until they are assigned,
    ``output`` is what the layer gives. ``linear(a, b)`` owns its weights; ``width`` is the width of
    everything it gives, by default the stream's; weights on states have a block a head.
    """

    name: ClassVar[str] = "cell"
    body: ClassVar[Literal["none", "layers", "labelled", "equations"]] = "equations"
    state: Annotated[tuple[Word, ...], Field(min_length=1)]
    output: Word
    width: Count | None = None
    heads: Count = 1
    equations: Annotated[tuple[Assignment, ...], SkipValidation] = ()

    def infer(self, stream: Type) -> Type:
        """Features of the cell's width; ``x`` itself may only stand where the widths agree."""
        width_in = features(stream, self.name)
        width = self.width or width_in
        divides(self.heads, width, "heads", "the cell's width")
        bare = next((e for e in self.equations if _bare_input(e.value)), None)
        if width != width_in and bare is not None:
            raise Invalid(
                "cell-widths",
                f"`{bare.target} = {text(bare.value)}` uses `x` as it is, {width_in} wide, in a cell"
                f" {width} wide",
                argument="width",
                help="write `linear(x)` there",
            )
        return replace(stream, width=width)

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One operation."""
        op = CellRecurrence(
            width_in=stream.type.width,
            width=self.width or stream.type.width,
            states=self.state,
            output=self.output,
            equations=self.equations,
            heads=self.heads,
        )
        return build.add(op, stream)


def _bare_input(expression: Expression) -> bool:
    """Whether ``x`` stands anywhere but alone as an argument of a full ``linear``."""
    if expression == Name("x"):
        return True
    if not isinstance(expression, Apply):
        return False
    full = expression.function == "linear" and not dict(expression.options).get("diagonal")
    return any(_bare_input(a) for a in expression.arguments if not (full and a == Name("x")))


