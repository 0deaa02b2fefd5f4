"""Trials as the search reads them: everything measured, with names instead of attribute keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from archdsl.blocks.asking import Direction

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from archdsl.search.space.protocols import Arch

State = Literal["running", "complete", "pruned", "fail"]

ARCH = "arch"
COSTS = "costs"
CONSTRAINTS = "constraints"
OWNER = "owner"
SCORES = "scores"
MEASURED = "measured"
SAMPLE = "sample"
OUTCOME = "outcome"
"""Keys of a trial's user attributes; a rung's is :func:`rung_key`."""

EDITED = "edited"
"""Why a trial ended that was running when an edit took its architecture out of the space."""


def rung_key(rung: int) -> str:
    """The attribute that holds a rung's result."""
    return f"rung:{rung}"


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


@dataclass(frozen=True)
class Owner:
    """The process that works on a trial.

    Args:
        host: name of its machine, for messages.
        pid: its number there, for messages.
        lease: file it holds locked as long as it lives.
    """

    host: str
    pid: int
    lease: str


@dataclass(frozen=True)
class RungResult:
    """What training up to a rung gave.

    Args:
        step: optimiser steps so far.
        objectives: every objective's value, in the order of the spec.
        measures: what the tasks measured, by ``task.measure``.
        curves: loss in nats over steps, by task.
        seconds: spent on this rung.
    """

    step: int
    objectives: tuple[float, ...]
    measures: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    seconds: float


@dataclass(frozen=True)
class Record:
    """One trial, as far as it has come."""

    id: int
    number: int
    state: State
    values: tuple[float, ...] | None
    attributes: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state != "running"

    @property
    def arch(self) -> Mapping[str, Any]:
        """What it is and where it is from, as :meth:`archdsl.search.study.study.Study.describe` says it."""
        arch: Mapping[str, Any] = self.attributes.get(ARCH, {})
        return arch

    @property
    def key(self) -> str:
        """Equal for trials that would compute the same."""
        return str(self.arch.get("key", ""))

    @property
    def costs(self) -> Mapping[str, float]:
        """Parameters, and every objective that needs no training."""
        costs: Mapping[str, float] = self.attributes.get(COSTS, {})
        return costs

    @property
    def constraints(self) -> Sequence[Mapping[str, Any]]:
        """Every hard constraint as it keeps it: ``text``, ``sign``, ``left`` and ``right``."""
        kept: Sequence[Mapping[str, Any]] = self.attributes.get(CONSTRAINTS, [])
        return kept

    @property
    def measured(self) -> Mapping[str, float]:
        """Latencies in seconds, by their text."""
        measured: Mapping[str, float] = self.attributes.get(MEASURED, {})
        return measured

    @property
    def scores(self) -> Mapping[str, float] | None:
        """Training-free scores by metric, if it was scored."""
        found = self.attributes.get(SCORES)
        return None if found is None else found["values"]

    @property
    def owner(self) -> Owner | None:
        """Who works on it."""
        found = self.attributes.get(OWNER)
        return Owner(**found) if found else None

    def rung(self, rung: int) -> RungResult | None:
        """The result at a rung, if it got there."""
        found = self.attributes.get(rung_key(rung))
        if found is None:
            return None
        curves = {task: [(s, v) for s, v in curve] for task, curve in found["curves"].items()}
        return RungResult(
            step=found["step"],
            objectives=tuple(found["objectives"]),
            measures=found["measures"],
            curves=curves,
            seconds=found["seconds"],
        )

    @property
    def rungs(self) -> list[RungResult]:
        """Results of all rungs it reached."""
        found: list[RungResult] = []
        while (result := self.rung(len(found))) is not None:
            found.append(result)
        return found

    @property
    def reason(self) -> str:
        """Why it ended before the last rung (``rank``, ``out-of-memory``, …); empty for the best."""
        return str(self.attributes.get(OUTCOME, {}).get("reason", ""))

    @property
    def message(self) -> str:
        """The reason in a sentence."""
        return str(self.attributes.get(OUTCOME, {}).get("message", ""))

    @property
    def seconds(self) -> float:
        """Time spent on it, over all processes."""
        scored = self.attributes.get(SCORES, {}).get("seconds", 0.0)
        return float(scored + sum(rung.seconds for rung in self.rungs))

    @property
    def sample(self) -> str | None:
        """What its model wrote."""
        return self.attributes.get(SAMPLE)


def signed(values: Sequence[float], directions: Sequence[Direction]) -> tuple[float, ...]:
    """Objective values with signs turned so that larger is better."""
    pairs = zip(values, directions, strict=True)
    return tuple(value if way == "maximize" else -value for value, way in pairs)
