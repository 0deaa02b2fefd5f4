"""Monte-Carlo tree search over the choice tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import log, sqrt
from random import Random as Generator
from statistics import fmean
from typing import Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.base import Real
from archdsl.search.samplers.base import Past, SpaceSampler
from archdsl.search.space.protocols import Site, Space
from archdsl.search.space.sites import fitting


class TreeSearch(SpaceSampler):
    """Monte-Carlo tree search over the choices, in the order in which the spec asks for them.

    Each choice takes the branch with the largest upper confidence bound (Kocsis and Szepesvári, ECML
    2006) among those tried before with the same choices above it, and below the known tree a random
    one; the choices of ordered numbers are halved again and again, as in "DeepArchitect: Automatically
    Designing and Training Deep Architectures" (Negrinho and Gordon, 2017).

    Args:
        exploration: weight of the bound's width against the mean merit, which lies in 0 … 1.
    """

    name: ClassVar[str] = "tree_search"

    exploration: Annotated[Real, Field(ge=0, le=100)] = Fraction(1, 3)

    def pick(self, past: Sequence[Past], space: Space, draw: Generator) -> Mapping[str, int] | None:
        """The leaf the bounds lead to."""
        done = sum(each.state == "done" for each in past)
        like = list(past)

        def choose(site: Site) -> int:
            low, high = 0, site.size
            while high - low > 1:
                parts = _parts(site, low, high)
                low, high = self._branch(parts, site.path, like, done, draw)
                like[:] = [
                    each for each in like if low <= each.assignment.get(site.path, -1) < high
                ]
            return low

        arch = fitting(space, choose)
        return arch.assignment if arch else None

    def _branch(
        self, parts: Sequence[tuple[int, int]], path: str, like: Sequence[Past], done: int,
        draw: Generator,
    ) -> tuple[int, int]:  # fmt: skip
        """The part of a choice to go on with, given those that chose alike above."""
        groups = [
            [each for each in like if low <= each.assignment.get(path, -1) < high]
            for low, high in parts
        ]
        new = [part for part, group in zip(parts, groups, strict=True) if not group]
        if new:
            return draw.choice(new)
        total = sum(map(len, groups))
        bounds = [
            _mean(group, done) + float(self.exploration) * sqrt(log(total) / len(group))
            for group in groups
        ]
        best = max(bounds)
        return draw.choice([p for p, b in zip(parts, bounds, strict=True) if b == best])


def _parts(site: Site, low: int, high: int) -> list[tuple[int, int]]:
    if site.kind != "range":
        return [(index, index + 1) for index in range(low, high)]
    middle = (low + high) // 2
    return [(low, middle), (middle, high)]


def _mean(group: Sequence[Past], done: int) -> float:
    """The mean merit in 0 … 1; what is refused or still running counts as nothing gained."""
    return fmean(1 - each.place / done if each.state == "done" else 0.0 for each in group)
