"""From a space and the trials so far to the next candidate.

A proposal is a pure function of the study's seed, the trial's number and the finished trials, so a
search that was killed proposes what an undisturbed one does. The sampler works on a private study in
memory: what is infeasible or was tried before is told to it there, and never reaches the storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from archdsl.blocks.asking import Direction
from archdsl.diagnostics import ArchError
from archdsl.search.promotion import standings
from archdsl.search.protocols import Arch, Site, Space
from archdsl.search.records import ARCH, Record, signed
from archdsl.search.samplers import OptunaSampler
from archdsl.search.seeds import seed_of

if TYPE_CHECKING:
    from collections.abc import Collection

ATTEMPTS = 100
"""Proposals of the sampler that may be infeasible or known before uniform draws take over."""

DRAWS = 200
"""Uniform draws that may be known before the space counts as exhausted, or is walked if small."""

WALKED = 4096
"""The largest space that is walked through to find what is left."""


@dataclass
class Effort:
    """What it took to find a candidate."""

    asked: int = 0
    infeasible: int = 0
    duplicates: int = 0
    drawn: int = 0

    def as_attribute(self) -> dict[str, int]:
        """For the storage."""
        return dict(vars(self))


@dataclass(frozen=True)
class Proposal:
    """A candidate that keeps every constraint and was never tried.

    Args:
        arch: the architecture.
        params: the sampler's view of it, by site path.
        distributions: of the params.
        attributes: what the trial begins with.
    """

    arch: Arch
    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    attributes: Mapping[str, Any]


@dataclass
class _Walk:
    """The decisions of one architecture in the sampler's words."""

    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)

    def keep(self, site: Site, index: int) -> int:
        self.distributions[site.path] = distribution(site)
        self.params[site.path] = value(site, index)
        return index


class Proposer:
    """Proposes the next candidate of a study.

    Args:
        space: all candidates.
        sampler: how one is picked.
        seed: of the study.
        directions: of the objectives.
        stages: rungs of training, which say how far a trial has come.
        rank: the score that decides who is trained, if one does.
        describe: attributes every trial of an architecture begins with.
    """

    def __init__(
        self, space: Space, sampler: OptunaSampler, seed: int, directions: Sequence[Direction],
        stages: int, rank: str | None, describe: Callable[[Arch], dict[str, Any]],
    ) -> None:  # fmt: skip
        self.space, self.sampler, self.seed = space, sampler, seed
        self.directions, self.stages, self.rank = directions, stages, rank
        self.describe = describe

    def propose(self, records: Sequence[Record]) -> Proposal | None:
        """The next candidate, or ``None`` where every one was tried."""
        seed = seed_of(self.seed, "propose", len(records))
        taken = {record.key for record in records}
        effort = Effort()
        return (
            self._asked(records, seed, taken, effort)
            or self._drawn(seed, taken, effort)
            or self._left(taken, effort)
        )

    def _asked(
        self, records: Sequence[Record], seed: int, taken: Collection[str], effort: Effort
    ) -> Proposal | None:
        study = self._mirror(records, seed)
        for _ in range(ATTEMPTS):
            trial = study.ask()
            effort.asked += 1
            arch = fitting(self.space, partial(suggest, trial))
            found = arch and self._accepted(arch, taken, effort, _carried(study, trial))
            if found:
                return found
            effort.infeasible += arch is None
            study.tell(trial, state=TrialState.FAIL)
        return None

    def _drawn(self, seed: int, taken: Collection[str], effort: Effort) -> Proposal | None:
        for draw in range(DRAWS):
            effort.drawn += 1
            try:
                arch = self.space.sample(seed_of(seed, "draw", draw))
            except ArchError:
                return None
            if found := self._accepted(arch, taken, effort):
                return found
        return None

    def _left(self, taken: Collection[str], effort: Effort) -> Proposal | None:
        """What nobody proposed, where the space is small enough to look at all of it."""
        size = counted(self.space)
        if size is None or size > WALKED:
            return None
        found = (self._accepted(arch, taken, effort) for arch in every(self.space))
        return next((proposal for proposal in found if proposal), None)

    def _accepted(
        self, arch: Arch, taken: Collection[str], effort: Effort,
        carried: Mapping[str, Any] | None = None,
    ) -> Proposal | None:  # fmt: skip
        if not self.space.feasible(arch):
            effort.infeasible += 1
            return None
        attributes = self.describe(arch)
        if attributes[ARCH]["key"] in taken:
            effort.duplicates += 1
            return None
        about = {"effort": effort.as_attribute(), "carried": dict(carried or {})}
        attributes[ARCH] = {**attributes[ARCH], "proposal": about}
        walk = _Walk()
        self.space.decide(lambda site: walk.keep(site, arch.assignment[site.path]))
        return Proposal(arch, walk.params, walk.distributions, attributes)

    def _mirror(self, records: Sequence[Record], seed: int) -> Study:
        """The stored trials as the sampler should see them, in memory."""
        study = optuna.create_study(
            directions=list(self.directions), sampler=self.sampler.make(seed)
        )
        shortfalls = self._shortfalls(records)
        study.add_trials([self._mirrored(r, shortfalls.get(r.number)) for r in records])
        return study

    def _mirrored(self, record: Record, shortfall: float | None) -> FrozenTrial:
        """A trial as the sampler sees it.

        Optuna cannot order pruned trials of several objectives, and NSGA-II does not see them at
        all. So every finished trial is told as complete, with a constraint that it violates the more
        the earlier it was cut: TPE and NSGA-II both order by it.
        """
        carried = record.arch.get("proposal", {}).get("carried", {})
        known: dict[str, Any] = {
            "params": dict(record.params),
            "distributions": dict(record.distributions),
            "system_attrs": dict(carried),
        }
        if shortfall is None:
            return create_trial(state=TrialState.RUNNING, **known)
        reached = record.values or next((r.objectives for r in reversed(record.rungs)), None)
        values = list(reached or [0.0] * len(self.directions))
        return create_trial(values=values, constraints={"cut": shortfall}, **known)

    def _shortfalls(self, records: Sequence[Record]) -> dict[int, float]:
        """How far each finished trial stayed behind the last rung; 0 for those that reached it."""
        found: dict[int, float] = {}
        cut: dict[int, list[Record]] = {}
        for record in records:
            if record.state == "complete":
                found[record.number] = 0.0
            elif record.state == "fail":
                found[record.number] = self.stages + 2.0
            elif record.state == "pruned":
                cut.setdefault(len(record.rungs), []).append(record)
        for passed, peers in cut.items():
            places = standings([self._merit(peer) for peer in peers])
            for peer, place in zip(peers, places, strict=True):
                found[peer.number] = self.stages - passed + 0.01 + place / len(peers)
        return found

    def _merit(self, record: Record) -> tuple[float, ...]:
        """What trials that were cut at one stage are compared by; larger is better."""
        if record.rungs:
            return signed(record.rungs[-1].objectives, self.directions)
        return ((record.scores or {}).get(self.rank or "", 0.0),)


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
    return CategoricalDistribution(labels(site))


def value(site: Site, index: int) -> Any:
    """An alternative in the sampler's words."""
    return index if site.kind == "range" else labels(site)[index]


def labels(site: Site) -> tuple[str, ...]:
    """The alternatives as they are written, numbered where two are written alike."""
    texts = [site.text(index) for index in range(site.size)]
    if len(set(texts)) == len(texts):
        return tuple(texts)
    return tuple(f"{index}: {text}" for index, text in enumerate(texts))


def counted(space: Space) -> int | None:
    """How many architectures there are; ``None`` where nobody can say."""
    try:
        return space.count()
    except ArchError:
        return None


def fitting(space: Space, choose: Callable[[Site], int]) -> Arch | None:
    """The architecture of a chooser, or ``None`` where its choices do not fit together."""
    try:
        arch: Arch = space.decide(choose)
    except ArchError:
        return None
    return arch


def every(space: Space) -> Iterator[Arch]:
    """Every architecture of a space, in the order of its choices."""
    prefix: list[int] | None = []
    while prefix is not None:
        taken: list[int] = []
        sizes: list[int] = []

        def choose(
            site: Site,
            prefix: list[int] = prefix,
            taken: list[int] = taken,
            sizes: list[int] = sizes,
        ) -> int:
            pick = prefix[len(taken)] if len(taken) < len(prefix) else 0
            taken.append(pick)
            sizes.append(site.size)
            return pick

        arch = fitting(space, choose)
        if arch is not None:
            yield arch
        prefix = _next(taken, sizes)


def _next(taken: list[int], sizes: list[int]) -> list[int] | None:
    while taken and taken[-1] + 1 >= sizes[-1]:
        taken.pop()
        sizes.pop()
    return [*taken[:-1], taken[-1] + 1] if taken else None


def _carried(study: Study, trial: optuna.Trial) -> dict[str, Any]:
    """What a sampler noted on the trial and needs again: a genetic sampler's generation."""
    notes = study.get_trials(deepcopy=False)[trial.number].system_attrs
    return {key: note for key, note in notes.items() if key.endswith(":generation")}
