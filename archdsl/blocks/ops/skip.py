"""A layer behind a gate that may leave it out."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

from archdsl.blocks.op import Op, Shape


class Skip(Op):
    """``g ⊙ f(x) + (1 - g) ⊙ x`` with ``g = σ(w·x + b)``, one gate a token; ``b`` starts open, at 2."""

    module: ClassVar[str] = "archdsl.blocks.nn.skip:Skip"
    width: int
    penalty: Fraction

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [D]`` and ``bias [1]``."""
        return {"weight": (self.width,), "bias": (1,)}
