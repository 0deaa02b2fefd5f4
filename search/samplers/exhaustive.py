"""Every architecture in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random as Generator
from typing import ClassVar

from archdsl.search.samplers.base import Past, SpaceSampler
from archdsl.search.space.protocols import Space
from archdsl.search.space.sites import every


class Exhaustive(SpaceSampler):
    """Every architecture in turn, in the order of the spec's choices; the study ends with the last."""

    name: ClassVar[str] = "exhaustive"
    order_independent: ClassVar[bool] = True

    def pick(self, past: Sequence[Past], space: Space, draw: Generator) -> Mapping[str, int] | None:
        """The first one behind the last that was picked."""
        last = list(past[-1].assignment.values()) if past else None
        found = every(space, behind=last)
        return next((arch.assignment for arch in found if space.feasible(arch)), None)
