"""Learners: how the inner objective is descended."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Component, Kind, Real, Value
from archdsl.blocks.ops.dense import Activate, Linear
from archdsl.blocks.ops.memory import FixedRate


class Learner(Component):
    """A rule for one token's step; the base of all learners."""

    kind: ClassVar[Kind] = "learner"


class GradientDescent(Learner):
    """One gradient step a token, of a size in ``(0, beta_max)``.

    ``rate`` is 1 (``fixed``), learned a head, from the token, or the step size of the decay
    (``step``, Mamba-2's Δ). Sizes up to 2 give the delta rule negative eigenvalues (arXiv 2411.12537).
    """

    name: ClassVar[str] = "gd"
    rate: Literal["fixed", "head", "token", "step"] = "fixed"
    beta_max: Annotated[Real, Field(gt=0, le=2)] = Fraction(1)

    def lower(self, build: Builder, stream: Value, heads: int, step: Value | None) -> Value | None:
        """The write rate ``[B, T, heads]``; ``None`` where it is 1."""
        if self.rate == "fixed":
            return None
        if self.rate == "step":
            return step
        if self.rate == "head":
            fixed = FixedRate(heads=heads, learned=True, maximum=float(self.beta_max))
            return build.add(fixed, stream, name="rate")
        logits = build.add(Linear(width_in=stream.type.width, width_out=heads), stream, name="rate")
        return build.add(
            Activate(function="sigmoid", scale=self.beta_max), logits, name="rate_gate"
        )
