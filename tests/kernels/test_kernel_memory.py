"""Large buffers used again: never while anything refers to them, of bounded size, in any thread."""

import gc
import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from archdsl.kernels import bench, memory, pool
from archdsl.kernels.memory import fresh, fresh_like
from archdsl.kernels.scan import scan

KEEP_MEMORY = True  # the memory itself is looked at here

SIZE = pool.LEAST // 4
"""Float32 numbers in the smallest buffer that is kept."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[pool.Pool]:
    """The pool in use: empty, of three smallest buffers."""
    found = pool.Pool(3 * pool.LEAST)
    monkeypatch.setattr(memory, "POOL", found)
    yield found
    gc.collect()


def large(factor: int = 1) -> Tensor:
    return fresh(torch.empty(factor * SIZE))


def test_what_was_let_go_is_lent_again(store: pool.Pool) -> None:
    first = large()
    where = first.data_ptr()
    assert store.held == 0
    del first
    assert store.held == pool.LEAST
    again = large()
    assert again.data_ptr() == where
    assert store.held == 0


@pytest.mark.parametrize(
    "hold",
    [
        lambda x: x[3:5],
        lambda x: x.untyped_storage(),
        lambda x: x.numpy(),
        lambda x: torch.utils.dlpack.to_dlpack(x),
        lambda x: x * torch.ones(1, requires_grad=True),
    ],
    ids=["view", "storage", "array", "capsule", "saved for the backward"],
)
def test_nothing_is_lent_while_something_refers_to_it(
    store: pool.Pool, hold: Callable[[Tensor], object]
) -> None:
    x = large()
    where = x.data_ptr()
    holder = hold(x)
    del x
    assert store.held == 0
    assert large().data_ptr() != where
    store.clear()
    del holder
    assert store.held == pool.LEAST
    assert large().data_ptr() == where


def test_autograd_adds_to_what_was_lent_in_place(store: pool.Pool) -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.sum()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return large().fill_(2.0)

    x = torch.zeros(SIZE, requires_grad=True)
    first = x[:1].sum()  # of which the backward runs last
    (first + Twice.apply(x)).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    where = x.grad.data_ptr()
    x.grad = None
    assert [buffer.data_ptr() for buffer in store.idle] == [where]


def test_shapes_strides_and_dtypes_are_those_asked_for(store: pool.Pool) -> None:
    for dtype in (torch.float32, torch.float64, torch.complex64, torch.bfloat16):
        like = torch.empty(4, SIZE // 4, 4, dtype=dtype).transpose(1, 2)
        for _ in range(2):
            x = fresh_like(like)
            assert (x.dtype, x.shape, x.stride()) == (dtype, like.shape, like.stride())
            assert x.data_ptr() % 64 == 0
            x.fill_(1)
            del x
        store.clear()


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(store: pool.Pool) -> None:
    held = [large() for _ in range(5)]
    places = [x.data_ptr() for x in held]
    for _ in range(5):
        held.pop(0)
    assert store.held == 3 * pool.LEAST
    assert [buffer.data_ptr() for buffer in store.idle] == places[2:]
    del held
    large(2)
    assert store.held == 3 * pool.LEAST
    large(4)  # more than all that is kept
    assert store.held == 3 * pool.LEAST


def test_small_tensors_are_left_to_the_allocator(store: pool.Pool) -> None:
    x = torch.empty(SIZE - 1)
    assert fresh(x) is x


def test_threads_never_share_a_buffer(store: pool.Pool) -> None:
    def used(number: int) -> bool:
        whole = True
        for turn in range(20):
            x = large()
            x[:: SIZE // 8].fill_(number + turn)
            threading.Event().wait(0.0005)
            whole &= bool((x[:: SIZE // 8] == number + turn).all())
        return whole

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(used, range(0, 4000, 1000)))
    assert store.held <= 3 * pool.LEAST


def test_a_lock_that_is_taken_is_not_waited_for(store: pool.Pool) -> None:
    x = large()
    with store._lock:
        assert store.take(pool.LEAST) is None
        del x
    assert store.held == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_writes_to_memory_of_its_own(store: pool.Pool) -> None:
    lent, idle = large().fill_(1), large()
    del idle
    child = os.fork()
    if not child:
        large().fill_(2)
        lent.fill_(3)
        os._exit(0 if large().untyped_storage().nbytes() == pool.LEAST else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert bool((lent == 1).all())


def test_lent_memory_moves_between_processes_as_any_other(store: pool.Pool) -> None:
    x = large().fill_(2)
    x.share_memory_()
    assert bool((x == 2).all())
    assert bool((torch.load(_saved(x), weights_only=True) == 2).all())


def _saved(x: Tensor) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return file


def test_a_scan_and_its_gradients_are_the_same_in_memory_used_before(store: pool.Pool) -> None:
    torch.manual_seed(0)
    shape = (1, SIZE // 512, 512)
    inputs = [torch.rand(shape, requires_grad=True), torch.randn(shape, requires_grad=True)]

    def differentiated() -> list[Tensor]:
        first, _ = scan(*inputs)
        second, last = scan(inputs[0], first)  # the first is kept for the second's backward
        return [second, last, *torch.autograd.grad(second.square().sum() + last.sum(), inputs)]

    expected = [x.clone() for x in differentiated()]
    assert store.held > 0
    for _ in range(2):
        for found, x in zip(differentiated(), expected, strict=True):
            assert torch.equal(found, x)


def test_the_peak_of_a_call_counts_what_it_takes_of_what_was_kept() -> None:
    case = bench.Case("scan", "real", batch=1, length=SIZE // 512, width=512)
    x = {name: value.float() for name, value in bench.make(case).items()}
    function = bench.work(case, x, bench.call(case), None)
    for _ in range(2):
        assert bench.peak(function) >= 3 * pool.LEAST  # the scan and two gradients
