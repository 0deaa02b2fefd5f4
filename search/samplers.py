"""How the next candidate is proposed: each sampler a component, and the Optuna sampler behind it.

To add a sampler: write a subclass of :class:`OptunaSampler` that gives an Optuna sampler for a seed,
add its line to ``archdsl.blocks.registry.BUILT_IN`` and its example to ``tests/search/contracts.py``. A new
one is made for every proposal, so it must keep nothing but what it finds in the study.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.asking import Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class OptunaSampler(Sampler):
    """A sampler that an Optuna sampler carries out."""

    def make(self, seed: int) -> BaseSampler:
        """The Optuna sampler that makes one proposal."""
        raise AssertionError(f"{type(self).__name__} does not say what it makes")


class Random(OptunaSampler):
    """Each choice uniformly at random."""

    name: ClassVar[str] = "random"

    def make(self, seed: int) -> BaseSampler:
        """Optuna's ``RandomSampler``."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)


class TPE(OptunaSampler):
    """Tree-structured Parzen estimator, over all choices of one architecture together.

    "Algorithms for Hyper-Parameter Optimization" (Bergstra et al., NeurIPS 2011); multivariate, with a
    group for each set of choices that exist together (Falkner et al., ICML 2018).

    Args:
        startup: random candidates before the first estimate.
        candidates: draws from the better candidates' density, of which the best ratio is proposed.
    """

    name: ClassVar[str] = "tpe"

    startup: Annotated[int, Field(ge=1, le=10**6)] = 10
    candidates: Annotated[int, Field(ge=1, le=10**5)] = 24

    def make(self, seed: int) -> BaseSampler:
        """Optuna's ``TPESampler``."""
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import TPESampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return TPESampler(
                seed=seed,
                n_startup_trials=self.startup,
                n_ei_candidates=self.candidates,
                multivariate=True,
                group=True,
            )


class NSGA2(OptunaSampler):
    """Genetic search by non-dominated sorting, for several objectives.

    "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II" (Deb et al., IEEE TEC 2002).

    Args:
        population: candidates of one generation.
    """

    name: ClassVar[str] = "nsga2"

    population: Annotated[int, Field(ge=2, le=10**5)] = 50

    def make(self, seed: int) -> BaseSampler:
        """Optuna's ``NSGAIISampler``."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(seed=seed, population_size=self.population)
