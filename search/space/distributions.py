"""Choices of a space as Optuna sees them."""

from __future__ import annotations

from functools import lru_cache

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from archdsl.search.space.protocols import Site
from archdsl.search.space.sites import labels


def suggest(trial: optuna.Trial, site: Site) -> int:
    """The sampler's decision at a site."""
    shape = distribution(site)
    if isinstance(shape, IntDistribution):
        return trial.suggest_int(site.path, shape.low, shape.high)
    assert isinstance(shape, CategoricalDistribution)
    return shape.choices.index(trial.suggest_categorical(site.path, shape.choices))


def distribution(site: Site) -> BaseDistribution:
    """A site as Optuna sees it: ordered numbers by their index, other alternatives by their text."""
    if site.kind == "range":
        return IntDistribution(0, site.size - 1)
    return _among(labels(site))


@lru_cache(maxsize=1024)
def _among(words: tuple[str, ...]) -> CategoricalDistribution:
    """One distribution for all choices among the same words."""
    return CategoricalDistribution(words)
