"""Fresh tensors that cost little to touch for the first time.

A large allocation is new to the process, and the system brings in its pages one by one as they are
written: several times the cost of the writing itself. Huge pages, 512 times as large, are asked for
here (`madvise(2)`, Linux), as NumPy does for its arrays, and the largest ones are used again (`pool`);
where that is not to be had, nothing changes.
"""

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from archdsl.kernels.pool import POOL

LARGE = 1 << 22
"""Bytes from which huge pages are asked for: two of them, on most machines."""


@functools.cache
def _advise() -> Callable[..., Any] | None:
    """The C library's `madvise`; None where there is none, or no such advice."""
    if not sys.platform.startswith("linux") or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function  # type: ignore[no-any-return]


def ask_for_huge_pages(memory: UntypedStorage) -> None:
    """Let what is not touched yet of `memory` come in huge pages; a refusal costs nothing."""
    advise = _advise()
    if advise is not None:
        start, size = memory.data_ptr(), memory.nbytes()
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        advise(first, start + size - first, mmap.MADV_HUGEPAGE)


def fresh(x: Tensor) -> Tensor:
    """A tensor like the unfilled `x`, in memory that is cheap to touch: its own, or used before."""
    memory = x.untyped_storage()
    size = memory.nbytes()
    if size < LARGE or x.device.type != "cpu":
        return x
    if not POOL.takes(size):
        ask_for_huge_pages(memory)
        return x
    buffer = POOL.take(size)
    if buffer is None:
        buffer = memory
        ask_for_huge_pages(memory)
    flat = POOL.lend(buffer, x.dtype)
    return flat.as_strided_(x.shape, x.stride(), x.storage_offset())


def fresh_like(x: Tensor) -> Tensor:
    """An unfilled tensor with the shape, strides and dtype of `x`."""
    return fresh(torch.empty_like(x))
