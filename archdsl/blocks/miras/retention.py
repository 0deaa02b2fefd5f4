"""Retentions: how a memory keeps, or forgets, what it had."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Activation, Builder, Component, Count, Invalid, Kind, Real, Value
from archdsl.blocks.ops.dense import Activate, Initialisation, Linear
from archdsl.blocks.ops.memory import DecayGate, Start
from archdsl.blocks.ops.memory import RunningSoftmax as RunningSoftmaxGate

Share = Annotated[Real, Field(ge=0, le=1)]


class Retention(Component):
    """A penalty on moving away from what was; the base of all retentions."""

    kind: ClassVar[Kind] = "retention"


@dataclass(frozen=True)
class Kept:
    """A lowered retention.

    Args:
        log_decay: the log decay.
        step: its step size, where asked.
        lower: the bound it keeps.
        key: the key it gives, where the two come from one another.
    """

    log_decay: Value | None = None
    step: Value | None = None
    lower: float | None = None
    key: Value | None = None


class Decay(Retention):
    """``D ⊙ M``: keep a share of everything.

    ``per`` is what has its own share: ``constant`` is RetNet's fixed ``1 - 2^(-5-h)``; ``head`` and
    ``channel`` come from the token. ``form = softplus`` is ``exp(-exp(A) softplus(x + b))``, ``sigmoid``
    is ``(lower + (upper - lower) σ(x))^(1/temperature)``, ``exponential`` is ``exp(-exp(x + b))``,
    ``bounded`` is ``lower^σ(x + b)``. ``lower = learned`` is a bound a channel that starts larger in
    deeper layers. ``rank`` factors the projection, with an ``activation`` between; ``start`` is how the
    bias ``b`` starts; ``slowest`` and ``fastest`` are the ends of ``exp(A)`` at the start.
    """

    name: ClassVar[str] = "decay"
    per: Literal["constant", "head", "channel"] = "head"
    form: Literal["softplus", "sigmoid", "exponential", "bounded"] = "softplus"
    temperature: Annotated[Real, Field(gt=0, le=1024)] = Fraction(1)
    lower: Share | Literal["learned"] = Fraction(0)
    upper: Share = Fraction(1)
    rank: Count | None = None
    bias: bool = False
    activation: Activation = "none"
    start: Literal["zeros", "open", "ramp", "zigzag"] = "zeros"
    slowest: Annotated[Real, Field(ge=0, le=1024)] = Fraction(1)
    fastest: Annotated[Real, Field(gt=0, le=1024)] = Fraction(16)
    cap: Annotated[Real, Field(gt=0)] | None = None

    def verify(self) -> None:
        """The bounds are in order."""
        learned = self.lower == "learned"
        if learned and (self.form != "sigmoid" or self.upper != 1):
            raise Invalid(
                "learned-bound",
                "a learned lower bound belongs to `form = sigmoid` with `upper = 1`",
                argument="lower",
                help="write `form = sigmoid`, or a number for `lower`",
            )
        if self.lower != "learned" and self.lower >= self.upper:
            raise Invalid(
                "empty-bounds",
                f"a decay between {self.lower} and {self.upper} has no room: the lower bound is not"
                " below the upper one",
                argument="lower",
                help="write `lower` smaller than `upper`",
            )
        if self.form == "bounded" and self.lower == 0:
            raise Invalid(
                "empty-bounds",
                "`form = bounded` is the lower bound to a power, and the lower bound is 0",
                argument="lower",
                help="write `lower = 0.5`",
            )
        if self.slowest >= self.fastest:
            raise Invalid(
                "empty-bounds",
                f"rates between {self.slowest} and {self.fastest} have no room",
                argument="slowest",
                help="write `slowest` smaller than `fastest`",
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
            lower=0.0 if self.lower == "learned" else float(self.lower),
            upper=float(self.upper),
            deepening=self.lower == "learned",
            step=step,
            smallest=float(self.slowest),
            largest=float(self.fastest),
            start=self.bias_start(),
            cap=None if self.cap is None else float(self.cap),
        )
        found = build.add_many(gate, logits, name="decay_gate")
        return Kept(found[0], found[1] if step else None, self.bound())

    def bias_start(self) -> Start:
        """How the gate's own bias starts; the sigmoid form has one only where that is asked for."""
        if self.start != "zeros":
            return self.start
        starts: dict[str, Start] = {"softplus": "steps", "sigmoid": "none"}
        return starts.get(self.form, "zeros")

    def project(self, build: Builder, stream: Value, width: int) -> Value:
        """The gate's logits, through ``rank`` channels where asked; see :data:`INITIAL`."""
        inner, init = stream, INITIAL[self.start == "zeros", self.rank is None]
        if self.rank:
            first: Initialisation = "zeros" if self.start in ("ramp", "zigzag") else "fan_in"
            narrow = Linear(width_in=stream.type.width, width_out=self.rank, init=first)
            inner = build.add(narrow, stream, name="decay_down")
        if self.rank and self.activation != "none":
            inner = build.add(Activate(function=self.activation), inner, name="decay_activation")
        widen = Linear(width_in=inner.type.width, width_out=width, bias=self.bias, init=init)
        return build.add(widen, inner, name="decay")

    def bound(self) -> float | None:
        """A proven lower bound of the decay a step, where there is one."""
        if self.lower in (0, "learned") or self.form in ("softplus", "exponential"):
            return None
        assert isinstance(self.lower, Fraction)
        return float(self.lower) ** (1 / float(self.temperature) if self.form == "sigmoid" else 1)


INITIAL: dict[tuple[bool, bool], Initialisation] = {
    (True, True): "fan_in",
    (True, False): "fan_in",
    (False, True): "zeros",
    (False, False): "small",
}
"""How a decay's projection starts, by whether its bias starts at zero and whether it has full rank.
The first of two maps is ``fan_in``, but zero where the bias starts as an RWKV's."""


class RunningSoftmax(Retention):
    """Keep the mean of all values so far, each weighted by the exponential of its key a channel.

    The decay and the key come from one another (LightNet's additive decay, arXiv 2405.21022).
    """

    name: ClassVar[str] = "running_softmax"

    def lower_gate(self, build: Builder, logits: Value) -> Kept:
        """The log decay and the key of the logits ``[B, T, heads · channels]``."""
        gate = RunningSoftmaxGate(width=logits.type.width)
        log_decay, key = build.add_many(gate, logits, name="decay_gate")
        return Kept(log_decay, key=key)
