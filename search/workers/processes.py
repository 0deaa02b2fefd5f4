"""The same work on many things, in several processes of this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


def single_thread() -> None:
    """One thread a process: there are as many processes as were asked for."""
    import torch

    torch.set_num_threads(1)


def mapped(
    one: Callable[[Given], Result], things: Sequence[Given], jobs: int,
    begin: Callable[..., None] = single_thread, given: tuple[Any, ...] = (),
) -> Iterator[Result]:  # fmt: skip
    """What ``one`` gives for each thing, in order.

    Args:
        one: a function of a module, as another process must find it.
        things: what it is asked about.
        jobs: processes; 1 stays in this one.
        begin: what each process does first.
        given: arguments of ``begin``.
    """
    if jobs == 1:
        begin(*given)
        yield from map(one, things)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=begin, initargs=given) as pool:
        yield from pool.map(one, things)
