"""Genetic search by non-dominated sorting."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.search.samplers.base import OptunaSampler
from archdsl.search.space.protocols import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

GENERATION = 10
"""Candidates of a generation by default: a study of sixty has six generations, and the first is random."""


class NSGA2(OptunaSampler):
    """Genetic search by non-dominated sorting, for several objectives.

    "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II" (Deb et al., IEEE TEC 2002).

    Args:
        population: candidates of one generation; more than the default suits studies of many hundreds.
    """

    name: ClassVar[str] = "nsga2"

    population: Annotated[int, Field(ge=2, le=10**5)] = GENERATION

    def make(self, seed: int, space: Space) -> BaseSampler:
        """Optuna's ``NSGAIISampler``."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(seed=seed, population_size=self.population)


class NSGA3(OptunaSampler):
    """Genetic search by non-dominated sorting and reference points, for four objectives or more.

    "An Evolutionary Many-Objective Optimization Algorithm Using Reference-Point-Based Nondominated
    Sorting Approach" (Deb and Jain, IEEE TEC 2014).

    Args:
        population: candidates of one generation; more than the default suits studies of many hundreds.
    """

    name: ClassVar[str] = "nsga3"

    population: Annotated[int, Field(ge=2, le=10**5)] = GENERATION

    def make(self, seed: int, space: Space) -> BaseSampler:
        """Optuna's ``NSGAIIISampler``."""
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import NSGAIIISampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return NSGAIIISampler(seed=seed, population_size=self.population)
