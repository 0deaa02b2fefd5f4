"""One architecture scored or trained in this process, for search loops of one's own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.blocks.registry import find
from archdsl.search.errors import unknown_component
from archdsl.search.metrics import chosen
from archdsl.search.metrics.base import TrainingFree
from archdsl.search.space.objectives import nothing_to_learn
from archdsl.search.workers.jobs import Candidate

if TYPE_CHECKING:
    from archdsl.search.space.protocols import Arch


@dataclass(frozen=True)
class Trained:
    """What training came to.

    Args:
        measures: of the tasks on held-out sequences, such as ``recall.accuracy``.
        curves: a task's training loss in nats, by step.
        models: the trained model of each task.
    """

    measures: Mapping[str, float]
    curves: Mapping[str, list[tuple[int, float]]]
    models: Mapping[str, Any]


def score(
    arch: Arch,
    metrics: Sequence[str | TrainingFree] | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    data: str | Path | None = None,
) -> dict[str, float]:
    """What an untrained model shows, by metric: one look at it serves them all.

    Args:
        arch: an architecture whose spec names a task; the first is what it is looked at with.
        metrics: names, or metrics with arguments such as ``HiddenCovariance(layer="last")``; what every
            search reports where they are not said.
        seed: of its weights.
        device: where it is looked at.
        data: file for a task that learns from one.

    Raises:
        ArchError: the spec names no task, there is no such metric, or the data cannot be used.
    """
    wanted = chosen(None) if metrics is None else [_metric(each) for each in metrics]
    return _candidate(arch, seed, device, data).score(wanted)


def train(
    arch: Arch, steps: int, *, seed: int = 0, device: str = "cpu", data: str | Path | None = None
) -> Trained:
    """Train a model for each task of the spec as its ``train`` section says, and judge it.

    Args:
        arch: an architecture whose spec names a task.
        steps: of the optimiser.
        seed: of its weights and batches.
        device: where it is trained.
        data: file for tasks that learn from one.

    Raises:
        ArchError: the spec names no task, or the data cannot be used.
        Diverged: a loss, a gradient or a measure is not finite.
    """
    candidate = _candidate(arch, seed, device, data)
    with tempfile.TemporaryDirectory() as folder:
        found = candidate.train([steps], 0, Path(folder) / "checkpoint", lambda message: None)
    models = {name: trainer.model for name, trainer in candidate.trainers.items()}
    return Trained(found["measures"], found["curves"], models)


def _candidate(arch: Arch, seed: int, device: str, data: str | Path | None) -> Candidate:
    if not arch.tasks:
        raise nothing_to_learn()
    candidate = Candidate(arch, seed, device, Path(data) if data else None, Path.cwd())
    for task in candidate.tasks.values():
        task.prepare()
    return candidate


def _metric(given: str | TrainingFree) -> TrainingFree:
    if isinstance(given, TrainingFree):
        return given
    cls = find("metric", given)
    if cls is None or not issubclass(cls, TrainingFree):
        raise unknown_component("metric", given)
    return cls()
