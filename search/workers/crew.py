"""How many threads train: fewer while other processes keep cores busy.

PyTorch's threads wait for each other behind every operation, and spin meanwhile. One that has to share its
core keeps all of them waiting: two threads beside one busy process are several times slower than one.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

BETWEEN_LOOKS = 1.0
"""Seconds."""

LOOKS = 3
"""How many looks in a row must see the same load: what passes sooner is not worth other threads."""

UNNOTICED = 0.3
"""Cores that others may use without a thread giving way. Beside as many threads as there are cores, one busy
process gets at least half a core."""


@dataclass(frozen=True)
class Use:
    """Seconds of processors that were used until a moment.

    Args:
        moment: on a clock that only goes forward.
        everyone: by all processes, on the cores that this one may run on.
        own: by this process.
    """

    moment: float
    everyone: float
    own: float


class Crew:
    """Says how many threads to train with, from what others did of late.

    Args:
        most: threads where nobody else computes.
        cores: that this process may run on.
        look: says what was used so far; ``None`` where the system does not say, and all threads train.
    """

    def __init__(
        self, most: int, cores: int | None = None, look: Callable[[], Use | None] | None = None
    ) -> None:
        self.most, self.threads = most, most
        self._cores, self._look = cores or len(own_cores()), look or used
        self._seen: deque[float] = deque(maxlen=LOOKS)
        self._last: Use | None = None

    def begin(self) -> None:
        """Look from here on; what this process waited for before was part of the same search."""
        self._last = self._look() if self.most > 1 else None

    def looked(self) -> int:
        """The number of threads for now; looks again at most once a second."""
        if self._last is None or time.monotonic() - self._last.moment < BETWEEN_LOOKS:
            return self.threads
        if (now := self._look()) is not None:
            self._seen.append(_others(self._last, now))
            self._last = now
        if len(self._seen) == LOOKS:
            self.threads = self._fitting(min(self._seen))
        return self.threads

    def _fitting(self, others: float) -> int:
        left = self._cores - ceil(max(0.0, others - UNNOTICED))
        return max(1, min(self.most, left))


def _others(before: Use, now: Use) -> float:
    """Cores that other processes used between two looks, on average."""
    used = (now.everyone - before.everyone) - (now.own - before.own)
    return used / (now.moment - before.moment)


def own_cores() -> frozenset[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def used(counts: Path = Path("/proc/stat")) -> Use | None:
    """What was used so far; ``None`` where the system does not count it in Linux's way.

    What runs at low priority counts only if we do so, too: it gives way.
    """
    own, moment = time.process_time(), time.monotonic()
    try:
        rows = [line.split() for line in counts.read_text().splitlines() if line[:3] == "cpu"]
        known = {row[0]: [int(ticks) for ticks in row[1:9]] for row in rows}
        ticks = sum(_busy(*known[f"cpu{core}"]) for core in own_cores())
        return Use(moment, ticks / os.sysconf("SC_CLK_TCK"), own)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _busy(
    user: int, low: int, system: int, idle: int, disk: int, interrupts: int, soft: int, stolen: int
) -> int:  # fmt: skip
    """Ticks in which a core was not to be had, by the columns of ``/proc/stat``."""
    modest = os.getpriority(os.PRIO_PROCESS, 0) > 0
    return user + (low if modest else 0) + system + interrupts + soft + stolen
