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

from pydantic import TypeAdapter, ValidationError

from archdsl.search.metrics.base import TrainingFree
from archdsl.search.samplers.base import OptunaSampler
from archdsl.search.seeds import seed_of
from archdsl.search.space.protocols import Arch, Space
from archdsl.search.storage.journal import unwritable
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

    Raises:
        ArchError: the file cannot be read.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, dict(about)
        head, *lines = self._content().split(b"\n")
        own = json.dumps(self.about)
        begun = not lines and own.encode().startswith(head)
        self.fits = begun or _loaded(head) == json.loads(own)
        """Whether the file, if there is more of it than a first line cut off, is about the same."""
        self.trials = _trials(lines[:-1]) if self.fits else []

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise unwritable(self.path, error) from None

    def add(self, trials: Sequence[Trial]) -> None:
        """Keep one run, or what is new of it, behind the last whole line of the file.

        Raises:
            ArchError: the file cannot be written.
        """
        if not trials:
            return
        whole = self._content().rfind(b"\n") + 1
        lines = ([] if whole else [json.dumps(self.about)]) + [_line(each) for each in trials]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.truncate(whole)
                file.write(("\n".join(lines) + "\n").encode())
        except OSError as error:
            raise unwritable(self.path, error) from None
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


def _trials(lines: Sequence[bytes]) -> list[Trial]:
    """The trials of those lines that hold one; where one is torn or damaged, its run is made again."""
    seen: dict[tuple[str, int, int], Trial] = {}
    for line in lines:
        if (trial := _trial_of(line)) is not None:
            seen.setdefault((trial.sampler, trial.seed, trial.number), trial)
    return list(seen.values())


_TRIAL = TypeAdapter(Trial)


def _trial_of(line: bytes) -> Trial | None:
    try:
        return _TRIAL.validate_json(line, strict=True)
    except ValidationError:
        return None


def _line(trial: Trial) -> str:
    return json.dumps(vars(trial), separators=(",", ":"), ensure_ascii=False)


def _loaded(line: bytes) -> object:
    """What a line says; ``None`` for one that is no JSON."""
    try:
        return json.loads(line)
    except ValueError:
        return None
