"""Why nothing keeps the requirements, said with the nearest miss and what it is due to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from time import thread_time
from typing import TYPE_CHECKING

from archdsl.compiler.reading.quantities import Requirement, value
from archdsl.compiler.reading.sources import Bound
from archdsl.compiler.terms.spelling import count_text, rounded
from archdsl.diagnostics import ArchError, Diagnostic, Span
from archdsl.grammar import ast

if TYPE_CHECKING:
    from archdsl.compiler.spaces.arch import Arch
    from archdsl.compiler.spaces.space import Space


@dataclass(frozen=True)
class Miss:
    """How far the best architecture is from one requirement; nothing is 0 or below."""

    arch: Arch
    distance: float | Fraction


class Look:
    """Keeps, while architectures are looked at, how near the best came to each requirement."""

    def __init__(self) -> None:
        self.seen = 0
        self.best: list[Miss] = []

    def feasible(self, arch: Arch) -> bool:
        """Whether an architecture keeps every requirement; where not, how near it came is kept."""
        self.seen += 1
        if arch.feasible:
            return True
        misses = [Miss(arch, distance(arch, i)) for i in range(len(arch.requirements))]
        pairs = zip(misses, self.best or misses, strict=True)
        self.best = [min(pair, key=lambda miss: miss.distance) for pair in pairs]
        return False

    def diagnostic(self, space: Space, *, everything: bool, seconds: float = 1.0) -> Diagnostic:
        """That nothing was feasible, where at least one architecture was looked at.

        Args:
            space: where it was looked.
            everything: whether all of the space was seen.
            seconds: how long it may take to find out what it is due to.
        """
        hopeless = [i for i, miss in enumerate(self.best) if not _keeps(miss.arch, i)]
        who = who_of(space.count(), self.seen, everything=everything)
        if not hopeless:
            requirements = self.best[0].arch.requirements
            texts = " and ".join(f"`{each.text}`" for each in requirements)
            message = f"{who} have {texts} together; each alone can be kept"
            return Diagnostic("nothing-feasible", message, requirements[-1].span)
        return self._hopeless(space, hopeless[0], who, thread_time() + seconds)

    def _hopeless(self, space: Space, index: int, who: str, end: float) -> Diagnostic:
        arch = self.best[index].arch
        requirement = arch.requirements[index]
        upper = requirement.sign in ("<=", "<")
        nearest = (
            "smallest" if upper else "largest" if requirement.sign in (">=", ">") else "nearest"
        )
        figure = rounded(value(requirement.left, arch.cost, {}), str(requirement.left))
        have = "has" if space.count() == 1 else "have"
        message = f"{who} {have} {requirement.text}; the {nearest} has {figure}"
        cause = due_to(space, arch, index, end, smaller=upper)
        if cause is None:
            return Diagnostic("nothing-feasible", message, requirement.span)
        name, text, span = cause
        return Diagnostic(
            "nothing-feasible",
            f"{message} because {name} = {text}, line {span.line}",
            requirement.span,
            related=((span, "this decides most"),),
        )


def who_of(count: int, seen: int, *, everything: bool) -> str:
    """``0 of 5,184 architectures``, or what was seen of a larger space."""
    if everything:
        return f"0 of {count_text(count)} architecture{'s' if count != 1 else ''}"
    return f"0 of the {seen:,} architectures looked at"


def _keeps(arch: Arch, index: int) -> bool:
    return arch.requirements[index].holds(arch.cost)


def distance(arch: Arch, index: int) -> float | Fraction:
    """How far an architecture is beyond a bound; 0 or less where it keeps it."""
    requirement: Requirement = arch.requirements[index]
    if not requirement.hard:
        return 0
    left, right = (value(side, arch.cost, {}) for side in (requirement.left, requirement.right))
    beyond: float | Fraction = left - right
    if requirement.sign in ("<=", "<"):
        return beyond
    return -beyond if requirement.sign in (">=", ">") or beyond < 0 else beyond


# --- what it is due to ----------------------------------------------------------------------------


def due_to(
    space: Space, arch: Arch, index: int, end: float, *, smaller: bool
) -> tuple[str, str, Span] | None:
    """The ``let`` that changes a requirement's figure most when it is halved (or doubled).

    The program is written out again for each; behind ``end`` (of this thread's time) it is left at that.
    """
    here = distance(arch, index)
    gains = []
    for item, number in _numbers(space):
        if thread_time() > end:
            break
        there = _elsewhere(space, arch, index, item.name, number / 2 if smaller else number * 2)
        if there is not None and there < here:
            gains.append((here - there, item.name, number, item.name_span))
    if not gains:
        return None
    _, name, number, span = max(gains, key=lambda gain: gain[0])
    return name, str(number), span


def _numbers(space: Space) -> Iterator[tuple[ast.Let, Fraction]]:
    """The ``let`` items that are a number, or the smallest of a choice of numbers."""
    for item in space.program.items:
        if isinstance(item, ast.Let) and item.name not in space.sources.bindings:
            alternatives = (
                item.value.alternatives if isinstance(item.value, ast.Choice) else (item.value,)
            )
            numbers = [Fraction(a.value) for a in alternatives if isinstance(a, ast.Number)]
            if len(numbers) == len(alternatives):
                yield item, min(numbers)


def _elsewhere(
    space: Space, arch: Arch, index: int, name: str, number: Fraction
) -> float | Fraction | None:
    """The distance of the same architecture with another number for a ``let``."""
    from archdsl.compiler.spaces.loading import unchecked

    bindings: dict[str, Bound] = {**space.sources.bindings, name: number}
    sources = replace(space.sources, bindings=bindings)
    try:
        other = unchecked(sources).decide(
            lambda site: arch.assignment.get(site.path, 0) % site.size
        )
        return distance(other, index)
    except (ArchError, AssertionError):
        return None
