"""What the search is for: objectives and constraints, as the compiler's ``quantities`` gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from archdsl.blocks.asking import Direction
from archdsl.compiler.reading.quantities import Measure, value
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.search.space.protocols import Arch


class Objective(Protocol):
    """One thing to make large or small; the compiler's ``Objective`` is one."""

    @property
    def direction(self) -> Direction:
        """Which way is better."""

    @property
    def text(self) -> str:
        """What is measured, as the spec writes it."""

    @property
    def needs(self) -> Sequence[Any]:
        """The parts that have to be measured."""

    def value(self, cost: Any, measured: Mapping[str, float]) -> float:
        """Its value for one architecture."""


@dataclass(frozen=True)
class Measured:
    """The objective of a spec that names none: what its task measures."""

    direction: Direction
    text: str
    needs: tuple[Any, ...] = ()

    def value(self, cost: Any, measured: Mapping[str, float]) -> float:
        """As it was measured."""
        return measured[self.text]


def objectives_of(given: Sequence[Objective], arch: Arch) -> list[Objective]:
    """The objectives of a spec, or what its tasks measure where it names none.

    Raises:
        ArchError: there is no task, so nothing can be trained.
    """
    if not arch.tasks:
        raise nothing_to_learn()
    return list(given) or [
        Measured(way, f"{name}.{measure}")
        for name, task in arch.tasks.items()
        for measure, way in task.measures.items()
    ]


def latencies(parts: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Latencies among the parts that have to be measured: their settings by their text."""
    return {
        str(part): part.cost.model_dump(mode="json")
        for part in parts
        if not isinstance(part, Measure) and hasattr(part, "cost")
    }


def known_costs(objectives: Sequence[Objective], arch: Arch) -> dict[str, float]:
    """Parameters, and every objective that follows from the architecture alone."""
    known = {o.text: o.value(arch.cost, {}) for o in objectives if is_known(o)}
    return {"params": float(arch.cost.params), **known}


def is_known(objective: Objective) -> bool:
    """Whether an objective follows from the architecture alone."""
    return not isinstance(objective, Measured) and not objective.needs


@dataclass(frozen=True)
class Kept:
    """A constraint as one architecture keeps it: ``left sign right``, with the two sides' values."""

    text: str
    sign: str
    left: float
    right: float

    @property
    def slack(self) -> float:
        """What is left before it breaks; negative where it is broken."""
        return self.right - self.left if self.sign.startswith("<") else self.left - self.right


def kept(requirement: Any, cost: Any, measured: Mapping[str, float] | None = None) -> Kept:
    """How an architecture stands to a constraint.

    Raises:
        KeyError: the constraint is about something that was not measured.
    """
    left, right = (
        float(value(side, cost, measured or {})) for side in (requirement.left, requirement.right)
    )
    return Kept(requirement.text, requirement.sign, left, right)


def hard_constraints(arch: Arch) -> list[dict[str, Any]]:
    """Every hard constraint as an architecture keeps it, for the storage."""
    return [vars(kept(each, arch.cost)) for each in arch.requirements if each.hard]


def keeps_soft(arch: Arch, measured: Mapping[str, float]) -> bool | None:
    """Whether an architecture keeps every soft constraint; ``None`` where one was not measured."""
    soft = [each for each in arch.requirements if not each.hard]
    try:
        return all(each.holds(arch.cost, measured) for each in soft)
    except KeyError:
        return None


def nothing_to_learn() -> ArchError:
    """What to tell the user of a spec without a task."""
    return ArchError(
        Diagnostic(
            id="nothing-to-learn",
            message="the spec names no task, so there is nothing to train for",
            help="add one, as in `task recall = mqar(vocab = 512, length = 64, pairs = 8)`",
        )
    )
