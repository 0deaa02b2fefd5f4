"""Fresh tensors that cost little to touch for the first time.

A large allocation is new to the process, and the system brings in its pages one by one as they are
written: several times the cost of the writing itself. Huge pages, 512 times as large, are asked for
here (`madvise(2)`, Linux), as NumPy does for its arrays; where they are not to be had, nothing changes.
"""

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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


def on_huge_pages(x: Tensor) -> Tensor:
    """The same unfilled tensor, its memory asked to be of huge pages where that helps."""
    size = x.untyped_storage().nbytes()
    if size < LARGE or x.device.type != "cpu":
        return x
    advise = _advise()
    if advise is not None:
        start = x.untyped_storage().data_ptr()
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        advise(first, start + size - first, mmap.MADV_HUGEPAGE)  # a refusal costs nothing
    return x


def fresh_like(x: Tensor) -> Tensor:
    """An unfilled tensor with the shape, strides and dtype of `x`."""
    return on_huge_pages(torch.empty_like(x))
