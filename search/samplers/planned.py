"""The Optuna sampler behind the samplers that pick whole architectures."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random as Generator
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from archdsl.search.samplers.base import Past, Shape
from archdsl.search.space.distributions import distribution
from archdsl.search.space.protocols import Site, Space
from archdsl.search.space.sites import value
from archdsl.search.statistics.promotion import standings

if TYPE_CHECKING:
    from archdsl.search.samplers.base import SpaceSampler


class Planned(BaseSampler):
    """Has a sampler of ours pick an architecture, and tells Optuna its decisions.

    Args:
        sampler: who picks.
        seed: of this proposal.
        space: all candidates.
    """

    def __init__(self, sampler: SpaceSampler, seed: int, space: Space) -> None:
        self.sampler, self.space = sampler, space
        self.draw = Generator(seed)
        self.uniform = RandomSampler(seed=seed)
        self._params: dict[str, Any] = {}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The choices of the architecture that is picked."""
        self._params = {}
        found: dict[str, BaseDistribution] = {}
        assignment = self.sampler.pick(past(study, trial), self.space, self.draw)
        if assignment is None:
            return found

        def keep(site: Site) -> int:
            index = assignment[site.path]
            found[site.path] = distribution(site)
            self._params[site.path] = value(site, index)
            return index

        self.space.decide(keep)
        return found

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What is taken at each of them."""
        return self._params

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A uniform draw, where nothing was picked."""
        return self.uniform.sample_independent(study, trial, param_name, param_distribution)


def past(study: Study, asked: FrozenTrial) -> list[Past]:
    """Every trial of a study but the one that is asked for."""
    trials = [each for each in study.get_trials(deepcopy=False) if each.number != asked.number]
    done = [each for each in trials if each.state == TrialState.COMPLETE]
    places = dict(zip((each.number for each in done), placed(done, study.directions), strict=True))
    return [_past(each, places.get(each.number), len(done)) for each in trials]


def _past(trial: FrozenTrial, place: int | None, of: int) -> Past:
    shapes = {path: _shape(trial.distributions[path]) for path in trial.params}
    taken = {path: _index(trial.distributions[path], each) for path, each in trial.params.items()}
    if place is None:
        running = trial.state in (TrialState.RUNNING, TrialState.WAITING)
        return Past(taken, shapes, "running" if running else "refused")
    merit = NormalDist().inv_cdf(1 - (place + 0.5) / of)
    return Past(taken, shapes, "done", place, merit)


def placed(done: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[int]:
    """The place of each trial, 0 the best: those that were cut stand behind, by how early."""
    cuts = [trial.constraints.get("cut", 0.0) for trial in done]
    signs = [1.0 if way == StudyDirection.MAXIMIZE else -1.0 for way in directions]
    results = [[s * v for s, v in zip(signs, trial.values, strict=True)] for trial in done]
    whole = [result for result, cut in zip(results, cuts, strict=True) if cut <= 0]
    first = iter(standings(whole))
    keys = [(cut, 0) if cut > 0 else (0.0, next(first)) for cut in cuts]
    order: dict[tuple[float, int], int] = {}
    for position, key in enumerate(sorted(keys)):
        order.setdefault(key, position)
    return [order[key] for key in keys]


def _shape(of: BaseDistribution) -> Shape:
    if isinstance(of, CategoricalDistribution):
        return Shape(len(of.choices), False)
    assert isinstance(of, IntDistribution)
    return Shape(of.high + 1, True)


def _index(shape: BaseDistribution, taken: Any) -> int:
    if isinstance(shape, CategoricalDistribution):
        return shape.choices.index(taken)
    return int(taken)
