"""Where an architecture lies in a space: for trials of an earlier edition of the spec, and for files.

Whatever is found has been compared by hash, so a find is never wrong; what is not found by the words of its
choices, in a small space by looking at every architecture, or by walking towards its text, counts as not
being there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from archdsl.diagnostics import ArchError
from archdsl.search.errors import user_error
from archdsl.search.space.distributions import distribution
from archdsl.search.space.objectives import hard_constraints, keeps_soft
from archdsl.search.space.protocols import Arch, Site, Space
from archdsl.search.space.sites import counted, every, fitting, located, value
from archdsl.search.storage.records import ARCH, CONSTRAINTS, EDITED, Record
from archdsl.search.study.proposals import WALKED

SWEEPS = 4
"""Times every choice is looked at on the way towards a text."""

MOST_LOOKS = 4000
"""Architectures that are looked at on that way."""

WORD = re.compile(r"[\w.]+")

Same = Callable[[Arch], bool]


def found(space: Space, text: str, words: Mapping[str, str], same: Same) -> Arch | None:
    """The architecture of a closed text.

    Args:
        space: where to look.
        text: the closed text.
        words: site path → alternative as it was written, as far as they are known.
        same: whether an architecture is the one.
    """
    by_words = fitting(space, partial(_worded, words))
    if by_words is not None and same(by_words):
        return by_words
    size = counted(space)
    if size is not None and size <= WALKED:
        return next((arch for arch in every(space) if same(arch)), None)
    return _walked(space, text, by_words or space.sample(0), same)


def _worded(words: Mapping[str, str], site: Site) -> int:
    texts = [site.text(index) for index in range(site.size)]
    wanted = words.get(site.path)
    return texts.index(wanted) if wanted in texts else 0


def _walked(space: Space, text: str, start: Arch, same: Same) -> Arch | None:
    """Change one choice at a time as long as the text gets more like it."""
    target, here, looks = _words(text), start, 0
    apart = _apart(target, here)
    for _ in range(SWEEPS):
        before = apart
        for path, size in _sizes(space, here).items():
            for index in range(size):
                looks += 1
                other = _changed(space, here, path, index)
                if other is not None and (distance := _apart(target, other)) < apart:
                    here, apart = other, distance
                    if same(here):
                        return here
        if apart == before or looks > MOST_LOOKS:
            return None
    return None


def _words(text: str) -> Counter[tuple[int, str]]:
    """The words of a text, each as such and with the number of its line."""
    found: Counter[tuple[int, str]] = Counter()
    for number, line in enumerate(text.splitlines()):
        for word in WORD.findall(line):
            found[-1, word] += 1
            found[number, word] += 1
    return found


def _apart(target: Counter[tuple[int, str]], arch: Arch) -> int:
    own = _words(arch.text)
    return sum(((target - own) + (own - target)).values())


def _sizes(space: Space, arch: Arch) -> dict[str, int]:
    sizes: dict[str, int] = {}

    def look(site: Site) -> int:
        sizes[site.path] = site.size
        return arch.assignment[site.path]

    space.decide(look)
    return sizes


def _changed(space: Space, arch: Arch, path: str, index: int) -> Arch | None:
    def choose(site: Site) -> int:
        kept = arch.assignment.get(site.path, 0)
        return index if site.path == path else kept if kept < site.size else 0

    return fitting(space, choose)


# --- trials of earlier editions -------------------------------------------------------------------


class Edition:
    """The trials of a study as the present spec sees them: those that lie in its space.

    Args:
        space: of the present spec.
        rungs: optimiser steps of its rungs.
        key_of: what tells whether two architectures would compute the same.
        first: the hash of the spec of trials that do not say theirs; ``None`` is the present one's.
    """

    def __init__(
        self, space: Space, rungs: Sequence[int], key_of: Callable[[Arch], str],
        first: str | None = None,
    ) -> None:  # fmt: skip
        self.space, self.rungs, self.key_of = space, tuple(rungs), key_of
        self.first = first or space.text_hash
        self._places: dict[int, Arch | None] = {}

    def of(self, records: Sequence[Record]) -> list[Record]:
        """The trials that lie in the space, in its words."""
        return [placed for record in records if (placed := self.placed(record)) is not None]

    def placed(self, record: Record) -> Record | None:
        """One trial in the words of the space; ``None`` where it does not lie in it.

        What an edit ended without a result is tried anew where it lies in the space again.
        """
        if record.reason == EDITED:
            return None
        if record.arch.get("space", self.first) == self.space.text_hash:
            return record
        if record.number not in self._places:
            self._places[record.number] = self._place(record)
        arch = self._places[record.number]
        if arch is None or not self._fits(record) or not _let_through(record, arch):
            return None
        return self._reworded(record, arch)

    def _place(self, record: Record) -> Arch | None:
        about = record.arch

        def same(arch: Arch) -> bool:
            return self.key_of(arch) == record.key

        arch = located(self.space, about["assignment"])
        if arch is None or not same(arch):
            arch = found(self.space, str(about["text"]), about["choices"], same)
        return arch if arch is not None and self.space.feasible(arch) else None

    def _fits(self, record: Record) -> bool:
        """Whether it was trained by the present rungs, as far as it came."""
        reached = tuple(rung.step for rung in record.rungs)
        whole = record.state != "complete" or len(reached) == len(self.rungs)
        steps = record.arch.get("schedule", {}).get("steps", self.rungs[-1])
        return reached == self.rungs[: len(reached)] and whole and (
            not reached or steps == self.rungs[-1]
        )  # fmt: skip

    def _reworded(self, record: Record, arch: Arch) -> Record:
        params, shapes = {}, {}

        def look(site: Site) -> int:
            index = arch.assignment[site.path]
            params[site.path], shapes[site.path] = value(site, index), distribution(site)
            return index

        self.space.decide(look)
        words = {"assignment": dict(arch.assignment), "choices": dict(arch.choices)}
        about = {**record.arch, **words, "text": arch.text}
        attributes = {**record.attributes, ARCH: about, CONSTRAINTS: hard_constraints(arch)}
        return replace(record, attributes=attributes, params=params, distributions=shapes)


def _let_through(record: Record, arch: Arch) -> bool:
    """Whether the soft constraints of the present spec would have had it come as far as it did.

    What they would judge otherwise, or what was trained without the measurement they ask for, is tried anew.
    """
    if record.reason == "constraint":
        return keeps_soft(arch, record.measured) is False
    judged = record.finished and bool(record.rungs)
    return not judged or keeps_soft(arch, record.measured) is True


# --- files ----------------------------------------------------------------------------------------


def enqueued(space: Space, paths: Sequence[Path]) -> list[tuple[str, Arch]]:
    """The architectures of closed files, found in the space, with the files' names.

    Raises:
        ArchError: a file is not closed, its architecture is not one of the space, or breaks a constraint.
    """
    return [(path.name, _enqueued(space, path)) for path in paths]


def _enqueued(space: Space, path: Path) -> Arch:
    import archdsl

    given = archdsl.load(path)
    if given.count() != 1:
        raise _refused(
            path, f"`{path.name}` describes {given.count():,} architectures, and one can be enqueued",
            "draw one of them: `archdsl sample FILE`",
        )  # fmt: skip
    wanted = given.arch({})
    arch = found(space, wanted.text, {}, lambda each: each.hash == wanted.hash)
    if arch is None:
        raise _refused(
            path, f"the architecture of `{path.name}` was not found in the space",
            "write its choices into the spec as further alternatives",
        )  # fmt: skip
    if not space.feasible(arch):
        raise _refused(
            path, f"the architecture of `{path.name}` does not keep the spec's constraints",
            "see what it costs: `archdsl cost FILE`",
        )  # fmt: skip
    return arch


def _refused(path: Path, message: str, help: str) -> ArchError:
    return user_error("not-enqueued", message, help)
