"""Operations with regions: what runs inside them, how often, and with whose weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar, Literal

from archdsl.blocks.op import Op, Shape, Type, Work

NN = "archdsl.blocks.nn.structure:"


class ResidualSum(Op):
    """``x + scale · f(x)``, with a fixed scale or a learned one a channel, which begins at ``start``.

    ``deferred`` leaves the addition to the operation behind it: the outputs are ``x`` and the branch.
    ``pending`` takes two inputs and adds them together with the norm that its branch begins with.
    """

    module: ClassVar[str] = NN + "ResidualSum"
    width: int
    scale: Fraction | Literal["learned"] = Fraction(1)
    start: float = 1.0
    deferred: bool = False
    pending: bool = False

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The stream, and the branch where it is not added yet."""
        return (inputs[0],) * (2 if self.deferred else 1)

    def parameters(self) -> Mapping[str, Shape]:
        """``scale [width]`` where it is learned."""
        return {"scale": (self.width,)} if self.scale == "learned" else {}


class Layers(Op):
    """Regions one after the other.

    Args:
        copies: which region each copy of weights is of.
        order: which copy each run uses; a copy that runs twice is tied, and has a state each run.
        labels: a name for each run (``linear``), for printing.
        width: channels behind the last one, where they are not those before the first.
        adapted: whether operations inside have weights of their own for each run of a copy.
    """

    module: ClassVar[str] = NN + "Layers"
    copies: tuple[int, ...]
    order: tuple[int, ...]
    labels: tuple[str | None, ...] = ()
    width: int | None = None
    adapted: bool = False

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The input, with the new width where there is one."""
        return (inputs[0] if self.width is None else replace(inputs[0], width=self.width),)

    @property
    def plain(self) -> bool:
        """Whether every copy runs once, in order: a sequence and nothing more."""
        return self.order == tuple(range(len(self.copies)))

    @property
    def ties(self) -> str:
        """What it does beside running its layers in order; empty where that is all."""
        return "adapted" if self.adapted else ""

    def ordinal(self, iteration: int, place: int) -> int:
        """How often the copy at ``place`` of the order has run before, ``iteration`` orders gone by."""
        copy = self.order[place]
        return iteration * self.order.count(copy) + self.order[:place].count(copy)

    def weights(self, regions: int) -> tuple[int, ...]:
        """As given."""
        return self.copies

    def runs(self, regions: int) -> tuple[int, ...]:
        """As given."""
        return self.order


class Branches(Op):
    """Regions side by side on the same input, mixed: sum, mean, product, concatenation, learned gates.

    ``gate`` weighs branch ``i`` by ``softmax(w)_i`` with one learned number a branch.
    """

    module: ClassVar[str] = NN + "Branches"
    mix: Literal["sum", "mean", "product", "concat", "gate"]
    branches: int
    width: int

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The branches' width; for ``concat`` the sum of theirs."""
        return (replace(inputs[0], width=self.width),)

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [branches]`` of learned gates."""
        return {"weight": (self.branches,)} if self.mix == "gate" else {}

    def flops(self, work: Work) -> int:
        """Nothing but elementwise work."""
        return 0
