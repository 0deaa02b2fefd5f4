"""What every sampler is: a component that gives an Optuna sampler for one proposal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random as Generator
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from archdsl.blocks.asking import Sampler
from archdsl.search.space.protocols import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class OptunaSampler(Sampler):
    """A sampler that an Optuna sampler carries out.

    ``several`` says whether it takes several objectives; ``order_independent`` whether its proposals
    depend on which candidates were proposed before alone, and not on how they turned out.
    """

    several: ClassVar[bool] = True
    order_independent: ClassVar[bool] = False

    def make(self, seed: int, space: Space) -> BaseSampler:
        """The Optuna sampler that makes one proposal from a space."""
        raise AssertionError(f"{type(self).__name__} does not say what it makes")


class Shape(NamedTuple):
    """A choice: how many alternatives it has, and whether they are ordered numbers."""

    size: int
    ordered: bool


@dataclass(frozen=True)
class Past:
    """A candidate that was proposed before, as a sampler of ours sees it.

    Args:
        assignment: site path → index of the alternative taken, in the order they were decided.
        shapes: site path → what there was to choose.
        state: ``done``; ``running`` where its result is not known yet; ``refused`` where it broke a
            constraint or had been tried before, and nothing was measured.
        place: among those that are done, 0 the best: by how far they came, then by Pareto rank, then
            by the objectives in order. Equal results share a place.
        merit: the place as a standard normal score, larger is better; 0 for those not done.
    """

    assignment: Mapping[str, int]
    shapes: Mapping[str, Shape]
    state: Literal["done", "running", "refused"]
    place: int = -1
    merit: float = 0.0


class SpaceSampler(OptunaSampler):
    """A sampler that knows the space, and picks a whole architecture from it."""

    def make(self, seed: int, space: Space) -> BaseSampler:
        """An Optuna sampler that carries :meth:`pick` out."""
        from archdsl.search.samplers.planned import Planned

        return Planned(self, seed, space)

    def pick(self, past: Sequence[Past], space: Space, draw: Generator) -> Mapping[str, int] | None:
        """The assignment of the next candidate; ``None`` leaves it to a uniform draw.

        Args:
            past: every candidate so far, in the order they were proposed.
            space: all candidates.
            draw: the only source of chance.
        """
        raise AssertionError(f"{type(self).__name__} does not say what it picks")
