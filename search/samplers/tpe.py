"""Tree-structured Parzen estimator."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.search.samplers.base import OptunaSampler
from archdsl.search.space.protocols import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


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

    def make(self, seed: int, space: Space) -> BaseSampler:
        """Optuna's ``TPESampler``."""
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import TPESampler

        from archdsl.search.samplers.chance import seeded

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = TPESampler(
                n_startup_trials=self.startup,
                n_ei_candidates=self.candidates,
                multivariate=True,
                group=True,
            )
        return seeded(sampler, seed)
