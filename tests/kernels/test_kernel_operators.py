"""The registered operators: opcheck, and torch.compile without graph breaks or recompilation."""

from typing import Any

import pytest
import torch
from kernel_checks import randn, uniform, unit
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from archdsl.kernels.decay import decay
from archdsl.kernels.decay.operator import decay_op
from archdsl.kernels.delta import delta, delta_general
from archdsl.kernels.delta.operator import delta_op
from archdsl.kernels.scan import scan
from archdsl.kernels.scan.chunked import scan_op

KEEP_MEMORY = True  # tracing does not see through the poisoned functions


def tensors(length: int) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    q, k, v = randn(1, length, 2, 4), unit(1, length, 2, 4), randn(1, length, 2, 3)
    inputs = (q, k, v, uniform(1, length, 2), -uniform(1, length, 2))
    return tuple(x.float().requires_grad_() for x in inputs)


@pytest.mark.parametrize("packed", [False, True])
def test_opcheck(packed: bool) -> None:
    q, k, v, beta, log = tensors(20)
    bounds = torch.tensor([0, 1, 20]) if packed else None
    state = torch.randn(2 if packed else 1, 2, 4, 3, requires_grad=True)
    torch.library.opcheck(decay_op, (q, k, v, log, state, bounds, 0.5, 16, False))
    torch.library.opcheck(delta_op, (q, k, k, v, beta, None, log, state, bounds, 0.5, 16))
    torch.library.opcheck(delta_op, (q, None, k, v, beta, None, log, state, bounds, 0.5, 16))
    torch.library.opcheck(delta_op, (q, k, k, v, None, k, None, state, bounds, 0.5, 16))


def test_shapes_are_known_without_memory_of_any_size() -> None:
    """Large buffers ask the system for huge pages, which tensors without memory cannot."""
    with FakeTensorMode():
        x = torch.empty(4, 2048, 4, 64)
        rate, state = torch.empty(4, 2048, 4), torch.empty(4, 4, 64, 64)
        found = decay_op(x, x, x, x, state, None, 1.0, 64, False)
        changed = delta_op(x, None, x, x, rate, None, x, state, None, 1.0, 64)
    assert found[3].shape == changed[3].shape == (512, 64, 64)
    assert found[2].shape == changed[2].shape == (33, 16, 64, 64)


def test_opcheck_of_the_scan() -> None:
    a, b = (torch.rand(2, 20, 3, requires_grad=True) for _ in "ab")
    torch.library.opcheck(scan_op, (a, b, torch.rand(2, 3, requires_grad=True)))


def every_family(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log: Tensor, cu_seqlens: Tensor | None
) -> Tensor:
    out, state = decay(q, k, v, log, cu_seqlens=cu_seqlens)
    mixed, last = delta(q, k, out, beta, log, cu_seqlens=cu_seqlens)
    swept, end = scan(None, mixed, log_a=log.unsqueeze(-1), cu_seqlens=cu_seqlens)
    scaled, _ = decay(q, k, swept, log, normalise="max", log_input=beta, cu_seqlens=cu_seqlens)
    assert isinstance(state, Tensor)
    return scaled.sum() + state.sum() + last.sum() + end.sum()


def every_variant(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log: Tensor, cu_seqlens: Tensor | None
) -> Tensor:
    wide = log.unsqueeze(-1) * beta.unsqueeze(-1).sigmoid() * k.abs()
    how: Any = {"cu_seqlens": cu_seqlens}
    out, state = decay(q, k, v, wide, read="before", bonus=k[0, 0], **how)
    mixed, last = delta_general(q, k, out, -k, k * beta.unsqueeze(-1), wide, **how)
    twice = [x.repeat_interleave(2, 1) for x in (k, mixed, beta)]
    again, end = delta(q, *twice, log, rank=2, erase_key=twice[0] / 2, **how)
    rates = torch.complex(wide, k)
    waves, final = scan(None, torch.complex(k, q), log_a=rates, **how)
    assert isinstance(state, Tensor)
    real = waves.real.sum() + final.real.sum()
    return again.sum() + state.sum() + last.sum() + end.sum() + real


def assert_gradients_agree(compiled: Any, plain: Any, bounds: Tensor | None, atol: float) -> None:
    """The compiled function's value and gradients beside the plain one's."""
    inputs = tensors(37)
    results = []
    for function in (compiled, plain):
        value = function(*inputs, bounds)
        results.append([value.detach(), *torch.autograd.grad(value, inputs)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("function", "atol"), [(every_family, 1e-5), (every_variant, 1e-4)])
def test_compile_takes_everything_in_one_graph(function: Any, atol: float, packed: bool) -> None:
    compiled: Any = torch.compile(function, fullgraph=True, backend="aot_eager")
    bounds = torch.tensor([0, 3, 4, 37]) if packed else None
    assert_gradients_agree(compiled, function, bounds, atol)


def test_other_packed_lengths_do_not_recompile() -> None:
    torch._dynamo.reset()
    compiled: Any = torch.compile(every_family, fullgraph=True, backend="aot_eager")
    assert_gradients_agree(compiled, every_family, torch.tensor([0, 3, 4, 37]), 1e-5)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for bounds in ([0, 10, 20, 37], [0, 0, 36, 37]):
            assert_gradients_agree(compiled, every_family, torch.tensor(bounds), 1e-5)
