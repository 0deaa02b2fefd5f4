"""Locks that die with the process that holds them, whatever killed it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int, wait: bool) -> None:
        msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int, wait: bool) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` inside; waits for it. The file itself stays."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


class Lease:
    """A file that is locked as long as this process lives: how others see that it does.

    Args:
        path: the file; made where it is missing, removed by :meth:`release`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        _lock(self._handle, wait=True)

    def release(self) -> None:
        """End the lease."""
        self.path.unlink(missing_ok=True)
        os.close(self._handle)


def alive(path: Path) -> bool:
    """Whether a living process holds the lease at ``path``."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        _lock(handle, wait=False)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
