"""A controller trained by policy gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import exp
from random import Random as Generator
from typing import Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.base import Real
from archdsl.search.samplers.base import Past, SpaceSampler
from archdsl.search.space.protocols import Site, Space
from archdsl.search.space.sites import fitting

BASELINE = 0.9
"""Decay of the running mean of rewards that each reward is compared with."""


class Reinforce(SpaceSampler):
    """REINFORCE: a distribution over each choice, moved towards what turned out well.

    "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning"
    (Williams, 1992), as the controller of "Neural Architecture Search with Reinforcement Learning"
    (Zoph and Le, ICLR 2017) without its recurrent network: one vector of logits for each choice, given
    the decision before it. The controller is trained again from the study for every proposal.

    Args:
        learning_rate: of the logits.
        startup: candidates drawn uniformly before the controller draws.
    """

    name: ClassVar[str] = "reinforce"

    learning_rate: Annotated[Real, Field(gt=0, le=100)] = Fraction(1, 2)
    startup: Annotated[int, Field(ge=0, le=10**6)] = 5

    def pick(self, past: Sequence[Past], space: Space, draw: Generator) -> Mapping[str, int] | None:
        """A draw from the trained controller."""
        done = [each for each in past if each.state == "done"]
        if len(done) < self.startup:
            return None
        controller = Controller(float(self.learning_rate))
        mean = 0.0
        for each in done:
            reward = 1 - each.place / len(done)
            controller.learn(each, reward - mean)
            mean = BASELINE * mean + (1 - BASELINE) * reward
        arch = fitting(space, controller.chooser(draw))
        return arch.assignment if arch else None


Context = tuple[str, int, str, int]
"""A choice and its size, and the choice and alternative decided right before it."""


class Controller:
    """Logits for each choice by itself, and for each given the decision before it.

    Args:
        rate: of learning.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.logits: dict[Context, list[float]] = {}

    def learn(self, past: Past, advantage: float) -> None:
        """One step along the gradient of the advantage times the log-likelihood."""
        before = ("", 0)
        for path, taken in past.assignment.items():
            size = past.shapes[path].size
            chances = self.chances(path, size, before)
            for table in self._tables(path, size, before):
                for index, chance in enumerate(chances):
                    table[index] += self.rate * advantage * ((index == taken) - chance)
            before = (path, taken)

    def chooser(self, draw: Generator) -> _Chooser:
        """Draws every choice."""
        return _Chooser(self, draw)

    def chances(self, path: str, size: int, before: tuple[str, int]) -> list[float]:
        """The softmax over a choice's alternatives."""
        sums = [sum(column) for column in zip(*self._tables(path, size, before), strict=True)]
        top = max(sums)
        weights = [exp(each - top) for each in sums]
        whole = sum(weights)
        return [weight / whole for weight in weights]

    def _tables(self, path: str, size: int, before: tuple[str, int]) -> list[list[float]]:
        keys: list[Context] = [(path, size, "", 0), (path, size, *before)]
        return [self.logits.setdefault(key, [0.0] * size) for key in dict.fromkeys(keys)]


class _Chooser:
    def __init__(self, controller: Controller, draw: Generator) -> None:
        self.controller, self.draw = controller, draw
        self.before = ("", 0)

    def __call__(self, site: Site) -> int:
        chances = self.controller.chances(site.path, site.size, self.before)
        (index,) = self.draw.choices(range(site.size), chances)
        self.before = (site.path, index)
        return index
