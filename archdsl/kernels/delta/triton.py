"""The delta family in Triton: the decay family's kernels around the three the erase needs.

With U the updates of `chunked.py`, outputs and next states are those of the decay family with values
U, so its kernels read them out and differentiate them. Left are the inverse (I + A)^-1 of every
chunk, the sweep that finds U while it carries the state, and the same sweep backwards. The erase is
a second read, E S + A U, whose gradients are the decay family's again; SHIFTED takes it before the
token's decay (RWKV-7). A second write, of the values themselves, is read by the outputs and by the
erase: both are the decay family's without a state. Nothing is kept from the forward.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.decay.triton import Call, key_gradients, prepare, read_out, value_gradient
from archdsl.kernels.delta.chunked import Inputs
from archdsl.kernels.triton_common import (
    across_of,
    beyond,
    block,
    channel_pairs,
    chunk_and_head,
    chunk_tokens,
    decays,
    decays_across,
    facing,
    keep_rows,
    keep_state,
    kernel,
    logs_across_of,
    logs_of,
    on,
    product,
    row_and_head,
    row_place,
    rows_of,
    square,
    state_of,
    total_decay,
    until,
    weighed,
)
from archdsl.kernels.triton_common import loop as range


@kernel
def inverse_kernel(
    erase: tl.tensor, k: tl.tensor, log: tl.tensor, inverses: tl.tensor, owner: tl.tensor,
    bounds: tl.tensor, slots: tl.tensor, length: tl.tensor, H: tl.constexpr, K: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, GATE: tl.constexpr, SHIFTED: tl.constexpr,
    PACKED: tl.constexpr, HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Fill (I + A)^-1 [chunks, H, C, C] of one (chunk, head), doubling its diagonal blocks.

    A = [[X, 0], [A21, Y]] has the inverse T - T A21 T with T those of X and Y: every intermediate is
    part of the result, so nothing grows that the result does not contain.
    """
    chunk, head = chunk_and_head()
    i, j = square(C)
    token, good = chunk_tokens(chunk, owner, bounds, slots, length, C, PACKED)
    pairs = tl.zeros([C, C], dtype=tl.float32)
    for begin in range(0, K, BK):
        key = begin + tl.arange(0, BK)
        erased = rows_of(erase, token, good, head, key, H, K)
        keys = across_of(k, token, good, head, key, H, K)
        if GATE == 2:
            logs = logs_of(log, token, good, head, key, H, K, GATE)
            across = logs_across_of(log, token, good, head, key, H, K, GATE)
            pairs += channel_pairs(erased, logs, keys, across, C, SHIFTED, HALF)
        else:
            pairs += product(erased, keys, HALF)
    pairs = weighed(pairs, log, token, good, head, H, C, GATE, SHIFTED, False)
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
    erase: tl.tensor, k: tl.tensor, target: tl.tensor, write: tl.tensor, written: tl.tensor,
    log: tl.tensor, inverses: tl.tensor, first: tl.tensor, states: tl.tensor, updates: tl.tensor,
    last: tl.tensor, bounds: tl.tensor, slots: tl.tensor, length: tl.tensor, H: tl.constexpr,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    GATE: tl.constexpr, SHIFTED: tl.constexpr, WRITE: tl.constexpr, PACKED: tl.constexpr,
    HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Sweep U = T (X - (e enter) S), S' = total S + (k leave)^T U of one (row, head, value tile).

    WRITE adds (write leave)^T written to S'.
    """
    row, head = row_and_head(H)
    key = tl.arange(0, BK)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    i, j = square(C)
    start, stop, slot, count = row_place(row, bounds, slots, length, C, PACKED)
    state = state_of(first, row * H + head, key, value, K, V)
    for chunk in range(0, count):
        place = (slot + chunk) * H + head
        keep_state(states, state, place, key, value, K, V)
        token = start + chunk * C + tl.arange(0, C)
        good = token < stop
        erased = rows_of(erase, token, good, head, key, H, K).to(tl.float32)
        keys = across_of(k, token, good, head, key, H, K).to(tl.float32)
        rest = rows_of(target, token, good, head, value, H, V).to(tl.float32)
        inverse = tl.load(inverses + place * C * C + i * C + j)
        if GATE > 0:
            logs = logs_of(log, token, good, head, key, H, K, GATE)
            erased *= decays(until(i, j, C, SHIFTED), logs, GATE)
        rest -= product(erased, state, HALF)
        if WRITE:
            other = across_of(write, token, good, head, key, H, K).to(tl.float32)
        if GATE > 0:
            across = logs_across_of(log, token, good, head, key, H, K, GATE)
            state *= total_decay(across, GATE)
            leave = decays_across(across, beyond(j, i, C), GATE)
            keys *= leave
            if WRITE:
                other *= leave
        update = product(inverse, rest, HALF)
        keep_rows(updates, update, token, good, head, value, H, V)
        state += product(keys, update, HALF)
        if WRITE:
            values = rows_of(written, token, good, head, value, H, V)
            state += product(other, values, HALF)
    keep_state(last, state, row * H + head, key, value, K, V)


@kernel
def retreat_kernel(
    q: tl.tensor, erase: tl.tensor, k: tl.tensor, d_out: tl.tensor, log: tl.tensor,
    inverses: tl.tensor, first: tl.tensor, flows: tl.tensor, d_update: tl.tensor,
    d_target: tl.tensor, last: tl.tensor, bounds: tl.tensor, slots: tl.tensor, length: tl.tensor,
    scale: tl.tensor, H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr, SHIFTED: tl.constexpr,
    PACKED: tl.constexpr, HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Sweep `update_kernel` backwards: dX = T^T dU, and the gradient of every chunk's end state.

    `d_update` holds what a chunk's own outputs give dU. `first` arrives at the end of the row and
    `last` leaves at its start.
    """
    row, head = row_and_head(H)
    key = tl.arange(0, BK)
    value = tl.program_id(1) * BV + tl.arange(0, BV)
    i, j = square(C)
    start, stop, slot, count = row_place(row, bounds, slots, length, C, PACKED)
    flow = state_of(first, row * H + head, key, value, K, V)
    for step in range(0, count):
        chunk = count - 1 - step
        place = (slot + chunk) * H + head
        keep_state(flows, flow, place, key, value, K, V)
        token = start + chunk * C + tl.arange(0, C)
        good = token < stop
        keys = rows_of(k, token, good, head, key, H, K).to(tl.float32)
        if GATE > 0:
            logs = logs_of(log, token, good, head, key, H, K, GATE)
            keys *= decays(beyond(i, j, C), logs, GATE)
        grad = rows_of(d_update, token, good, head, value, H, V).to(tl.float32)
        grad += product(keys, flow, HALF)
        grad = product(tl.load(inverses + place * C * C + j * C + i), grad, HALF)
        keep_rows(d_target, grad, token, good, head, value, H, V)
        query = across_of(q, token, good, head, key, H, K).to(tl.float32) * scale
        if GATE > 0:
            across = logs_across_of(log, token, good, head, key, H, K, GATE)
            flow *= total_decay(across, GATE)
            query *= decays_across(across, until(j, i, C, 0), GATE)
        flow += product(query, rows_of(d_out, token, good, head, value, H, V), HALF)
        erased = across_of(erase, token, good, head, key, H, K).to(tl.float32)
        if GATE > 0:
            erased *= decays_across(across, until(j, i, C, SHIFTED), GATE)
        flow -= product(erased, grad, HALF)
    keep_state(last, flow, row * H + head, key, value, K, V)


class _Rule(NamedTuple):
    """One call's erase rows E, targets X, its second write's keys, and whether E is SHIFTED."""

    call: Call
    erase: Tensor
    target: Tensor
    write: Tensor | None

    @property
    def shifted(self) -> int:
        return int(self.write is not None)

    @property
    def constants(self) -> dict[str, int]:
        """What these kernels share with the decay family's."""
        names = ("H", "K", "C", "GATE", "PACKED", "HALF")
        return {name: self.call.constants[name] for name in names} | {"SHIFTED": self.shifted}

    @property
    def sweep(self) -> tuple[tuple[int, int], dict[str, int]]:
        """Grid and constants of the two sweeps."""
        c = self.call.constants
        tiles = sweep_tiles(c["K"], c["V"], c["HALF"])
        grid = (self.call.places.rows * c["H"], triton.cdiv(c["V"], tiles["BV"]))
        return grid, {"V": c["V"], **tiles, **self.constants}


class _Solved(NamedTuple):
    """Inverses, chunk states, updates U and the final state."""

    inverses: Tensor
    states: Tensor
    updates: Tensor
    last: Tensor


class _Found(NamedTuple):
    """Gradients to q, erase rows, key, value (X without a second write), write and log decay."""

    q: Tensor
    erase: Tensor
    key: Tensor
    value: Tensor
    write: Tensor | None
    log: Tensor | None


def sweep_tiles(key_dim: int, value_dim: int, half: int) -> dict[str, int]:
    """Tile sides, warps and stages of the sweeps, which hold all key channels of a state.

    What is loaded ahead of a chunk takes shared memory for every operand of a product: more than a
    block has but for bfloat16 (`half` 2) of up to 128 channels.
    """
    wide = block(key_dim, 256)
    return {
        "BK": wide, "BV": block(value_dim, 32 if wide <= 128 else 16), "num_warps": 8,
        "num_stages": 3 if half == 2 and wide <= 128 else 1,
    }  # fmt: skip


def kernels(
    key_dim: int, value_dim: int, gate: int, half: int = 2
) -> list[tuple[Any, dict[str, int]]]:
    """The kernels of this file with their tile sides and warps."""
    del gate
    sweep = sweep_tiles(key_dim, value_dim, half)
    inverse = {"BK": block(key_dim, 32), "num_warps": 8}
    return [(inverse_kernel, inverse), (update_kernel, sweep), (retreat_kernel, sweep)]


def _rule(x: Inputs, log_decay: Tensor | None, cu_seqlens: Tensor | None, chunk: int) -> _Rule:
    """The rule of a call: X = rate V, or what the erase reads of the second write, X = -B V."""
    call = prepare(x.q, x.key, x.value, log_decay, cu_seqlens, chunk, False)
    erase = x.key if x.erase is None else x.erase
    if x.rate is None:
        assert x.write is not None
        erase, write = erase.contiguous(), x.write.contiguous()
        lead = call.but(True, q=erase, k=write)
        return _Rule(call, erase, read_out(lead, call.v, None, -1.0), write)
    rate = x.rate.unsqueeze(-1)
    rated = (erase * rate).to(call.q.dtype).contiguous()
    return _Rule(call, rated, (call.v * rate).to(call.v.dtype), None)


def _solve(rule: _Rule, state: Tensor) -> _Solved:
    """Everything up to the updates."""
    call, write = rule.call, rule.write
    c, where = call.constants, call.places
    shape = (where.chunks, c["H"], c["C"], c["C"])
    inverses = torch.empty(shape, dtype=torch.float32, device=call.q.device)
    inverse_kernel[(where.chunks, c["H"])](
        rule.erase, call.k, call.decay, inverses, *where[:3], where.length,
        BK=block(c["K"], 32), num_warps=8, **rule.constants,
    )  # fmt: skip
    first = state.contiguous()
    states = first.new_empty((where.chunks, c["H"], c["K"], c["V"]))
    updates, last = torch.empty_like(rule.target), torch.empty_like(first)
    grid, constants = rule.sweep
    update_kernel[grid](
        rule.erase, call.k, rule.target, call.k if write is None else write, call.v, call.decay,
        inverses, first, states, updates, last, where.bounds, where.slots, where.length,
        WRITE=write is not None, **constants,
    )  # fmt: skip
    return _Solved(inverses, states, updates, last)


def _retreat(
    rule: _Rule, inverses: Tensor, d_out: Tensor, d_final: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of X, of the states at chunk ends and of the initial state."""
    call, where = rule.call, rule.call.places
    first = d_final.contiguous()
    d_update = value_gradient(call, d_out, None, scale, torch.float32)
    d_target, d_state = torch.empty_like(d_update), torch.empty_like(first)
    c = call.constants
    flows = first.new_empty((where.chunks, c["H"], c["K"], c["V"]))
    grid, constants = rule.sweep
    retreat_kernel[grid](
        call.q, rule.erase, call.k, d_out, call.decay, inverses, first, flows, d_update, d_target,
        d_state, where.bounds, where.slots, where.length, scale, **constants,
    )  # fmt: skip
    return d_target, flows, d_state


def forward(
    x: Inputs, log_decay: Tensor | None, state: Tensor, cu_seqlens: Tensor | None, scale: float,
    chunk: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Output [B, T, H, V] and final state, from the arguments of `operator.delta_op`."""
    with on(x.q.device):
        rule = _rule(x, log_decay, cu_seqlens, chunk)
        call, solved, held = rule.call, _solve(rule, state), None
        if rule.write is not None:
            held = read_out(call.but(k=rule.write), call.v, None, scale, dtype=torch.float32)
        return read_out(call, solved.updates, solved.states, scale, held), solved.last


def backward(
    x: Inputs, log_decay: Tensor | None, state: Tensor, cu_seqlens: Tensor | None, d_out: Tensor,
    d_final: Tensor, scale: float, chunk: int,
) -> tuple[list[Tensor | None], Tensor | None, Tensor]:  # fmt: skip
    """Gradients to every input in the order of `Inputs`, to log_decay, to the initial state."""
    with on(x.q.device):
        d_out = d_out.contiguous()
        rule = _rule(x, log_decay, cu_seqlens, chunk)
        solved = _solve(rule, state)
        d_target, flows, d_state = _retreat(rule, solved.inverses, d_out, d_final, scale)
        read = rule.call.but(v=solved.updates)
        d_q, d_key, d_log = key_gradients(read, solved.states, flows, d_out, scale)
        lost = read.but(bool(rule.shifted), q=rule.erase)
        d_erase, again, also = key_gradients(lost, solved.states, None, -d_target, 1.0)
        found = _Found(d_q, d_erase, d_key + again, d_target, None, _sum(d_log, also))
        if rule.write is not None:
            found = _second_write(rule, rule.write, found, flows, d_out, scale)
    d_log = None if log_decay is None or found.log is None else found.log.to(log_decay.dtype)
    return _raw(x, found), d_log, d_state


def _raw(x: Inputs, found: _Found) -> list[Tensor | None]:
    """Gradients to the inputs from those to rated erase rows and targets."""
    if x.rate is None:
        return [found.q, found.erase, found.key, found.value, None, found.write]
    erase, rate = x.key if x.erase is None else x.erase, x.rate.unsqueeze(-1)
    d_rows = found.erase.float()
    d_rate = (erase * d_rows).sum(-1) + (x.value * found.value).sum(-1)
    d_erase = (d_rows * rate).to(erase.dtype)
    d_value, d_rate = (found.value * rate).to(x.value.dtype), d_rate.to(rate.dtype)
    if x.erase is None:
        return [found.q, None, found.key + d_erase, d_value, d_rate, None]
    return [found.q, d_erase, found.key, d_value, d_rate, None]


def _second_write(
    rule: _Rule, write: Tensor, found: _Found, flows: Tensor, d_out: Tensor, scale: float
) -> _Found:
    """Add the gradients through RWKV-7's second write: X = -B V, O += Pw V, S' += (w leave)^T V."""
    call, d_lead = rule.call.but(k=write), -found.value
    lead = call.but(True, q=rule.erase)
    lost = value_gradient(lead, d_lead, None, 1.0, torch.float32)
    d_value = value_gradient(call, d_out, flows, scale, call.v.dtype, lost)
    d_q, d_write, d_log = key_gradients(call, None, flows, d_out, scale)
    d_erase, again, also = key_gradients(lead, None, None, d_lead, 1.0)
    d_log = _sum(found.log, d_log, also)
    return _Found(found.q + d_q, found.erase + d_erase, found.key, d_value, d_write + again, d_log)


def _sum(*parts: Tensor | None) -> Tensor | None:
    """The sum of the tensors there are."""
    given = [part for part in parts if part is not None]
    return sum(given[1:], given[0]) if given else None
