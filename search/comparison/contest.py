"""Runs of samplers on one space under one objective that costs little: a training-free score.

Every run asks the same proposer that a search asks, so constraints and duplicates are treated alike. What
an architecture scores is kept by its hash, in memory and in the data set that a contest leaves, so nothing
is measured twice: a contest that was ended goes on, and one on a finished data set is a table look-up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archdsl.search.metrics.base import TrainingFree
from archdsl.search.samplers.base import OptunaSampler
from archdsl.search.seeds import seed_of
from archdsl.search.space.protocols import Arch, Space
from archdsl.search.storage.records import ARCH, Proposal, Record
from archdsl.search.study.proposals import Proposer

DATA_SET = "trials.jsonl"


@dataclass(frozen=True)
class Entrant:
    """A sampler that takes part, as it is written, and whether with settings that are not its own."""

    label: str
    sampler: OptunaSampler
    variant: bool = False


@dataclass(frozen=True)
class Trial:
    """One candidate of one run.

    Args:
        sampler: label of the entrant.
        seed: of the run.
        number: in the run, from 0.
        hash: of the architecture.
        value: its score; larger is better.
        choices: site path → the alternative as it is written.
        assignment: site path → its index.
        params: parameters of the architecture.
    """

    sampler: str
    seed: int
    number: int
    hash: str
    value: float
    choices: Mapping[str, str]
    assignment: Mapping[str, int]
    params: int


class Yardstick:
    """Scores architectures, each once.

    Args:
        metric: the score.
        known: values by hash.
    """

    def __init__(self, metric: TrainingFree, known: dict[str, float]) -> None:
        self.metric, self.known = metric, known

    def value(self, arch: Arch) -> float:
        """The score; the lowest there is for a model that cannot be built or run."""
        if arch.hash not in self.known:
            self.known[arch.hash] = self._measured(arch)
        return self.known[arch.hash]

    def _measured(self, arch: Arch) -> float:
        from archdsl.search.workers.jobs import Candidate

        seed = seed_of(arch.hash, arch.train.seed)
        candidate = Candidate(arch, seed, "cpu", None, Path())
        return candidate.score([self.metric])[self.metric.label]


def run(
    space: Space, entrant: Entrant, seed: int, trials: int, judge: Yardstick
) -> Iterator[Trial]:
    """One sampler's run; ends early where it has tried every architecture."""
    proposer = Proposer(space, entrant.sampler, seed, ["maximize"], 0, None, _described, _hash)
    records: list[Record] = []
    while len(records) < trials and (proposal := proposer.propose(records)) is not None:
        value = judge.value(proposal.arch)
        yield _trial(entrant.label, seed, len(records), proposal, value)
        records.append(_record(len(records), proposal, value))


def _hash(arch: Arch) -> str:
    return arch.hash


def _described(arch: Arch) -> dict[str, Any]:
    return {ARCH: {"hash": arch.hash, "key": arch.hash, "assignment": dict(arch.assignment)}}


def _record(number: int, proposal: Proposal, value: float) -> Record:
    return Record(
        number, number, "complete", (value,), proposal.attributes, proposal.params,
        proposal.distributions,
    )  # fmt: skip


def _trial(label: str, seed: int, number: int, proposal: Proposal, value: float) -> Trial:
    arch = proposal.arch
    return Trial(
        label, seed, number, arch.hash, value, dict(arch.choices), dict(arch.assignment),
        int(arch.cost.params),
    )  # fmt: skip


# --- the data set ---------------------------------------------------------------------------------


class DataSet:
    """Trials as lines of JSON, one each, whole runs only; behind a first line that says what they are.

    Args:
        path: the file; made where it is missing.
        about: what all trials have in common.

    A file about something else is left alone.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, dict(about)
        self.trials: list[Trial] = []
        if path.exists():
            self._read()

    @property
    def fits(self) -> bool:
        """Whether the file, if there is one, is about the same."""
        if not self.path.exists():
            return True
        with self.path.open(encoding="utf-8") as file:
            found = _loaded(file.readline())
        about: dict[str, Any] = json.loads(json.dumps(self.about))
        return bool(found == about)

    def add(self, trials: Sequence[Trial]) -> None:
        """Keep one run, or what is new of it, behind the last whole line of the file."""
        if not trials:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        known = self.path.read_bytes() if self.path.exists() else b""
        lines = ([] if known else [json.dumps(self.about)]) + [_line(each) for each in trials]
        with self.path.open("ab") as file:
            file.truncate(known.rfind(b"\n") + 1)
            file.write(("\n".join(lines) + "\n").encode())
        self.trials.extend(trials)

    def runs(self) -> dict[tuple[str, int], list[Trial]]:
        """The trials of each run, by sampler and seed, in order."""
        found: dict[tuple[str, int], list[Trial]] = {}
        for each in self.trials:
            found.setdefault((each.sampler, each.seed), []).append(each)
        return {key: sorted(run, key=lambda t: t.number) for key, run in found.items()}

    def values(self) -> dict[str, float]:
        """What is known, by hash."""
        return {each.hash: each.value for each in self.trials}

    def _read(self) -> None:
        with self.path.open(encoding="utf-8") as file:
            next(file, None)
            found = [_loaded(line) for line in file]
        seen: dict[tuple[str, int, int], Trial] = {}
        for each in found:
            if each is not None:  # a torn last line is a run that is made again
                trial = Trial(**each)
                seen.setdefault((trial.sampler, trial.seed, trial.number), trial)
        self.trials = list(seen.values())


def _line(trial: Trial) -> str:
    return json.dumps(vars(trial), separators=(",", ":"), ensure_ascii=False)


def _loaded(line: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return found
