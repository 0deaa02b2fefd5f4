"""From a space and the trials so far to the next candidate.

A proposal is a pure function of the study's seed, the trial's number and the finished trials, so a
search that was killed proposes what an undisturbed one does. The sampler works on a private study in
memory: what is infeasible or was tried before is told to it there, and never reaches the storage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from archdsl.blocks.asking import Direction
from archdsl.diagnostics import ArchError
from archdsl.search.samplers.base import OptunaSampler
from archdsl.search.seeds import seed_of
from archdsl.search.space.distributions import distribution, suggest
from archdsl.search.space.protocols import Arch, Site, Space
from archdsl.search.space.sites import counted, every, near, value
from archdsl.search.space.walks import MOST, Walks
from archdsl.search.statistics.promotion import standings
from archdsl.search.storage.records import ARCH, Proposal, Record, signed

if TYPE_CHECKING:
    from collections.abc import Collection

ATTEMPTS = 100
"""Proposals of the sampler that may be infeasible or known before uniform draws take over."""

REPEATS = 3
"""How often a sampler may propose again what was just refused before uniform draws take over."""

DRAWS = 200
"""Uniform draws that may be known before the space counts as exhausted, or is walked if small.

Of a space of at most so many a sampler is asked once: where it proposes what is infeasible or known,
the nearest that is neither takes its place.
"""

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
        key_of: what tells whether two architectures would compute the same.
        queue: known architectures that are tried first, and where each is from.
    """

    def __init__(
        self, space: Space, sampler: OptunaSampler, seed: int, directions: Sequence[Direction],
        stages: int, rank: str | None, describe: Callable[[Arch], dict[str, Any]],
        key_of: Callable[[Arch], str], queue: Sequence[tuple[str, Arch]] = (),
    ) -> None:  # fmt: skip
        self.space, self.sampler, self.seed = space, sampler, seed
        self.directions, self.stages, self.rank = directions, stages, rank
        self.describe, self.key_of, self.queue = describe, key_of, queue
        self.walks = Walks(space)
        self._keys: dict[int, tuple[Arch, str]] = {}
        self._shown: dict[int, tuple[Any, FrozenTrial]] = {}

    def propose(self, records: Sequence[Record]) -> Proposal | None:
        """The next candidate, or ``None`` where every one was tried."""
        seed = seed_of(self.seed, "propose", len(records))
        taken = {record.key for record in records}
        effort = Effort()
        if queued := self._queued(taken):
            return queued
        study = self._mirror(records, seed)
        if self._few:
            return self._nearest(study, seed, taken, effort)
        return (
            self._asked(study, taken, effort)
            or self._drawn(seed, taken, effort)
            or self._left(taken, effort)
        )

    def _queued(self, taken: Collection[str]) -> Proposal | None:
        offers = (self._accepted(arch, taken, Effort(), origin=name) for name, arch in self.queue)
        return next((proposal for proposal in offers if proposal), None)

    def _nearest(
        self, study: Study, seed: int, taken: Collection[str], effort: Effort
    ) -> Proposal | None:
        """What the sampler proposes, or what is left of a small space and shares the most with it."""
        trial, decided = study.ask(), dict[str, int]()
        effort.asked += 1
        self.walks.arch(_suggested(trial, decided))
        carried, draw = _carried(study, trial), Random(seed_of(seed, "draw"))
        archs = near(self.walks.arch, decided, draw)
        offers = (self._accepted(arch, taken, effort, carried) for arch in archs)
        return next((proposal for proposal in offers if proposal), None)

    def _asked(self, study: Study, taken: Collection[str], effort: Effort) -> Proposal | None:
        refused, repeats = set[str](), 0
        for _ in range(ATTEMPTS):
            trial = study.ask()
            effort.asked += 1
            arch = self.walks.arch(_suggested(trial, {}))
            found = arch and self._accepted(arch, taken, effort, _carried(study, trial))
            if found:
                return found
            effort.infeasible += arch is None
            study.tell(trial, state=TrialState.FAIL)
            place = repr(trial.params)
            repeats += place in refused
            if repeats == REPEATS:
                return None
            refused.add(place)
        return None

    @cached_property
    def _few(self) -> bool:
        size = counted(self.space)
        return size is not None and size <= DRAWS

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
        carried: Mapping[str, Any] | None = None, origin: str | None = None,
    ) -> Proposal | None:  # fmt: skip
        if not self.space.feasible(arch):
            effort.infeasible += 1
            return None
        if self._key(arch) in taken:
            effort.duplicates += 1
            return None
        attributes = self.describe(arch)
        about: dict[str, Any] = {"effort": effort.as_attribute(), "carried": dict(carried or {})}
        about |= {"enqueued": origin} if origin else {}
        attributes[ARCH] = {**attributes[ARCH], "proposal": about}
        walk = _Walk()
        self.walks.arch(lambda site: walk.keep(site, arch.assignment[site.path]))
        return Proposal(arch, walk.params, walk.distributions, attributes)

    def _key(self, arch: Arch) -> str:
        """What an architecture is known by, worked out once."""
        if len(self._keys) > MOST:
            self._keys.clear()
        if id(arch) not in self._keys:
            self._keys[id(arch)] = arch, self.key_of(arch)
        return self._keys[id(arch)][1]

    def _mirror(self, records: Sequence[Record], seed: int) -> Study:
        """The stored trials as the sampler should see them, in memory."""
        storage, sampler = InMemoryStorage(), self.sampler.make(seed, self.space)
        study = optuna.create_study(
            directions=list(self.directions), sampler=sampler, storage=storage
        )
        place = storage.get_study_id_from_name(study.study_name)
        shortfalls = self._shortfalls(records)
        for record in records:
            storage.create_new_trial(place, self._kept(record, shortfalls.get(record.number)))
        return study

    def _kept(self, record: Record, shortfall: float | None) -> FrozenTrial:
        """A trial as the sampler sees it, made again where something about it has changed."""
        objectives = [rung.objectives for rung in record.rungs]
        said = (record.state, record.values, objectives, record.params, shortfall)
        if record.number not in self._shown or self._shown[record.number][0] != said:
            self._shown[record.number] = said, self._mirrored(record, shortfall)
        return self._shown[record.number][1]

    def _mirrored(self, record: Record, shortfall: float | None) -> FrozenTrial:
        """A trial as the sampler sees it.

        Optuna cannot order pruned trials of several objectives, and NSGA-II does not see them at
        all. So every finished trial is told as complete, with a constraint that it violates the more
        the earlier it was cut: TPE and NSGA-II both order by it.
        """
        carried = record.arch.get("proposal", {}).get("carried", {})
        running, started = shortfall is None, record.started or datetime.now()
        reached = record.values or next((r.objectives for r in reversed(record.rungs)), None)
        trial = _Shown(
            number=record.number, trial_id=record.number, value=None, user_attrs={},
            state=TrialState.RUNNING if running else TrialState.COMPLETE, intermediate_values={},
            values=None if running else list(reached or [0.0] * len(self.directions)),
            datetime_start=started, datetime_complete=None if running else started,
            params={path: record.params[path] for path in _in_order(record)},
            distributions=dict(record.distributions), system_attrs=dict(carried),
        )  # fmt: skip
        if shortfall is not None:
            trial.set_constraint("cut", shortfall)
        return trial

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
        return ((record.scores or {}).get(self.rank or "", float("-inf")),)


class _Shown(FrozenTrial):
    """A trial that nobody changes, so that a storage in memory need not copy what is in it."""

    def __deepcopy__(self, memo: object) -> FrozenTrial:
        shown = object.__new__(FrozenTrial)
        vars(shown).update(vars(self))
        return shown


def _suggested(trial: optuna.Trial, decided: dict[str, int]) -> Callable[[Site], int]:
    """A chooser that asks the sampler, and notes what it says."""

    def choose(site: Site) -> int:
        decided[site.path] = suggest(trial, site)
        return decided[site.path]

    return choose


def _in_order(record: Record) -> Sequence[str]:
    """The paths a record decided, in the order it did: a storage may give them in another."""
    known = list(record.arch.get("assignment", {}))
    return known if set(known) == set(record.params) else list(record.params)


def _carried(study: Study, trial: optuna.Trial) -> dict[str, Any]:
    """What a sampler noted on the trial and needs again: a genetic sampler's generation."""
    notes = study.get_trials(deepcopy=False)[trial.number].system_attrs
    return {key: note for key, note in notes.items() if key.endswith(":generation")}
