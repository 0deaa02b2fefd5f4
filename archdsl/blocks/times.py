"""How often a loop runs its layers in one training step: drawn from a seed and the step's number.

Everything random here comes from Python's generator, seeded by text, so that a run replays on any
device and that every process of a distributed run draws the same.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, exp, log, sqrt
from random import Random
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Component, Copies, Invalid, Kind, Real

MOST = 10_000
"""Iterations a draw is cut at."""

Curve = Literal["linear", "sqrt"]


class Times(Component):
    """Iterations of a loop that training draws anew for every step; the base of all such draws."""

    kind: ClassVar[Kind] = "draw"

    @property
    def usual(self) -> int:
        """Iterations where nothing is drawn: in evaluation and decoding."""
        raise AssertionError(f"{type(self).__name__} does not say how often it usually runs")

    def draw(self, random: Random, share: float) -> int:
        """Iterations of one step; ``share`` in (0, 1] is how far a curriculum has come."""
        raise AssertionError(f"{type(self).__name__} does not say how it is drawn")


class Uniform(Times):
    """A whole number from ``low`` to ``high``, each as likely; ``test`` iterations when not training."""

    name: ClassVar[str] = "uniform"
    low: Copies
    high: Copies
    test: Copies | None = None

    def verify(self) -> None:
        """The bounds in order."""
        if self.high < self.low:
            raise Invalid(
                "empty-times",
                f"`uniform({self.low}, {self.high})` draws from nothing",
                argument="high",
                help=f"write the smaller one first: `uniform({self.high}, {self.low})`",
            )

    @property
    def usual(self) -> int:
        """``test``, or the most that training sees."""
        return self.test or self.high

    def draw(self, random: Random, share: float) -> int:
        """With a curriculum the upper bound grows."""
        return random.randint(self.low, max(self.low, ceil(self.high * share)))


class Poisson(Times):
    """One more than a Poisson draw of log-normal rate: ``τ ~ N(ln r - σ²/2, σ)``, ``1 + Poisson(e^τ)``.

    Its mean is ``r + 1`` (arXiv 2502.05171 §3.3). ``test`` iterations when not training, else ``mean``.
    """

    name: ClassVar[str] = "poisson"
    mean: Copies
    sigma: Annotated[Real, Field(ge=0, le=4)] = Fraction(1, 2)
    test: Copies | None = None

    @property
    def usual(self) -> int:
        """``test``, or the mean rate."""
        return self.test or self.mean

    def draw(self, random: Random, share: float) -> int:
        """With a curriculum the mean rate grows."""
        mean, sigma = max(1, ceil(self.mean * share)), float(self.sigma)
        rate = exp(random.gauss(log(mean) - sigma**2 / 2, sigma))
        return min(MOST, 1 + poisson(random, min(rate, MOST)))


def poisson(random: Random, rate: float) -> int:
    """A Poisson draw: arrivals of unit rate within ``rate`` (Devroye 1986, ch. X.3)."""
    count, passed = 0, random.expovariate(1.0)
    while passed < rate:
        count, passed = count + 1, passed + random.expovariate(1.0)
    return count


def share(curve: Curve, steps: int, number: int) -> float:
    """How far a curriculum of ``steps`` steps has come at step ``number`` (arXiv 2511.07384): (0, 1]."""
    if number >= steps:
        return 1.0
    done = (number + 1) / (steps + 1)
    return done if curve == "linear" else 1 - sqrt(1 - done)
