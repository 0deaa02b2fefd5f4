"""A recurrent cell given by its equations, as one operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import SkipValidation

from archdsl.blocks.cell_analysis import Analysis, Linear, Product, analysed
from archdsl.blocks.cell_steps import Program, program
from archdsl.blocks.equations import Assignment, text
from archdsl.blocks.op import Buffer, Op, Shape, Type, Work


class CellRecurrence(Op):
    """``[B, T, width_in]``, once or also convolved → the output's values ``[B, T, width]``.

    ``plan`` is how it runs: ``sequential`` a step at a time with everything that does not depend on
    the state computed for all of time beforehand; ``scan`` with the states found by parallel scans.
    A ``linear`` of something that depends on the state has a block a head. With ``copies`` every state
    has so many numbers a channel.
    """

    module: ClassVar[str] = "archdsl.blocks.nn.cell:CellRecurrence"
    width_in: int
    width: int
    states: tuple[str, ...]
    output: str
    equations: Annotated[tuple[Assignment, ...], SkipValidation]
    heads: int = 1
    copies: int = 1
    plan: Literal["sequential", "scan"] = "sequential"

    @cached_property
    def analysis(self) -> Analysis:
        """What the equations are."""
        return analysed(self.states, self.output, self.equations)

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """Features of the cell's width."""
        return (replace(inputs[0], width=self.width),)

    @cached_property
    def steps(self) -> Program | None:
        """A step as instructions, where it is made of whole products and elementwise functions."""
        bound = [p for li in self.analysis.linears for p in li.products]
        apart = any(len(self.shape(p)) == 3 and self.shape(p)[0] > 1 for p in bound)
        return None if apart or self.copies > 1 else program(self.analysis)

    @property
    def cells(self) -> Shape:
        """Shape of a state: a number a channel, or a channel and copy."""
        return (self.width,) if self.copies == 1 else (self.width, self.copies)

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        """Of every weight by its name: they are asked for often, and dependence is slow to see."""
        products = (p for linear in self.analysis.linears for p in linear.products)
        return {product.name: self._shape(product) for product in products}

    def shape(self, product: Product) -> Shape:
        """``[D]``, ``[D, N]``, ``[H, D/H, in/H]`` or ``[out, in]`` of one weight."""
        return self._shapes[product.name]

    def _shape(self, product: Product) -> Shape:
        if product.diagonal:
            return self.cells if "copy" in self.analysis.axes(product.argument) else (self.width,)
        given = self.width_in if product.given else self.width
        found = self.copies if product.setting("copies") is True else self.width
        if self.by_head(product):
            return (self.heads, found // self.heads, given // self.heads)
        return (found, given)

    def by_head(self, product: Product) -> bool:
        """Whether a weight has a block a head: asked for, or of what depends on the state."""
        recurrent = self.copies == 1 and self.analysis.depends(product.argument)
        return product.setting("blocks") is True or (recurrent and not product.setting("rank"))

    def factors(self, product: Product) -> Mapping[str, Shape]:
        """What its argument meets, in order: a weight or two thin ones, the gain ``[D]`` of a norm."""
        return self._factors[product.name]

    @cached_property
    def _factors(self) -> dict[str, Mapping[str, Shape]]:
        products = (p for linear in self.analysis.linears for p in linear.products)
        return {product.name: self._met(product) for product in products}

    def _met(self, product: Product) -> Mapping[str, Shape]:
        name, shape, setting = product.name, self.shape(product), product.setting("rank")
        rank = int(setting) if isinstance(setting, int) else 0
        found: dict[str, Shape] = {f"{name}_down": (rank, shape[1])} if rank else {name: shape}
        if product.setting("norm"):
            found[f"{name}_norm"] = (rank or prod(shape[:-1]),)
        return found | ({name: (shape[0], rank)} if rank else {})

    def bias(self, linear: Linear) -> Shape:
        """A number for each that the ``linear`` gives."""
        copies = dict(linear.call.options).get("copies") is True
        return (self.copies if copies else self.width,)

    def parameters(self) -> Mapping[str, Shape]:
        """A weight for every argument of every ``linear``, its bias; and every ``parameter``."""
        found: dict[str, Shape] = {}
        for owner in self.analysis.owners:
            if isinstance(owner, Linear):
                for product in owner.products:
                    found |= self.factors(product)
                found |= {owner.bias: self.bias(owner)} if owner.bias else {}
            else:
                found[owner.name] = self.cells if owner.copies else (self.width,)
        return found

    def state(self, length: int) -> Mapping[str, Buffer]:
        """One number a channel (and copy) and state, in float32."""
        return {name: Buffer(self.cells) for name in self.states}

    def flops(self, work: Work) -> int:
        """The products of its matrices."""
        products = [p for linear in self.analysis.linears for p in linear.products]
        shapes = [s for p in products for s in self.factors(p).values() if not p.diagonal]
        return 2 * work.tokens * sum(prod(shape) for shape in shapes if len(shape) > 1)

    @property
    def attributes(self) -> str:
        """Sizes and equations."""
        body = "; ".join(f"{e.target} = {text(e.value)}" for e in self.equations)
        heads = f", heads={self.heads}" if self.heads > 1 else ""
        heads += f", copies={self.copies}" if self.copies > 1 else ""
        plan = f", plan={self.plan}" if self.plan != "sequential" else ""
        sizes = f"width_in={self.width_in}, width={self.width}{heads}{plan}"
        return f"{sizes}, state={', '.join(self.states)}, {body} → {self.output}"
