"""A study: every candidate through its stages, cheapest first, each result kept as it arrives.

check → constraints → duplicates (a proposal has passed them) → training-free scores → rungs of
training. A trial's next stage depends on what is stored alone, so a search that was killed goes on
where it was, and what it decides is what an undisturbed one decides.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import optuna

from archdsl.compiler.quantities import parts as _parts
from archdsl.search.components import written
from archdsl.search.files import remove, write_text
from archdsl.search.fronts import pareto_front
from archdsl.search.metrics import chosen
from archdsl.search.metrics.base import TrainingFree
from archdsl.search.objectives import Objective, kept, known_costs, latencies
from archdsl.search.progress import Display
from archdsl.search.promotion import among_best, dominates, promoted
from archdsl.search.proposals import Proposer
from archdsl.search.protocols import Arch, Space
from archdsl.search.records import (
    ARCH,
    CONSTRAINTS,
    COSTS,
    MEASURED,
    SAMPLE,
    SCORES,
    Record,
    rung_key,
    signed,
)
from archdsl.search.samplers import OptunaSampler
from archdsl.search.seeds import seed_of
from archdsl.search.storage import Store
from archdsl.search.worker import Failure, Worker

Status = Literal["finished", "exhausted", "interrupted"]


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
    """

    def __init__(
        self, space: Space, settings: Settings, objectives: Sequence[Objective], store: Store,
        worker: Worker, folder: Path, display: Display,
    ) -> None:  # fmt: skip
        self.space, self.settings, self.objectives = space, settings, objectives
        self.store, self.worker, self.display = store, worker, display
        self.trials = folder / "trials"
        self.metrics = chosen(settings.rank)
        self.rank = settings.rank.label if settings.rank else None
        self.directions = [objective.direction for objective in objectives]
        self.proposer = Proposer(
            space, settings.sampler, settings.seed, self.directions, len(settings.rungs),
            self.rank, self.describe,
        )  # fmt: skip

    def run(self) -> Status:
        """Work until the study has its trials, or every candidate was tried.

        Raises:
            ArchError: the machine does not let the study go on; what is stored is sound.
        """
        while True:
            record, status = self._next()
            if record is None:
                return status
            self._carry(record)

    def describe(self, arch: Arch) -> dict[str, Any]:
        """What a trial of an architecture begins with."""
        about = {
            "hash": arch.hash,
            "key": key_of(arch),
            "choices": dict(arch.choices),
            "assignment": dict(arch.assignment),
            "text": arch.text,
            "seed": seed_of(arch.hash, arch.train.seed),
            "versions": {"python": sys.version.split()[0], "optuna": optuna.__version__},
        }
        known = [kept(each, arch.cost) for each in arch.requirements if each.hard]
        return {
            ARCH: about,
            COSTS: known_costs(self.objectives, arch),
            CONSTRAINTS: [vars(each) for each in known],
        }

    def front(self, records: Sequence[Record] | None = None) -> list[Record]:
        """Finished trials that no other beats, best first."""
        found = self.store.records() if records is None else records
        return pareto_front(found, self.objectives)

    def _next(self) -> tuple[Record | None, Status]:
        """A trial that lost its process, else a new one, while there are any to come."""
        with self.store.exclusive():
            records = self.store.records()
            if (left := self.store.abandoned(records)) is not None:
                return self.store.take_over(left), "finished"
            if len(records) >= self.settings.trials:
                return None, "finished"
            self.display.stage(len(records), "proposing")
            proposal = self.proposer.propose(records)
            if proposal is None:
                return None, "exhausted"
            return self.store.create(proposal), "finished"

    def _carry(self, record: Record) -> None:
        """Take a trial through the stages it has not passed."""
        write_text(self._file(record, "arch"), str(record.arch["text"]))
        try:
            record = self._through(record)
        except Failure as failure:
            record = self.store.finish(record, "fail", None, failure.reason, failure.message)
        self._clean(record)
        self.display.ended(record, self.store.records())

    def _through(self, record: Record) -> Record:
        record = self._scored(record)
        if not self._worth_training(record):
            what = f"its {self.rank} is not among the best {self.settings.promote} so far"
            return self.store.finish(record, "pruned", None, "rank", what)
        record = self._measured(record)
        if broken := self._broken(record):
            return self.store.finish(record, "pruned", None, "constraint", broken)
        for rung in range(len(self.settings.rungs)):
            record = self._trained(record, rung)
            if not self._goes_on(record, rung):
                what = f"behind others after {self.settings.rungs[rung]} steps"
                return self.store.finish(record, "pruned", None, "rung", what)
        record = self._kept(record)
        return self.store.finish(record, "complete", record.rungs[-1].objectives)

    def _scored(self, record: Record) -> Record:
        if record.scores is not None:
            return record
        self.display.stage(record.number, "scoring")
        metrics = [written(metric) for metric in self.metrics]
        result = self._ask(record, {"do": "score", "metrics": metrics})
        about = {"torch": self.worker.about["torch"], "device": self.worker.about["device"]}
        found = {"values": result["scores"], "seconds": result["seconds"], **about}
        return self.store.note(record, SCORES, found)

    def _worth_training(self, record: Record) -> bool:
        """Whether its score is among the best so far; what was trained already goes on."""
        if self.rank is None or record.rungs:
            return True
        others = [r.scores[self.rank] for r in self._others(record) if r.scores]
        assert record.scores is not None
        return among_best(record.scores[self.rank], others, self.settings.promote)

    def _trained(self, record: Record, rung: int) -> Record:
        if record.rung(rung) is not None:
            return record
        self.display.stage(record.number, "training", self.settings.rungs[rung])
        result = self._ask(record, {"do": "train", "rung": rung})
        found = {
            "step": self.settings.rungs[rung],
            "objectives": self._values(record, result["measures"]),
            **{key: result[key] for key in ("measures", "curves", "seconds")},
        }
        return self.store.note(record, rung_key(rung), found)

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
        asked = latencies(parts)
        if not asked or record.measured:
            return record
        self.display.stage(record.number, "measuring")
        result = self._ask(record, {"do": "latency", "asked": asked})
        return self.store.note(record, MEASURED, result["latencies"])

    def _broken(self, record: Record) -> str | None:
        """The soft constraint a trial turned out to break."""
        arch = self._arch(record)
        for each in arch.requirements:
            if not each.hard and not each.holds(arch.cost, record.measured):
                found = kept(each, arch.cost, record.measured)
                return f"it does not keep `{each.text}`: {found.left:.4g}"
        return None

    def _goes_on(self, record: Record, rung: int) -> bool:
        """Whether it is among the best at a rung so far; the last rung is nobody's end."""
        rungs = self.settings.rungs
        if rung == len(rungs) - 1 or record.rung(rung + 1) is not None:
            return True
        others = [found.objectives for r in self._others(record) if (found := r.rung(rung))]
        result = record.rung(rung)
        assert result is not None
        turned = [signed(values, self.directions) for values in others]
        share = Fraction(rungs[rung], rungs[rung + 1])
        return promoted(signed(result.objectives, self.directions), turned, share)

    def _kept(self, record: Record) -> Record:
        """Keep the weights of a trial that no finished one beats, and what its model writes."""
        front = [signed(r.values or (), self.directions) for r in self.front()]
        result = signed(record.rungs[-1].objectives, self.directions)
        if any(dominates(other, result) for other in front):
            return record
        self.display.stage(record.number, "saving")
        weights = str(self._file(record, "safetensors"))
        answer = self._ask(record, {"do": "keep", "weights": weights})
        sample = answer.get("sample")
        return self.store.note(record, SAMPLE, sample) if sample else record

    def _ask(self, record: Record, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have the worker do something for a trial within what is left of its time."""
        settings = self.settings
        about = {
            "trial": record.number,
            "arch": record.arch["text"],
            "seed": record.arch["seed"],
            "device": settings.device,
            "data": str(settings.data) if settings.data else None,
            "folder": str(settings.folder),
            "rungs": list(settings.rungs),
            "checkpoint": str(self._file(record, "checkpoint")),
        }
        left = max(1.0, settings.timeout - record.seconds)
        return self.worker.request({**about, **request}, left, self.display.step)

    def _others(self, record: Record) -> list[Record]:
        """What a trial is compared with: all that did not fail."""
        records = self.store.records()
        return [r for r in records if r.number != record.number and r.state != "fail"]

    def _file(self, record: Record, kind: str) -> Path:
        return trial_file(self.trials, record.number, kind)

    def _clean(self, record: Record) -> None:
        """Remove the ended trial's checkpoints, and weights that something beats by now."""
        for path in self.trials.glob(f"{record.number:04d}-*.checkpoint"):
            remove(path)
        records = self.store.records()
        best = {front.number for front in self.front(records)}
        beaten = {r.number for r in records if r.finished} - best
        for path in self.trials.glob("*.safetensors"):
            if trial_number(path) in beaten:
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
