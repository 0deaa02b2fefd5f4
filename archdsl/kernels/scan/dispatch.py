"""The public entry of the scan family: checks, choice of form, packed sequences."""

import math

import torch
from torch import Tensor

from archdsl.kernels.common import (
    by_sequence,
    check_packed,
    check_shape,
    choose_form,
    segments,
    sequences,
    triton_refusal,
)
from archdsl.kernels.scan.chunked import scan_op
from archdsl.kernels.scan.reference import reference
from archdsl.kernels.scan.step import step

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
"""What it computes in."""


def choose(
    b: Tensor,
    *,
    gate: Tensor | None = None,
    state: Tensor | None = None,
    packed: bool = False,
    backend: str | None = None,
) -> tuple[str, str]:
    """The form that will run for inputs [B, T, ...] with a gate and an initial state, and why."""
    length, device = b.shape[1], b.device.type
    for_step, for_chunked = "a single multiply-add", "blocks of time advance together"
    refusal = triton_refusal(b, gate, state, asked=backend == "triton")
    return choose_form(length, device, packed, backend, for_step, for_chunked, refusal)


def scan(
    a: Tensor | None,
    b: Tensor,
    *,
    log_a: Tensor | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Run `h_t = a_t * h_{t-1} + b_t` elementwise, real or complex.

    b [B, T, ...]; a broadcasts to it, or `log_a` is given instead (a = exp(log_a), real part <= 0).
    |a| <= 1 is assumed: products over a block of time must not overflow. `cu_seqlens` [N + 1] packs
    N sequences in B = 1. Returns h like b and the last h [B or N, ...]; both are float32 or
    complex64 (float64 or complex128 for double inputs).
    """
    plain = log_a is None and cu_seqlens is None and backend is None
    if plain and a is not None and initial_state is not None and _is_step(a, b, initial_state):
        return step(a, b, initial_state)
    if (a is None) == (log_a is None):
        raise ValueError("give exactly one of a and log_a")
    check_packed(cu_seqlens, b.shape[0])
    gate = a if log_a is None else log_a
    assert gate is not None
    dtype = _dtype(gate, b, initial_state)
    gate = gate.to(dtype) if log_a is None else gate.to(dtype).exp()
    write = b.to(dtype)
    gate = gate.expand(write.shape)
    shape = (sequences(cu_seqlens, b.shape[0]), *b.shape[2:])
    check_shape("initial_state", initial_state, shape)
    start = b.new_zeros(shape, dtype=dtype) if initial_state is None else initial_state.to(dtype)
    packed = cu_seqlens is not None
    name, _ = choose(b, gate=gate, state=initial_state, packed=packed, backend=backend)
    if name == "step":
        return step(gate, write, start)
    if name == "reference":
        return by_sequence(reference, (gate, write), start, cu_seqlens)
    fused = name == "triton"
    if cu_seqlens is not None:
        return _packed(gate, write, start, cu_seqlens, fused)
    return _flat(gate, write, start, fused)


def _is_step(a: Tensor, b: Tensor, state: Tensor) -> bool:
    """Whether one token meets a state ready for it: a single operation, which other checks outlast."""
    return (
        b.shape[1] == 1
        and a.shape == b.shape
        and state.shape == (b.shape[0], *b.shape[2:])
        and a.dtype == b.dtype == state.dtype
        and b.dtype in DTYPES
    )


def _dtype(*tensors: Tensor | None) -> torch.dtype:
    """float32, float64, complex64 or complex128: what the inputs need and no less than float32."""
    dtype = torch.float32
    for x in tensors:
        if x is not None:
            dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def _flat(a: Tensor, b: Tensor, start: Tensor, fused: bool) -> tuple[Tensor, Tensor]:
    """Run the operator on [B, T, D] and restore trailing dimensions."""
    width = math.prod(b.shape[2:])
    flat = [x.reshape(*x.shape[:2], width) for x in (a, b)]
    h, last = scan_op(*flat, start.reshape(start.shape[0], width), fused and b.numel() > 0)
    return h.reshape(b.shape), last.reshape(start.shape)


def _packed(
    a: Tensor, b: Tensor, start: Tensor, cu_seqlens: Tensor, fused: bool
) -> tuple[Tensor, Tensor]:
    """One scan over all sequences: first tokens forget, and carry the initial state in b."""
    if not b.shape[1]:
        return b, start
    rows, first = segments(cu_seqlens, b.shape[1])
    head = first.view(1, -1, *(1,) * (b.dim() - 2))
    write = torch.where(head, torch.addcmul(b, a, start[rows][None]), b)
    h, _ = _flat(a.masked_fill(head, 0), write, torch.zeros_like(start[:1]), fused)
    last = h[0, (cu_seqlens[1:] - 1).clamp(min=0)]
    empty = cu_seqlens[1:] == cu_seqlens[:-1]
    return h, torch.where(empty.view(-1, *(1,) * (b.dim() - 2)), start, last)
