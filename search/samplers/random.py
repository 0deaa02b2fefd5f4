"""Each choice uniformly at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.samplers.base import OptunaSampler
from archdsl.search.space.protocols import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Random(OptunaSampler):
    """Each choice uniformly at random."""

    name: ClassVar[str] = "random"
    order_independent: ClassVar[bool] = True

    def make(self, seed: int, space: Space) -> BaseSampler:
        """Optuna's ``RandomSampler``."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)
