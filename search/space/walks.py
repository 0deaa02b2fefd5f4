"""The choice tree of a space as far as it was walked: an architecture that is met again is not made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from archdsl.search.space.protocols import Arch, Site, Space
from archdsl.search.space.sites import fitting

MOST = 4096
"""Architectures that are kept; then all are forgotten."""


@dataclass
class _Branch:
    """A choice, and what comes behind each alternative that was taken."""

    site: Site
    behind: dict[int, _Branch | _Leaf] = field(default_factory=dict)


@dataclass
class _Leaf:
    """Where all choices are made; ``None`` where they do not fit together."""

    arch: Arch | None


class Walks:
    """Gives the architecture of a chooser, as :func:`archdsl.search.space.sites.fitting` does.

    Args:
        space: all candidates.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._root = _Branch(_Start())
        self._count = 0

    def arch(self, choose: Callable[[Site], int]) -> Arch | None:
        """The architecture of a chooser, which is asked once for each active choice."""
        here, taken = self._root.behind.get(0), list[int]()
        while isinstance(here, _Branch):
            taken.append(choose(here.site))
            here = here.behind.get(taken[-1])
        return here.arch if here is not None else self._new(taken, choose)

    def _new(self, taken: list[int], choose: Callable[[Site], int]) -> Arch | None:
        sites: list[Site] = []

        def follow(site: Site) -> int:
            sites.append(site)
            if len(sites) > len(taken):
                taken.append(choose(site))
            return taken[len(sites) - 1]

        arch = fitting(self.space, follow)
        self._keep(sites, taken, arch)
        return arch

    def _keep(self, sites: list[Site], taken: list[int], arch: Arch | None) -> None:
        self._count += 1
        if self._count > MOST:
            self._root, self._count = _Branch(_Start()), 1
        here, index = self._root, 0
        for site, next_index in zip(sites, taken, strict=True):
            branch = here.behind.setdefault(index, _Branch(site))
            assert isinstance(branch, _Branch)
            here, index = branch, next_index
        here.behind[index] = _Leaf(arch)


class _Start:
    """What stands above the first choice."""

    path, size, kind = "", 1, "choice"

    def text(self, index: int) -> str:
        """Nothing."""
        return ""
