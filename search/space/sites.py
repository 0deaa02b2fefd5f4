"""Ways through the choice tree of a space, and its choices in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

from archdsl.diagnostics import ArchError
from archdsl.search.space.protocols import Arch, Site, Space


def value(site: Site, index: int) -> Any:
    """An alternative in a sampler's words: ordered numbers by their index, others by their text."""
    return index if site.kind == "range" else labels(site)[index]


def labels(site: Site) -> tuple[str, ...]:
    """The alternatives as they are written, numbered where two are written alike."""
    texts = [site.text(index) for index in range(site.size)]
    if len(set(texts)) == len(texts):
        return tuple(texts)
    return tuple(f"{index}: {text}" for index, text in enumerate(texts))


def counted(space: Space) -> int | None:
    """How many architectures there are; ``None`` where nobody can say."""
    try:
        return space.count()
    except ArchError:
        return None


def fitting(space: Space, choose: Callable[[Site], int]) -> Arch | None:
    """The architecture of a chooser, or ``None`` where its choices do not fit together."""
    try:
        arch: Arch = space.decide(choose)
    except ArchError:
        return None
    return arch


def located(space: Space, assignment: Mapping[str, int]) -> Arch | None:
    """The architecture of an assignment, or ``None`` where the space has none such."""
    try:
        arch: Arch = space.arch(assignment)
    except (ArchError, LookupError):
        return None
    return arch


def every(
    space: Space, behind: Sequence[int] | None = None,
    made: Callable[[Callable[[Site], int]], Arch | None] | None = None,
) -> Iterator[Arch]:  # fmt: skip
    """Every architecture of a space, in the order of its choices.

    Args:
        space: all candidates.
        behind: the decisions of the architecture to go on from, in the order they are asked.
        made: gives the architecture of a chooser; by default :func:`fitting`.
    """
    made = made or partial(fitting, space)
    prefix = [] if behind is None else _after(space, list(behind))
    while prefix is not None:
        taken: list[int] = []
        sizes: list[int] = []
        arch = made(_following(prefix, taken, sizes))
        if arch is not None:
            yield arch
        prefix = _next(taken, sizes)


def near(
    made: Callable[[Callable[[Site], int]], Arch | None], decided: Mapping[str, int], draw: Random
) -> Iterator[Arch]:
    """Every architecture of a space, those first that share the first decisions.

    What is decided last changes first, to a random other alternative.

    Args:
        made: gives the architecture of a chooser.
        decided: site path → alternative, to begin with; what is not decided is drawn.
        draw: the source of chance.
    """
    ways: list[list[int]] = []
    while True:
        arch = made(_trying(ways, decided, draw))
        if arch is not None:
            yield arch
        while ways and len(ways[-1]) == 1:
            ways.pop()
        if not ways:
            return
        ways[-1].pop()


def _trying(
    ways: list[list[int]], decided: Mapping[str, int], draw: Random
) -> Callable[[Site], int]:
    """Takes the last of the ways that are left at each site, and finds those of a new one."""
    places = iter(range(10**9))

    def choose(site: Site) -> int:
        place = next(places)
        if place == len(ways):
            first = decided.get(site.path)
            others = [index for index in range(site.size) if index != first]
            draw.shuffle(others)
            ways.append(others if first is None else [*others, first])
        return ways[place][-1]

    return choose


def _following(prefix: Sequence[int], taken: list[int], sizes: list[int]) -> Callable[[Site], int]:
    def choose(site: Site) -> int:
        pick = prefix[len(taken)] if len(taken) < len(prefix) else 0
        taken.append(pick)
        sizes.append(site.size)
        return pick

    return choose


def _after(space: Space, behind: Sequence[int]) -> list[int] | None:
    taken: list[int] = []
    sizes: list[int] = []
    fitting(space, _following(behind, taken, sizes))
    return _next(taken, sizes)


def _next(taken: list[int], sizes: list[int]) -> list[int] | None:
    while taken and taken[-1] + 1 >= sizes[-1]:
        taken.pop()
        sizes.pop()
    return [*taken[:-1], taken[-1] + 1] if taken else None
