"""How much memory a worker may take, so that running out is its failure and not the machine's."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

SHARE = 0.9
"""Of the memory that is free when the worker starts."""


def limit_memory(limit: int | None = None) -> None:
    """Bound what this process may allocate from here on.

    A GPU's driver reserves address space far beyond what it uses, so nothing is bound where there is
    one; nor where the system cannot say how much is free.

    Args:
        limit: bytes; by default most of what is free now.
    """
    import torch

    room = limit if limit is not None else free_memory()
    if room is None or torch.cuda.is_available() or sys.platform == "win32":
        return
    import resource

    size = Path("/proc/self/statm").read_text().split()[0]
    ceiling = int(size) * resource.getpagesize() + int(room if limit else room * SHARE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, resource.getrlimit(resource.RLIMIT_AS)[1]))


def free_memory() -> int | None:
    """Bytes that are free, by the system and by the container; ``None`` where nothing says so."""
    found = [value for value in (_system(), _container()) if value is not None]
    return min(found, default=None)


def _system() -> int | None:
    text = _read(Path("/proc/meminfo"))
    match = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(match[1]) * 1024 if match else None


def _container() -> int | None:
    limit = _read(Path("/sys/fs/cgroup/memory.max")).strip()
    used = _read(Path("/sys/fs/cgroup/memory.current")).strip()
    return int(limit) - int(used) if limit.isdigit() and used.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
