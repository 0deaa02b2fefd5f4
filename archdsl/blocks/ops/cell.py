"""A recurrent cell given by its equations, as one operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from pydantic import SkipValidation

from archdsl.blocks.cell_analysis import Analysis, Product
from archdsl.blocks.equations import Assignment, Name, text
from archdsl.blocks.op import Buffer, Op, Shape, Type, Work


class CellRecurrence(Op):
    """``[B, T, width_in]`` → the output's values ``[B, T, width]``.

    ``plan`` is how it runs: ``sequential`` a step at a time with everything that does not depend on
    the state computed for all of time beforehand; ``scan`` with the states found by parallel scans.
    A ``linear`` of something that depends on the state has a block a head.
    """

    module: ClassVar[str] = "archdsl.blocks.nn.cell:CellRecurrence"
    width_in: int
    width: int
    states: tuple[str, ...]
    output: str
    equations: Annotated[tuple[Assignment, ...], SkipValidation]
    heads: int = 1
    plan: Literal["sequential", "scan"] = "sequential"

    @cached_property
    def analysis(self) -> Analysis:
        """What the equations are."""
        return Analysis(self.states, self.output, self.equations)

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """Features of the cell's width."""
        return (replace(inputs[0], width=self.width),)

    def shape(self, product: Product) -> Shape:
        """``[D]``, ``[H, D/H, D/H]`` or ``[D, in]`` of one weight."""
        if product.diagonal:
            return (self.width,)
        if self.analysis.depends(product.argument):
            size = self.width // self.heads
            return (self.heads, size, size)
        return (self.width, self.width_in if product.argument == Name("x") else self.width)

    def parameters(self) -> Mapping[str, Shape]:
        """A weight for every argument of every ``linear``, and its bias."""
        found: dict[str, Shape] = {}
        for linear in self.analysis.linears:
            found |= {product.name: self.shape(product) for product in linear.products}
            found |= {linear.bias: (self.width,)} if linear.bias else {}
        return found

    def state(self, length: int) -> Mapping[str, Buffer]:
        """One number a channel and state, in float32."""
        return {name: Buffer((self.width,)) for name in self.states}

    def flops(self, work: Work) -> int:
        """The products of its matrices."""
        sizes = [self.shape(p) for linear in self.analysis.linears for p in linear.products]
        matrices = [shape for shape in sizes if len(shape) > 1]
        return 2 * work.tokens * sum(_size(shape) for shape in matrices)

    @property
    def attributes(self) -> str:
        """Sizes and equations."""
        body = "; ".join(f"{e.target} = {text(e.value)}" for e in self.equations)
        heads = f", heads={self.heads}" if self.heads > 1 else ""
        plan = f", plan={self.plan}" if self.plan != "sequential" else ""
        return f"width_in={self.width_in}, width={self.width}{heads}{plan}, {body} → {self.output}"


def _size(shape: Shape) -> int:
    total = 1
    for part in shape:
        total *= part
    return total
