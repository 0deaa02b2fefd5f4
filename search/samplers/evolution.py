"""Regularised evolution with the space's own mutation and crossover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from random import Random as Generator
from typing import Annotated, Any, ClassVar

from pydantic import Field

from archdsl.blocks.base import Real
from archdsl.search.samplers.base import Past, SpaceSampler
from archdsl.search.space.protocols import Space
from archdsl.search.space.sites import located


class Evolution(SpaceSampler):
    """Regularised evolution: children of the best of a few among the youngest; the oldest die.

    "Regularized Evolution for Image Classifier Architecture Search" (Real et al., AAAI 2019), with the
    space's own mutation, which keeps conditional choices and constraints, and at times its crossover.

    Args:
        population: how many of the youngest live; as many are drawn at random first.
        tournament: how many of them are compared for each parent.
        crossover: the share of children that have two parents.
    """

    name: ClassVar[str] = "evolution"

    population: Annotated[int, Field(ge=2, le=10**5)] = 20
    tournament: Annotated[int, Field(ge=1, le=10**5)] = 5
    crossover: Annotated[Real, Field(ge=0, le=1)] = Fraction(1, 4)

    def pick(self, past: Sequence[Past], space: Space, draw: Generator) -> Mapping[str, int] | None:
        """A child, or ``None`` as long as the first generation is drawn."""
        alive = [each for each in past if each.state == "done"][-self.population :]
        if len(alive) < self.population:
            return None
        parent = self._parent(alive, space, draw)
        if parent is None:
            return None
        if draw.random() < self.crossover:
            other = self._parent(alive, space, draw)
            parent = space.crossover(parent, other or parent, draw.getrandbits(31))
        child: Mapping[str, int] = space.mutate(parent, draw.getrandbits(31)).assignment
        return child

    def _parent(self, alive: Sequence[Past], space: Space, draw: Generator) -> Any:
        """The best of a few; ``None`` where the space no longer has it."""
        few = draw.sample(alive, min(self.tournament, len(alive)))
        return located(space, min(few, key=lambda each: each.place).assignment)
