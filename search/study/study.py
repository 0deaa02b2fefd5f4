"""A study: every candidate through its stages, cheapest first, each result kept as it arrives.

check → constraints → duplicates (a proposal has passed them) → training-free scores → rungs of
training. A trial's next stage depends on what is stored alone, so a search that was killed goes on
where it was, and what it decides is what an undisturbed one decides.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import optuna

from archdsl.compiler.reading.quantities import parts as _parts
from archdsl.search.metrics import chosen
from archdsl.search.metrics.base import TrainingFree
from archdsl.search.samplers.base import OptunaSampler
from archdsl.search.seeds import seed_of
from archdsl.search.space.objectives import (
    Objective,
    hard_constraints,
    kept,
    known_costs,
    latencies,
)
from archdsl.search.space.protocols import Arch, Space
from archdsl.search.statistics.promotion import dominates
from archdsl.search.storage.files import ending, remove, write_text
from archdsl.search.storage.records import (
    ARCH,
    CONSTRAINTS,
    COSTS,
    EDITED,
    MEASURED,
    SAMPLE,
    SCORES,
    Record,
    rung_key,
    signed,
)
from archdsl.search.storage.store import Lost, Store
from archdsl.search.study.fronts import pareto_front
from archdsl.search.study.halving import Verdict, at_rung, by_score
from archdsl.search.study.placing import Edition
from archdsl.search.study.progress import Display
from archdsl.search.study.proposals import Proposer
from archdsl.search.workers.components import written
from archdsl.search.workers.worker import Failure, Worker

Status = Literal["finished", "exhausted", "interrupted"]

OUTSIDE = "outside"
"""The study attribute that marks trials of earlier editions that do not lie in the present space."""

FROM = "from"
"""In a result that was not computed here: the study and the trial it is from."""

MOST_WAITING = 16
"""Trials that may wait for others before nobody proposes more: proposals without news are blind."""

BETWEEN_LOOKS = 0.2
"""Seconds between two looks at a study whose other trials are all in other processes' hands."""


@dataclass(frozen=True)
class Settings:
    """How a study is run: the ``search`` section with what the user gave beside it.

    Args:
        trials: of the whole study, however many processes and starts it takes.
        seed: of proposals.
        sampler: how candidates are proposed.
        rank: the score that decides who is trained; ``None`` trains everyone.
        promote: the share of scored candidates that is trained.
        rungs: optimiser steps after which the weaker are cut.
        timeout: seconds one trial may take.
        device: where models are trained; ``None`` takes a GPU where there is one.
        data: the user's file for tasks that take one.
        folder: where relative paths of the spec start.
    """

    trials: int
    seed: int
    sampler: OptunaSampler
    rank: TrainingFree | None
    promote: Fraction
    rungs: tuple[int, ...]
    timeout: float
    device: str | None
    data: Path | None
    folder: Path


class Study:
    """One search over one space.

    Args:
        space: the candidates.
        settings: how.
        objectives: what for.
        store: where trials are kept.
        worker: who scores and trains.
        folder: of the run: closed specs, checkpoints and weights go to ``trials/`` in it.
        display: what the user sees meanwhile.
        data: what identifies each task's data.
        queue: known architectures that are tried first, and where each is from.
    """

    def __init__(
        self, space: Space, settings: Settings, objectives: Sequence[Objective], store: Store,
        worker: Worker, folder: Path, display: Display, data: Mapping[str, str],
        queue: Sequence[tuple[str, Arch]] = (),
    ) -> None:  # fmt: skip
        self.space, self.settings, self.objectives = space, settings, objectives
        self.store, self.worker, self.display = store, worker, display
        self.folder, self.trials = folder, folder / "trials"
        self.metrics = chosen(settings.rank)
        self.written = [written(metric) for metric in self.metrics]
        self.rank = settings.rank.label if settings.rank else None
        self.directions = [objective.direction for objective in objectives]
        self.proposer = Proposer(
            space, settings.sampler, settings.seed, self.directions, len(settings.rungs),
            self.rank, self.describe, key_of, queue,
        )  # fmt: skip
        self.schedule = {"steps": settings.rungs[-1], "data": dict(data)}
        self.edition = Edition(space, settings.rungs, key_of, store.first_edition)

    def run(self) -> Status:
        """Work until the study has its trials and all have ended, or every candidate was tried.

        Raises:
            ArchError: the machine does not let the study go on; what is stored is sound.
        """
        while True:
            found = self._next()
            if isinstance(found, str):
                return found
            if found is not None:
                self._carry(found)
            else:
                self.display.waiting(self.records())
                time.sleep(BETWEEN_LOOKS)

    def describe(self, arch: Arch) -> dict[str, Any]:
        """What a trial of an architecture begins with."""
        about = {
            "hash": arch.hash,
            "key": key_of(arch),
            "choices": dict(arch.choices),
            "assignment": dict(arch.assignment),
            "text": arch.text,
            "seed": seed_of(arch.hash, arch.train.seed),
            "schedule": self.schedule,
            "space": self.space.text_hash,
            "versions": {"python": sys.version.split()[0], "optuna": optuna.__version__},
        }
        return {
            ARCH: about,
            COSTS: known_costs(self.objectives, arch),
            CONSTRAINTS: hard_constraints(arch),
        }

    def records(self) -> list[Record]:
        """The trials that lie in the space of the present spec, by number."""
        return self.edition.of(self.store.records())

    def outside(self) -> list[int]:
        """The trials of earlier editions of the spec that do not: they are kept, marked and not used."""
        with self.store.exclusive():
            records = self.store.records()
            found = [record for record in records if self.edition.placed(record) is None]
            for record in self.store.abandoned(found):
                self.store.take_over(record)
                what = "the spec was edited, and has this architecture no more"
                self.store.finish(record, "pruned", None, EDITED, what)
            numbers = [record.number for record in found]
            self.store.mark(OUTSIDE, numbers)
        return numbers

    def front(self, records: Sequence[Record] | None = None) -> list[Record]:
        """Finished trials that no other beats, best first."""
        found = self.records() if records is None else records
        return pareto_front(found, self.objectives)

    def _next(self) -> Record | Status | None:
        """A trial to go on with, else a new one; how the study ended; ``None`` where others are at it."""
        with self.store.exclusive():
            records = self.records()
            left = self.store.abandoned(records)
            if (ready := next((r for r in left if self._ready(r, records)), None)) is not None:
                self.store.take_over(ready)
                return self._mine(ready)
            running = sum(not record.finished for record in records)
            if len(records) >= self.settings.trials:
                return "finished" if not running else None
            if len(left) >= MOST_WAITING:
                return None
            self.display.stage(len(records), "proposing")
            proposal = self.proposer.propose(records)
            if proposal is None:
                return "exhausted" if not running else None
            return self.store.create(proposal)

    def _mine(self, record: Record) -> Record:
        """A trial as it is now, in the words of the space."""
        return self._placed(self.store.record(record.id))

    def _placed(self, record: Record) -> Record:
        """A trial of the space in its words."""
        found = self.edition.placed(record)
        assert found is not None
        return found

    def _ready(self, record: Record, records: Sequence[Record]) -> bool:
        """Whether something can be done for a trial: its next decision does not wait for others."""
        if not self._is_scored(record):
            return True
        if not record.rungs:
            return self._worth_training(record, records) != "wait"
        return self._goes_on(record, len(record.rungs) - 1, records) != "wait"

    def _carry(self, record: Record) -> None:
        """Take a trial through the stages it has not passed."""
        write_text(self._file(record, "arch"), str(record.arch["text"]))
        try:
            ended = self._tried(record)
        except Lost:
            return
        if ended is None:
            return
        self._clean()
        self.display.ended(ended, self.records())

    def _tried(self, record: Record) -> Record | None:
        """The trial when it has ended; ``None`` where it waits for others."""
        try:
            return self._through(record)
        except Failure as failure:
            return self.store.finish(record, "fail", None, failure.reason, failure.message)

    def _through(self, record: Record) -> Record | None:
        record = self._scored(record)
        verdict = self._worth_training(record, self.records())
        if verdict == "wait":
            self.store.park(record)
            return None
        if verdict == "cut":
            what = f"its {self.rank} is not among the best {self.settings.promote} so far"
            return self.store.finish(record, "pruned", None, "rank", what)
        record = self._measured(record)
        if broken := self._broken(record):
            return self.store.finish(record, "pruned", None, "constraint", broken)
        for rung in range(len(self.settings.rungs)):
            record = self._trained(record, rung)
            verdict = self._goes_on(record, rung, self.records())
            if verdict == "wait":
                self.store.park(record)
                return None
            if verdict == "cut":
                what = f"behind others after {self.settings.rungs[rung]} steps"
                return self.store.finish(record, "pruned", None, "rung", what)
        record = self._kept(record)
        return self.store.finish(record, "complete", record.rungs[-1].objectives)

    def _is_scored(self, record: Record) -> bool:
        """Whether it has the scores that decide about it: an edit may have it ranked by another."""
        if record.scores is None:
            return False
        return self.rank is None or self.rank in record.scores or bool(record.rungs)

    def _scored(self, record: Record) -> Record:
        if self._is_scored(record):
            return record
        if known := self._known_scores(record):
            return self._noted(record, SCORES, known)
        self.display.stage(record.number, "scoring")
        result = self._ask(record, {"do": "score", "metrics": self.written})
        about = {"torch": self.worker.about["torch"], "device": self.worker.about["device"]}
        found = {"values": result["scores"], "seconds": result["seconds"], **about}
        return self._noted(record, SCORES, found)

    def _worth_training(self, record: Record, records: Sequence[Record]) -> Verdict:
        """Whether its score is among the best so far; what was trained already goes on."""
        if self.rank is None or record.rungs:
            return "on"
        return by_score(record, records, self.rank, self.settings.promote)

    def _trained(self, record: Record, rung: int) -> Record:
        if record.rung(rung) is not None:
            return record
        result: Mapping[str, Any] | None = self._known_rung(record, rung)
        if result is None:
            self.display.stage(record.number, "training", self.settings.rungs[rung])
            result = self._ask(record, {"do": "train", "rung": rung})
        found = {
            "step": self.settings.rungs[rung],
            "objectives": self._values(record, result["measures"]),
            **{
                key: result[key] for key in ("measures", "curves", "seconds", FROM) if key in result
            },
        }
        return self._noted(record, rung_key(rung), found)

    def _noted(self, record: Record, key: str, value: Any) -> Record:
        return self._placed(self.store.note(record, key, value))

    def _known_scores(self, record: Record) -> dict[str, Any] | None:
        """The scores of an equal architecture in another study of the storage, if all are there."""
        origin = self.store.elsewhere(record.key)
        if origin is None or any(m.label not in (origin[1].scores or {}) for m in self.metrics):
            return None
        return {**origin[1].attributes[SCORES], "seconds": 0.0, FROM: [origin[0], origin[1].number]}

    def _known_rung(self, record: Record, rung: int) -> dict[str, Any] | None:
        """What an equal architecture reached in another study by the same schedule, if it did."""
        origin = self.store.elsewhere(record.key)
        if origin is None or origin[1].arch.get("schedule") != self.schedule:
            return None
        for number, result in enumerate(origin[1].rungs):
            if result.step == self.settings.rungs[rung]:
                found = origin[1].attributes[rung_key(number)]
                return {**found, "seconds": 0.0, FROM: [origin[0], origin[1].number]}
        return None

    def _values(self, record: Record, measures: Mapping[str, float]) -> list[float]:
        cost = self._arch(record).cost
        return [each.value(cost, {**record.measured, **measures}) for each in self.objectives]

    def _arch(self, record: Record) -> Arch:
        arch: Arch = self.space.arch(record.arch["assignment"])
        return arch

    def _measured(self, record: Record) -> Record:
        """Measure the latencies that objectives and soft constraints ask for."""
        soft = [each for each in self._arch(record).requirements if not each.hard]
        parts = [part for each in self.objectives for part in each.needs]
        parts += [
            part for each in soft for side in (each.left, each.right) for part in _parts(side)
        ]
        found = latencies(parts)
        asked = {text: call for text, call in found.items() if text not in record.measured}
        if not asked:
            return record
        self.display.stage(record.number, "measuring")
        result = self._ask(record, {"do": "latency", "asked": asked})
        return self._noted(record, MEASURED, {**record.measured, **result["latencies"]})

    def _broken(self, record: Record) -> str | None:
        """The soft constraint a trial turned out to break."""
        arch = self._arch(record)
        for each in arch.requirements:
            if not each.hard and not each.holds(arch.cost, record.measured):
                found = kept(each, arch.cost, record.measured)
                return f"it does not keep `{each.text}`: {found.left:.4g}"
        return None

    def _goes_on(self, record: Record, rung: int, records: Sequence[Record]) -> Verdict:
        """Whether it is among the best at a rung so far; the last rung is nobody's end."""
        rungs = self.settings.rungs
        if rung == len(rungs) - 1 or record.rung(rung + 1) is not None:
            return "on"
        share = Fraction(rungs[rung], rungs[rung + 1])
        last = len(rungs) - 1
        return at_rung(record, records, rung, last, share, self.directions)

    def _kept(self, record: Record) -> Record:
        """Keep the weights of a trial that no finished one beats, and what its model writes."""
        front = [signed(r.values or (), self.directions) for r in self.front()]
        result = signed(record.rungs[-1].objectives, self.directions)
        if any(dominates(other, result) for other in front):
            return record
        sample = self._saved(record)
        return self._noted(record, SAMPLE, sample) if sample else record

    def _saved(self, record: Record) -> str | None:
        """Save a trial's weights; training is done again where its checkpoint is gone."""
        self.display.stage(record.number, "saving")
        weights = str(self._file(record, "safetensors"))
        sample: str | None = self._ask(record, {"do": "keep", "weights": weights}).get("sample")
        return sample

    def restore(self) -> None:
        """Train the best trial again where its weights are gone: an edit may have removed what beat it.

        What was trained on another machine is left there.
        """
        best = next(iter(self.front()), None)
        here = self.store.owner.host
        if best is None or (best.owner and best.owner.host != here):
            return
        if not self._file(best, "safetensors").exists():
            with suppress(Failure):
                self._saved(best)
            self._clean()

    def _ask(self, record: Record, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have the worker do something for a trial.

        A worker that is killed may be an accident of the machine's; killed twice, it is the candidate.
        """
        settings = self.settings
        about = {
            "trial": record.number,
            "arch": record.arch["text"],
            "assignment": record.arch["assignment"],
            "seed": record.arch["seed"],
            "device": settings.device,
            "data": str(settings.data) if settings.data else None,
            "folder": str(settings.folder),
            "rungs": list(settings.rungs),
            "checkpoint": str(self._file(record, "checkpoint")),
        }
        order = {**about, **request}
        try:
            return self._in_time(record, order)
        except Failure as failure:
            if failure.reason != "killed":
                raise
        return self._in_time(record, order)

    def _in_time(self, record: Record, order: Mapping[str, Any]) -> Mapping[str, Any]:
        """An answer within what earlier stages have left of the trial's time."""
        limit, spent = self.settings.timeout, self._spent(record, order)
        try:
            return self.worker.request(order, max(1.0, limit - spent), self.display.step)
        except Failure as failure:
            if failure.reason != "timeout":
                raise
            what = f"it took longer than the {limit:g} s of `trial_timeout`"
            before = f", {spent:.3g} s of them in earlier stages" if spent >= 1 else ""
            raise Failure("timeout", what + before) from None

    def _spent(self, record: Record, order: Mapping[str, Any]) -> float:
        """Seconds of a trial's time that are used up.

        Training that is done again, for its checkpoint is on another disk, takes its time again; and what
        is trained to the end is saved, however little is left.
        """
        checkpoints = self.trials.glob(f"{record.number:04d}-*.checkpoint")
        if order["do"] != "keep" and any(checkpoints):
            return record.seconds
        return record.seconds - sum(rung.seconds for rung in record.rungs)

    def _file(self, record: Record, kind: str) -> Path:
        return trial_file(self.trials, record.number, kind)

    def _clean(self) -> None:
        """Remove the checkpoints of ended trials, and weights that something beats by now."""
        kept = ending(self.trials, ".checkpoint", ".safetensors")
        if not kept:
            return
        records = self.records()
        ended = {record.number for record in records if record.finished}
        best = {front.number for front in self.front(records)}
        for path in kept:
            if trial_number(path) in (ended if path.suffix == ".checkpoint" else ended - best):
                remove(path)


def key_of(arch: Arch) -> str:
    """Equal for architectures that would compute the same: one graph, learning the same alike."""
    tasks = [f"{name} {task.name} {task.model_dump_json()}" for name, task in arch.tasks.items()]
    parts = [arch.hash, arch.train.model_dump_json(), *tasks]
    return sha256("\n".join(parts).encode()).hexdigest()[:24]


def trial_file(folder: Path, number: int, kind: str) -> Path:
    """``trials/0007.arch`` and the like."""
    return folder / f"{number:04d}.{kind}"


def trial_number(path: Path) -> int:
    """The trial a file of :func:`trial_file` belongs to."""
    return int(path.stem.partition("-")[0])
