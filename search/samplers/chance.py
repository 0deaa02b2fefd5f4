"""Optuna's sources of chance, seeded when they are first asked: most proposals need one of several."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from optuna.samplers import RandomSampler, TPESampler
from optuna.samplers._lazy_random_state import LazyRandomState


class Late(LazyRandomState):
    """A source of chance that is seeded when it is first asked.

    NumPy takes longer to make a new one than to seed it, so those that are done with are seeded again.
    """

    spare: ClassVar[list[np.random.RandomState]] = []

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def _set_rng(self) -> None:
        self._rng = self.spare.pop() if self.spare else np.random.RandomState()
        self._rng.seed(self.seed)

    def __del__(self) -> None:
        if self._rng is not None:
            self.spare.append(self._rng)


def seeded(sampler: TPESampler, seed: int) -> TPESampler:
    """A sampler that was made without a seed, as if it had been made with one."""
    sampler._rng = Late(seed)
    sampler._random_sampler = RandomSampler()
    sampler._random_sampler._rng = Late(seed)
    return sampler
