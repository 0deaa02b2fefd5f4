"""Learners: how the inner objective is descended."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Component, Count, Kind, Real, Value
from archdsl.blocks.ops.dense import Activate, Initialisation, Linear
from archdsl.blocks.ops.memory import FixedRate, SoftCap
from archdsl.kernels.learner.rule import Learn

Chunk = Annotated[int, Field(ge=1, le=1024)]
"""Writes that start from one memory."""


class Learner(Component):
    """A rule for one token's step; the base of all learners."""

    kind: ClassVar[Kind] = "learner"


class GradientDescent(Learner):
    """Gradient steps of a size in ``(0, beta_max)``, ``steps`` of them a token, each with its own key.

    ``rate`` is 1 (``fixed``), learned a head, from the token, the step size of the decay (``step``,
    Mamba-2's Δ), the exponential of the token's (``exponential``, mLSTM's input gate, whose bias
    begins at ``start`` and whose logits are bounded by ``cap``), or one a key ``channel`` (RWKV-7's
    in-context learning rate, through ``rank`` channels; ``start = zigzag`` spreads it over the channels
    as published, alike for all tokens at first). Sizes up to 2 give the delta rule negative eigenvalues
    (arXiv 2411.12537).
    """

    name: ClassVar[str] = "gd"
    rate: Literal["fixed", "head", "token", "step", "exponential", "channel"] = "fixed"
    beta_max: Annotated[Real, Field(gt=0, le=2)] = Fraction(1)
    steps: Annotated[int, Field(ge=1, le=64)] = 1
    rank: Count | None = None
    start: Real | Literal["zigzag"] = Fraction(0)
    cap: Annotated[Real, Field(gt=0)] | None = None
    chunk: Chunk = 1
    average: bool = False
    bound: Literal["auto", "none", "error"] = "auto"
    clip: Annotated[Real, Field(gt=0)] | None = None
    first: Literal["decay", "gradient"] = "decay"

    @property
    def online(self) -> bool:
        """Whether nothing is asked for that the fast families do not have, but for a chunk."""
        plain = self.name == "gd" and not self.average and self.clip is None
        return plain and self.bound != "error" and self.first == "decay"

    @property
    def learn(self) -> Learn:
        """As the learner family takes it."""
        return Learn(
            chunk=self.chunk,
            average=self.average,
            bound="none" if self.bound == "none" else "error",
            clip=None if self.clip is None else float(self.clip),
            decay_first=self.first == "decay",
            writes=self.steps,
            largest=float(self.beta_max / self.shared),
            rate="channel" if self.rate == "channel" else "head",
        )

    @property
    def summed(self) -> int:
        """Writes whose gradients one step sums."""
        return self.learn.window

    @property
    def shared(self) -> int:
        """Gradients that share one step."""
        return 1 if self.average else self.chunk * int(getattr(self, "window", 1))

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it; nothing for a plain step."""
        return ""

    def lower(
        self,
        build: Builder,
        stream: Value,
        heads: int,
        channels: int,
        step: Value | None,
        times: Fraction = Fraction(1),
    ) -> Value | None:
        """The write rate ``[B, T, heads]`` (``exponential``: its logarithm), or a key channel's.

        It is in ``(0, beta_max · times)``. ``None`` where it is 1.
        """
        largest = self.beta_max * times
        if self.rate == "fixed":
            return None
        if self.rate == "step":
            return step
        if self.rate == "exponential":
            return self._exponential(build, stream, heads)
        if self.rate == "channel":
            return self._channelwise(build, stream, heads, channels, largest)
        writes = heads * self.steps
        if self.rate == "head":
            fixed = FixedRate(heads=writes, learned=True, maximum=float(largest))
            return build.add(fixed, stream, name="rate")
        logits = build.add(
            Linear(width_in=stream.type.width, width_out=writes), stream, name="rate"
        )
        return build.add(Activate(function="sigmoid", scale=largest), logits, name="rate_gate")

    def _exponential(self, build: Builder, stream: Value, heads: int) -> Value:
        """Logits that start at the same number for every token."""
        op = Linear(
            width_in=stream.type.width,
            width_out=heads,
            bias=True,
            init="zeros",
            bias_init=0.0 if self.start == "zigzag" else float(self.start),
        )
        logits = build.add(op, stream, name="rate")
        if self.cap is None:
            return logits
        return build.add(SoftCap(cap=float(self.cap)), logits, name="rate_cap")

    def _channelwise(
        self, build: Builder, stream: Value, heads: int, channels: int, largest: Fraction
    ) -> Value:
        """``largest · σ(b + W₂ W₁ x)``; the bias starts at RWKV-7's -0.19."""
        inner, spread = stream, self.start == "zigzag"
        if self.rank:
            first: Initialisation = "zeros" if spread else "fan_in"
            narrow = Linear(width_in=stream.type.width, width_out=self.rank, init=first)
            inner = build.add(narrow, stream, name="rate_down")
        widen = Linear(
            width_in=inner.type.width,
            width_out=heads * channels,
            bias=True,
            init="small" if self.rank else "fan_in",
            bias_init=-0.19,
            bias_heads=heads if spread else 0,
        )
        logits = build.add(widen, inner, name="rate")
        return build.add(Activate(function="sigmoid", scale=largest), logits, name="rate_gate")
