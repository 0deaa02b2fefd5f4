"""A closed architecture: a point of a space, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from archdsl.blocks.base import Invalid
from archdsl.compiler.terms.elements import Element
from archdsl.diagnostics import ArchError, Diagnostic

if TYPE_CHECKING:
    from torch import device, dtype

    from archdsl.blocks.asking import Task, TrainSection
    from archdsl.compiler.graphs.cost import Cost
    from archdsl.compiler.graphs.graph import Graph
    from archdsl.compiler.models.model import Model
    from archdsl.compiler.reading.quantities import Requirement
    from archdsl.compiler.spaces.space import Space


Assignment = Mapping[str, int]
"""Site path → index of the alternative taken, for the active sites of one architecture."""


class Arch:
    """One architecture of a space. Immutable; what takes time is computed when first asked for.

    Args:
        space: the space it is of.
        root: its layers.
        assignment: the alternative taken at each active choice.
        choices: the same as it is written.
        tasks: what it is asked to learn, by name.
        train: how it is trained.
        requirements: its constraints.
    """

    def __init__(
        self,
        space: Space,
        root: tuple[Element, ...],
        assignment: Mapping[str, int],
        choices: Mapping[str, str],
        tasks: Mapping[str, Task],
        train: TrainSection,
        requirements: tuple[Requirement, ...],
    ) -> None:
        self.space, self.root = space, root
        self.assignment, self.choices = dict(assignment), dict(choices)
        self.tasks, self.train, self.requirements = dict(tasks), train, requirements

    @property
    def symbols(self) -> int:
        """The vocabulary its tasks need, the largest of them; 0 without a task."""
        return max((task.symbols for task in self.tasks.values()), default=0)

    @cached_property
    def graph(self) -> Graph:
        """Its operations, lowered and nothing more.

        Raises:
            ArchError: its arguments do not fit; where they were checked they do.
        """
        from archdsl.compiler.graphs.lower import lower

        try:
            return lower(self.root, self.symbols, self.space.regions)
        except Invalid as problem:
            span = self.root[0].span if self.root else None
            raise ArchError(
                Diagnostic(problem.id, problem.message, span, problem.label, problem.help)
            ) from None

    @cached_property
    def cost(self) -> Cost:
        """What it costs, without building it."""
        from archdsl.compiler.graphs.cost import Cost

        return Cost(self.graph)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of its operations, in hexadecimal: equal for two spellings of one architecture."""
        from archdsl.compiler.graphs.canonical import architecture_hash

        return architecture_hash(self.graph)

    @cached_property
    def text(self) -> str:
        """A closed ``.arch`` file: the same architecture with every choice made."""
        from archdsl.compiler.spaces.closed_text import closed_text

        return closed_text(self)

    @cached_property
    def feasible(self) -> bool:
        """Whether it keeps every hard requirement."""
        return all(requirement.holds(self.cost) for requirement in self.requirements)

    def compile(
        self, device: str | device = "cpu", dtype: str | dtype = "float32", seed: int = 0
    ) -> Model:
        """The model: an ``nn.Module`` of tokens. Imports torch.

        Args:
            device: where its parameters live.
            dtype: of its parameters.
            seed: of the initial weights.
        """
        from archdsl.compiler.models.build import compile_arch

        return compile_arch(self, device, dtype, seed)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Arch):
            return NotImplemented
        same_space = self.space is other.space or self.space.text_hash == other.space.text_hash
        return same_space and self.assignment == other.assignment

    def __hash__(self) -> int:
        return hash(frozenset(self.assignment.items()))

    def __repr__(self) -> str:
        made = ", ".join(f"{path} = {text}" for path, text in self.choices.items())
        return f"Arch({made})"

    def __deepcopy__(self, memo: object) -> Arch:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, (self.space, self.assignment)


def _rebuilt(space: Space, assignment: Assignment) -> Arch:
    return space.arch(assignment)
