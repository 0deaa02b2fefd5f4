"""Optuna's sources of chance, made when they are first asked: most proposals need one of several."""

from __future__ import annotations

import numpy as np
from optuna.samplers import RandomSampler, TPESampler
from optuna.samplers._lazy_random_state import LazyRandomState


class Late(LazyRandomState):
    """A source of chance that is seeded when it is first asked, as NumPy takes its time for that."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def _set_rng(self) -> None:
        self._rng = np.random.RandomState(self.seed)


def seeded(sampler: TPESampler, seed: int) -> TPESampler:
    """A sampler that was made without a seed, as if it had been made with one."""
    sampler._rng = Late(seed)
    sampler._random_sampler = late_random(seed)
    return sampler


def late_random(seed: int) -> RandomSampler:
    """Optuna's ``RandomSampler(seed)``."""
    sampler = RandomSampler()
    sampler._rng = Late(seed)
    return sampler
