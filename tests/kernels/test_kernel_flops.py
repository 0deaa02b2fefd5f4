"""Counted operations equal those the forms execute, and the counters import no torch."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from archdsl.kernels.decay import decay
from archdsl.kernels.decay import flops as decay_flops
from archdsl.kernels.decay.chunked import backward as decay_backward
from archdsl.kernels.decay.chunked import forward as decay_forward
from archdsl.kernels.delta import delta, delta_general
from archdsl.kernels.delta import flops as delta_flops
from archdsl.kernels.delta.chunked import Inputs
from archdsl.kernels.delta.chunked import backward as delta_backward
from archdsl.kernels.delta.chunked import forward as delta_forward
from archdsl.kernels.scan import flops as scan_flops
from archdsl.kernels.scan import scan

B, H, K, V = 2, 3, 8, 6
LENGTHS = (16, 17, 64, 100, 130)


def gate(length: int, per_channel: bool, leaf: int | None = None) -> torch.Tensor:
    """A decay that stays in one leaf, or closes so fast that leaves have `leaf` tokens."""
    shape = (B, length, H, K) if per_channel else (B, length, H)
    return torch.full(shape, -0.01 if leaf is None else -70.0 / leaf)


def added_product(_: object, left: list[int], right: list[int], **__: object) -> int:
    """Operations of `x += left @ right` from the shapes."""
    return 2 * left[0] * left[1] * left[2] * right[2]


def counted(function: object, *arguments: object, **options: object) -> int:
    in_place = {torch.ops.aten.baddbmm_: added_product}  # the counter knows the other form only
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        function(*arguments, **options)  # type: ignore[operator]
    return int(counter.get_total_flops())


def tensors(length: int, rank: int = 1) -> tuple[torch.Tensor, ...]:
    micro = length * rank
    k, v = torch.randn(B, micro, H, K) * 0.1, torch.randn(B, micro, H, V)
    return torch.randn(B, length, H, K), k, v, torch.rand(B, micro, H)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("per_channel", "leaf"), [(False, None), (True, None), (True, 4)])
def test_decay(length: int, per_channel: bool, leaf: int | None) -> None:
    q, k, v, _ = tensors(length)
    log, state = gate(length, per_channel, leaf), torch.zeros(B, H, K, V)
    chunk = decay_flops.default_chunk(length, K, V)
    options = {"per_channel": per_channel, "leaf": leaf}
    expected = decay_flops.flops(B, length, H, K, V, **options)  # type: ignore[arg-type]
    assert counted(decay_forward, q, k, v, log, state, 1.0, chunk, False) == expected
    if leaf is None:
        assert counted(decay, q, k, v, log) == expected


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("per_channel", "leaf"), [(False, None), (True, None), (True, 4)])
@pytest.mark.parametrize("general", [False, True])
def test_delta(length: int, per_channel: bool, leaf: int | None, general: bool) -> None:
    q, k, v, beta = tensors(length)
    log, state = gate(length, per_channel, leaf), torch.zeros(B, H, K, V)
    chunk = delta_flops.default_chunk(length, K, V)
    x = Inputs(q, k, k, v, None if general else beta, k if general else None)
    options = {"per_channel": per_channel, "leaf": leaf, "general": general}
    expected = delta_flops.flops(B, length, H, K, V, **options)  # type: ignore[arg-type]
    assert counted(delta_forward, x, log, state, 1.0, chunk) == expected
    if leaf is None and general:
        assert counted(delta_general, q, k, v, k, k, log) == expected
    elif leaf is None:
        assert counted(delta, q, k, v, beta, log) == expected


def by_formula(function: Any, *inputs: torch.Tensor) -> int:
    """Operations of a call's backward, by the operators' formulas."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    out, state = function(*leaves)
    loss = out.sum() + state.sum()
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(loss, leaves)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("length", [17, 100])
def test_backward_of_the_decay(length: int, per_channel: bool) -> None:
    q, k, v, _ = tensors(length)
    log, state = gate(length, per_channel), torch.zeros(B, H, K, V)
    chunk = decay_flops.default_chunk(length, K, V)
    _, states = decay_forward(q, k, v, log, state, 1.0, chunk, False)
    found = counted(decay_backward, q, k, v, log, states, v, state, 1.0, chunk, False)
    assert found == decay_flops.backward_flops(B, length, H, K, V)
    assert by_formula(decay, q, k, v, log) == found


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("general", [False, True])
def test_backward_of_the_delta(per_channel: bool, general: bool) -> None:
    q, k, v, beta = tensors(100)
    log, state = gate(100, per_channel), torch.zeros(B, H, K, V)
    x = Inputs(q, k, k, v, None if general else beta, k if general else None)
    _, saved = delta_forward(x, log, state, 1.0, 64)
    found = counted(delta_backward, x, log, saved, v, state, 1.0, 64)
    assert found == delta_flops.backward_flops(B, 100, H, K, V, general=general)
    if general:
        assert by_formula(delta_general, q, k, v, k, k, log) == found
    else:
        assert by_formula(delta, q, k, v, beta, log) == found


@pytest.mark.parametrize("rank", [2, 3])
def test_delta_with_micro_steps(rank: int) -> None:
    q, k, v, beta = tensors(50, rank)
    expected = delta_flops.flops(B, 50, H, K, V, rank=rank)
    assert counted(delta, q, k, v, beta, gate(50, False), rank=rank) == expected
    q, k, v, beta = tensors(1, rank)
    expected = delta_flops.step_flops(B, H, K, V, rank=rank)
    assert counted(delta, q, k, v, beta, gate(1, False), rank=rank) == expected


@pytest.mark.parametrize("normalise", ["none", "sum", "max"])
def test_normalised_decay(normalise: str) -> None:
    for length in (1, 50):
        q, k, v, beta = tensors(length)
        log_input = beta if normalise == "max" else None
        found = counted(
            decay, q, k, v, gate(length, False), normalise=normalise, log_input=log_input
        )
        normalised = normalise != "none"
        if length == 1:
            assert found == decay_flops.step_flops(B, H, K, V, normalised=normalised)
        else:
            assert found == decay_flops.flops(B, length, H, K, V, normalised=normalised)


def test_steps() -> None:
    q, k, v, beta = tensors(1)
    assert counted(delta, q, k, v, beta) == delta_flops.step_flops(B, H, K, V)
    general = delta_flops.step_flops(B, H, K, V, general=True)
    assert counted(delta_general, q, k, v, k, k) == general


def test_scan_has_no_matrix_products() -> None:
    a, b = torch.rand(B, 40, K), torch.rand(B, 40, K)
    assert counted(scan, a, b) == scan_flops.flops(B, 40, K) == 0


def test_counters_do_not_import_torch() -> None:
    modules = ", ".join(f"archdsl.kernels.{name}.flops" for name in ("scan", "decay", "delta"))
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
