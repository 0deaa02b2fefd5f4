"""Large buffers that were let go, kept for the next tensor of their size.

glibc hands allocations from 32 MiB on back to the system whenever they are freed, and the system clears
their pages at the next first touch: longer than a scan takes to fill them. A tensor lent from here
gives its buffer back when its storage dies, whoever held it last (autograd, a thread, a view): memory
that anything still refers to is never lent again. Nothing here waits: where a lock is taken, a buffer
is simply neither reused nor kept, so that a garbage collection in between, or a fork, is harmless.
"""

import ctypes
import os
import sys
import threading
import weakref

import torch
from torch import Tensor, UntypedStorage

LEAST = 1 << 25
"""Bytes from which buffers are kept: glibc's largest `M_MMAP_THRESHOLD`; smaller ones it keeps itself."""


def idle_limit() -> int:
    """Bytes kept idle at most: a gibibyte, or a sixteenth of the machine's memory if that is less."""
    return min(1 << 30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 16)


class Pool:
    """Idle buffers, oldest first, of at most `most` bytes together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.idle: list[UntypedStorage] = []
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes of all idle buffers."""
        return sum(buffer.nbytes() for buffer in self.idle)

    def takes(self, size: int) -> bool:
        """Whether buffers of `size` bytes are kept at all."""
        return LEAST <= size <= self.most

    def take(self, size: int) -> UntypedStorage | None:
        """An idle buffer of exactly `size` bytes, the youngest; None where there is none."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            fitting = [i for i, buffer in enumerate(self.idle) if buffer.nbytes() == size]
            return self.idle.pop(fitting[-1]) if fitting else None
        finally:
            self._lock.release()

    def keep(self, buffer: UntypedStorage) -> None:
        """Keep a buffer that nothing refers to, in place of the oldest ones if need be."""
        if not self.takes(buffer.nbytes()) or not self._lock.acquire(blocking=False):
            return
        try:
            self.idle.append(buffer)
            while self.held > self.most:
                del self.idle[0]
        finally:
            self._lock.release()

    def lend(self, buffer: UntypedStorage, dtype: torch.dtype) -> Tensor:
        """A flat tensor over the bytes of `buffer`, which is kept when that tensor's storage dies.

        Nothing else refers to the storage, so that autograd may add to the tensor in place.
        """
        loan = (ctypes.c_byte * buffer.nbytes()).from_address(buffer.data_ptr())
        weakref.finalize(loan, self.keep, buffer).atexit = False
        return torch.frombuffer(loan, dtype=dtype)  # refers to the loan

    def clear(self) -> None:
        """Let go of every idle buffer."""
        self.idle = []


POOL = Pool(idle_limit() if sys.platform.startswith("linux") else 0)
"""The process's own; a forked child starts with copies of what was idle."""
