"""The delta rule in Triton: the decay family's kernels around the three the erase needs.

With U the updates of `chunked.py`, outputs and next states are those of the decay family with values
U, so its kernels read them out and differentiate them. Left are the inverse (I + A)^-1 of every
chunk, the sweep that finds U while it carries the state, and the same sweep backwards. The erase is
a second read, E S + A U, whose gradients are the decay family's again. RWKV-7's second write has no
Triton form yet. Nothing is kept from the forward.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.decay.triton import Call, key_gradients, prepare, read_out, value_gradient
from archdsl.kernels.triton_common import (
    INTERPRETED,
    across_of,
    beyond,
    block,
    channel_pairs,
    chunk_place,
    enter_decay,
    facing,
    floored,
    keep_rows,
    kernel,
    leave_decay,
    log_of,
    on,
    pair_decay,
    product,
    row_place,
    rows_of,
    sums,
    sums_across,
    until,
)

if INTERPRETED:
    from archdsl.kernels.triton_common import steps as range


@kernel
def inverse_kernel(
    erase: tl.tensor,
    k: tl.tensor,
    log: tl.tensor,
    inverses: tl.tensor,
    owner: tl.tensor,
    bounds: tl.tensor,
    slots: tl.tensor,
    length: tl.tensor,
    H: tl.constexpr,
    K: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    GATE: tl.constexpr,
    PACKED: tl.constexpr,
    HALF: tl.constexpr,
) -> None:
    """Fill (I + A)^-1 [chunks, H, C, C] of one (chunk, head), doubling its diagonal blocks.

    A = [[X, 0], [A21, Y]] has the inverse T - T A21 T with T those of X and Y: every intermediate is
    part of the result, so nothing grows that the result does not contain.
    """
    chunk, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    here = tl.arange(0, C)
    i, j = here[:, None], here[None, :]
    start, stop = chunk_place(chunk, owner, bounds, slots, length, C, PACKED)
    token = start + here
    good = token < stop
    pairs = tl.zeros([C, C], dtype=tl.float32)
    for begin in range(0, K, BK):
        key = begin + tl.arange(0, BK)
        erased = rows_of(erase, token, good, head, key, H, K)
        keys = across_of(k, token, good, head, key, H, K)
        if GATE == 2:
            decay = floored(rows_of(log, token, good, head, key, H, K))
            across = floored(across_of(log, token, good, head, key, H, K))
            pairs += channel_pairs(erased, decay, keys, across, C, 0, HALF)
        else:
            pairs += product(erased, keys, HALF)
    if GATE == 1:
        pairs *= pair_decay(log, token, good, head, H, C, 0, False)
    pairs = tl.where(i > j, pairs, 0.0)
    inverse = tl.where(i == j, 1.0, 0.0)
    half = 1
    while half < C:
        corner = tl.where(facing(i, j, half), pairs, 0.0)
        inverse -= product(product(inverse, corner, 0), inverse, 0)
        half = half * 2
    tl.store(inverses + (chunk * H + head) * C * C + i * C + j, inverse)


@kernel
def update_kernel(
    erase: tl.tensor,
    k: tl.tensor,
    target: tl.tensor,
    log: tl.tensor,
    inverses: tl.tensor,
    first: tl.tensor,
    states: tl.tensor,
    updates: tl.tensor,
    last: tl.tensor,
    bounds: tl.tensor,
    slots: tl.tensor,
    length: tl.tensor,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    GATE: tl.constexpr,
    PACKED: tl.constexpr,
    HALF: tl.constexpr,
) -> None:
    """Sweep U = T (X - (e enter) S), S' = total S + (k leave)^T U of one (row, head, value tile)."""
    row, head = tl.program_id(0).to(tl.int64) // H, tl.program_id(0).to(tl.int64) % H
    key = tl.arange(0, BK)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    here = tl.arange(0, C)
    i, j = here[:, None], here[None, :]
    start, stop, slot, count = row_place(row, bounds, slots, length, C, PACKED)
    tile = key[:, None] * V + value[None, :]
    inside = (key[:, None] < K) & (value[None, :] < V)
    state = tl.load(first + (row * H + head) * K * V + tile, mask=inside, other=0.0)
    for chunk in range(0, count):
        place = (slot + chunk) * H + head
        tl.store(states + place * K * V + tile, state, mask=inside)
        token = start + chunk * C + here
        good = token < stop
        erased = rows_of(erase, token, good, head, key, H, K).to(tl.float32)
        keys = across_of(k, token, good, head, key, H, K).to(tl.float32)
        rest = rows_of(target, token, good, head, value, H, V).to(tl.float32)
        inverse = tl.load(inverses + place * C * C + i * C + j)
        if GATE == 2:
            erased *= tl.exp(
                sums(until(i, j, C, 0), floored(rows_of(log, token, good, head, key, H, K)))
            )
        if GATE == 1:
            decay = log_of(log, token, good, head, H)
            erased *= enter_decay(decay, C, 0)[:, None]
            keys *= leave_decay(decay, C)[None, :]
        rest -= product(erased, state, HALF)
        if GATE == 1:
            state *= tl.exp(tl.sum(decay, axis=0))
        if GATE == 2:
            decays = floored(across_of(log, token, good, head, key, H, K))
            state *= tl.exp(tl.sum(decays, axis=1))[:, None]
            keys *= tl.exp(sums_across(decays, beyond(j, i, C)))
        update = product(inverse, rest, HALF)
        keep_rows(updates, update, token, good, head, value, H, V)
        state += product(keys, update, HALF)
    tl.store(last + (row * H + head) * K * V + tile, state, mask=inside)


@kernel
def retreat_kernel(
    q: tl.tensor,
    erase: tl.tensor,
    k: tl.tensor,
    d_out: tl.tensor,
    log: tl.tensor,
    inverses: tl.tensor,
    first: tl.tensor,
    flows: tl.tensor,
    d_update: tl.tensor,
    d_target: tl.tensor,
    last: tl.tensor,
    bounds: tl.tensor,
    slots: tl.tensor,
    length: tl.tensor,
    scale: tl.tensor,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    GATE: tl.constexpr,
    PACKED: tl.constexpr,
    HALF: tl.constexpr,
) -> None:
    """Sweep `update_kernel` backwards: dX = T^T dU, and the gradient of every chunk's end state.

    `d_update` holds what a chunk's own outputs give dU. `first` arrives at the end of the row and
    `last` leaves at its start.
    """
    row, head = tl.program_id(0).to(tl.int64) // H, tl.program_id(0).to(tl.int64) % H
    key = tl.arange(0, BK)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    here = tl.arange(0, C)
    i, j = here[:, None], here[None, :]
    start, stop, slot, count = row_place(row, bounds, slots, length, C, PACKED)
    tile = key[:, None] * V + value[None, :]
    inside = (key[:, None] < K) & (value[None, :] < V)
    flow = tl.load(first + (row * H + head) * K * V + tile, mask=inside, other=0.0)
    for step in range(0, count):
        chunk = count - 1 - step
        place = (slot + chunk) * H + head
        tl.store(flows + place * K * V + tile, flow, mask=inside)
        token = start + chunk * C + here
        good = token < stop
        keys = rows_of(k, token, good, head, key, H, K).to(tl.float32)
        if GATE == 2:
            keys *= tl.exp(
                sums(beyond(i, j, C), floored(rows_of(log, token, good, head, key, H, K)))
            )
        if GATE == 1:
            decay = log_of(log, token, good, head, H)
            keys *= leave_decay(decay, C)[:, None]
        grad = rows_of(d_update, token, good, head, value, H, V).to(tl.float32)
        grad += product(keys, flow, HALF)
        grad = product(tl.load(inverses + place * C * C + j * C + i), grad, HALF)
        keep_rows(d_target, grad, token, good, head, value, H, V)
        query = across_of(q, token, good, head, key, H, K).to(tl.float32) * scale
        erased = across_of(erase, token, good, head, key, H, K).to(tl.float32)
        if GATE == 1:
            flow *= tl.exp(tl.sum(decay, axis=0))
            query *= enter_decay(decay, C, 0)[None, :]
            erased *= enter_decay(decay, C, 0)[None, :]
        if GATE == 2:
            decays = floored(across_of(log, token, good, head, key, H, K))
            flow *= tl.exp(tl.sum(decays, axis=1))[:, None]
            entering = tl.exp(sums_across(decays, until(j, i, C, 0)))
            query *= entering
            erased *= entering
        flow += product(query, rows_of(d_out, token, good, head, value, H, V), HALF)
        flow -= product(erased, grad, HALF)
    tl.store(last + (row * H + head) * K * V + tile, flow, mask=inside)


class _Solved(NamedTuple):
    """Rated erase keys, inverses, chunk states, updates U and the final state."""

    erase: Tensor
    inverses: Tensor
    states: Tensor
    updates: Tensor
    last: Tensor


def sweep_tiles(key_dim: int, value_dim: int) -> dict[str, int]:
    """Tile sides and warps of the sweeps, which hold all key channels of a state."""
    wide = block(key_dim, 256)
    return {"BK": wide, "BV": block(value_dim, 32 if wide <= 128 else 16), "num_warps": 8}


def kernels(key_dim: int, value_dim: int, gate: int) -> list[tuple[object, dict[str, int]]]:
    """The kernels of this file with their tile sides and warps."""
    del gate
    sweep = sweep_tiles(key_dim, value_dim)
    inverse = {"BK": block(key_dim, 32), "num_warps": 8}
    return [(inverse_kernel, inverse), (update_kernel, sweep), (retreat_kernel, sweep)]


def _shared(call: Call) -> dict[str, int]:
    """The constants these kernels share with the decay family's."""
    return {name: call.constants[name] for name in ("H", "K", "C", "GATE", "PACKED", "HALF")}


def _solve(call: Call, erase: Tensor, rate: Tensor, value: Tensor, state: Tensor) -> _Solved:
    """Everything up to the updates."""
    c, where = call.constants, call.places
    rated = (erase * rate.unsqueeze(-1)).to(call.q.dtype).contiguous()
    target = (value * rate.unsqueeze(-1)).to(call.v.dtype).contiguous()
    shape = (where.chunks, c["H"], c["C"], c["C"])
    inverses = torch.empty(shape, dtype=torch.float32, device=rated.device)
    inverse_kernel[(where.chunks, c["H"])](
        rated, call.k, call.decay, inverses, *where[:3], where.length,
        BK=block(c["K"], 32), num_warps=8, **_shared(call),
    )  # fmt: skip
    tiles = sweep_tiles(c["K"], c["V"])
    first = state.contiguous()
    states = first.new_empty((where.chunks, c["H"], c["K"], c["V"]))
    updates, last = torch.empty_like(target), torch.empty_like(first)
    update_kernel[(where.rows * c["H"], triton.cdiv(c["V"], tiles["BV"]))](
        rated, call.k, target, call.decay, inverses, first, states, updates, last, where.bounds,
        where.slots, where.length, V=c["V"], **tiles, **_shared(call),
    )  # fmt: skip
    return _Solved(rated, inverses, states, updates, last)


def forward(
    q: Tensor,
    erase: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    cu_seqlens: Tensor | None,
    scale: float,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Output [B, T, H, V] and final state, from the arguments of `operator.delta_op`."""
    with on(q.device):
        call = prepare(q, key, value, log_decay, cu_seqlens, chunk, False)
        solved = _solve(call, erase, rate, value, state)
        return read_out(call, solved.updates, solved.states, scale), solved.last


def backward(
    q: Tensor,
    erase: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    cu_seqlens: Tensor | None,
    d_out: Tensor,
    d_final: Tensor,
    scale: float,
    chunk: int,
) -> list[Tensor | None]:
    """Gradients to q, erase, key, value, rate, log_decay (None if None) and the initial state."""
    with on(q.device):
        call = prepare(q, key, value, log_decay, cu_seqlens, chunk, False)
        c, where = call.constants, call.places
        d_out, first = d_out.contiguous(), d_final.contiguous()
        rated, inverses, states, updates, _ = _solve(call, erase, rate, value, state)
        d_update = value_gradient(call, d_out, None, scale, torch.float32)
        d_target, flows = torch.empty_like(d_update), torch.empty_like(states)
        d_state = torch.empty_like(first)
        tiles = sweep_tiles(c["K"], c["V"])
        retreat_kernel[(where.rows * c["H"], triton.cdiv(c["V"], tiles["BV"]))](
            call.q, rated, call.k, d_out, call.decay, inverses, first, flows, d_update, d_target,
            d_state, where.bounds, where.slots, where.length, scale,
            V=c["V"], **tiles, **_shared(call),
        )  # fmt: skip
        read = call._replace(v=updates)
        d_q, d_key, d_log = key_gradients(read, states, flows, d_out, scale)
        lost = key_gradients(read._replace(q=rated), states, None, -d_target, 1.0)
    d_key = d_key + lost[1]
    d_erase = lost[0].float()
    if log_decay is not None and d_log is not None and lost[2] is not None:
        d_log = (d_log + lost[2]).to(log_decay.dtype)
    d_rate = (erase * d_erase).sum(-1) + (value * d_target).sum(-1)
    d_erase, d_value = d_erase * rate.unsqueeze(-1), d_target * rate.unsqueeze(-1)
    d_erase, d_value = d_erase.to(erase.dtype), d_value.to(value.dtype)
    return [d_q, d_erase, d_key, d_value, d_rate.to(rate.dtype), d_log, d_state]
