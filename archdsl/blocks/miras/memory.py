"""Memories: what a mixer stores."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.base import Component, Count, Invalid, Kind, Real, divides

Expand = Annotated[Real, Field(gt=0, le=64)]


def share(factor: Fraction, width: int, heads: int, argument: str) -> int:
    """Channels a head of ``factor · width`` channels."""
    total = factor * width
    if total.denominator != 1:
        raise Invalid(
            "does-not-divide",
            f"`{argument} = {factor}` of width {width} is not a whole number of channels",
            argument=argument,
        )
    return divides(heads, int(total), "heads", "the memory's width")


class Memory(Component):
    """A store with a shape; the base of all memories."""

    kind: ClassVar[Kind] = "memory"


class Vector(Memory):
    """One number a channel, over ``expand`` times the stream's width."""

    name: ClassVar[str] = "vector"
    expand: Expand = Fraction(1)

    def channels(self, width: int) -> int:
        """How many numbers there are."""
        total = self.expand * width
        if total.denominator != 1:
            raise Invalid(
                "does-not-divide",
                f"`expand` of width {width} is not a whole number of channels",
                argument="memory",
            )
        return int(total)


class Matrix(Memory):
    """A matrix ``[key_dim, value_dim]`` a head.

    The dims are a head's; without them they are the stream's width times ``expand_k`` or ``expand_v``
    over the heads. ``key_heads`` fewer than ``heads`` shares queries and keys among heads.
    """

    name: ClassVar[str] = "matrix"
    heads: Count
    key_dim: Count | None = None
    value_dim: Count | None = None
    expand_k: Expand = Fraction(1)
    expand_v: Expand = Fraction(1)
    key_heads: Count | None = None

    def verify(self) -> None:
        """Shared keys share evenly."""
        if self.key_heads:
            divides(self.key_heads, self.heads, "key_heads", "the number of heads")

    def dims(self, width: int) -> tuple[int, int]:
        """Key and value channels a head."""
        key = self.key_dim or share(self.expand_k, width, self.heads, "expand_k")
        value = self.value_dim or share(self.expand_v, width, self.heads, "expand_v")
        return key, value
