"""Retentions: how a memory keeps, or forgets, what it had."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Component, Count, Invalid, Kind, Real, Value
from archdsl.blocks.ops.dense import Linear
from archdsl.blocks.ops.memory import DecayGate

Share = Annotated[Real, Field(ge=0, le=1)]


class Retention(Component):
    """A penalty on moving away from what was; the base of all retentions."""

    kind: ClassVar[Kind] = "retention"


@dataclass(frozen=True)
class Kept:
    """A lowered retention: the log decay, its step size where asked, and the bound it keeps."""

    log_decay: Value | None = None
    step: Value | None = None
    lower: float | None = None


class Decay(Retention):
    """``D ⊙ M``: keep a share of everything.

    ``per`` is what has its own share: ``constant`` is RetNet's fixed ``1 - 2^(-5-h)``; ``head`` and
    ``channel`` come from the token. ``form = softplus`` is ``exp(-exp(A) softplus(x + b))``;
    ``sigmoid`` is ``(lower + (upper - lower) σ(x))^(1/temperature)``. ``rank`` factors the projection.
    """

    name: ClassVar[str] = "decay"
    per: Literal["constant", "head", "channel"] = "head"
    form: Literal["softplus", "sigmoid"] = "softplus"
    temperature: Annotated[Real, Field(gt=0, le=1024)] = Fraction(1)
    lower: Share = Fraction(0)
    upper: Share = Fraction(1)
    rank: Count | None = None
    bias: bool = False

    def verify(self) -> None:
        """The bounds are in order."""
        if self.lower >= self.upper:
            raise Invalid(
                "empty-bounds",
                f"a decay between {self.lower} and {self.upper} has no room: the lower bound is not"
                " below the upper one",
                argument="lower",
                help="write `lower` smaller than `upper`",
            )

    def lower_gate(
        self, build: Builder, stream: Value, heads: int, channels: int, *, step: bool
    ) -> Kept:
        """The log decay ``[B, T, heads]`` or ``[B, T, heads · channels]``."""
        if self.per == "constant":
            return Kept()
        width = heads if self.per == "head" else heads * channels
        logits = self.project(build, stream, width)
        gate = DecayGate(
            width=width,
            heads=heads,
            form=self.form,
            temperature=float(self.temperature),
            lower=float(self.lower),
            upper=float(self.upper),
            step=step,
        )
        found = build.add_many(gate, logits, name="decay_gate")
        return Kept(found[0], found[1] if step else None, self.bound())

    def project(self, build: Builder, stream: Value, width: int) -> Value:
        """The gate's logits, through ``rank`` channels where asked."""
        inner = stream
        if self.rank:
            narrow = Linear(width_in=stream.type.width, width_out=self.rank)
            inner = build.add(narrow, stream, name="decay_down")
        widen = Linear(width_in=inner.type.width, width_out=width, bias=self.bias)
        return build.add(widen, inner, name="decay")

    def bound(self) -> float | None:
        """A proven lower bound of the decay a step, where there is one."""
        if self.form == "softplus" or self.lower == 0:
            return None
        return float(self.lower) ** (1 / float(self.temperature))
