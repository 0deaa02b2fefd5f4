"""The decay family in Triton: the algebra of `chunked.py`, one set of kernels for every gate.

A gate is data: GATE 0 has none, 1 one decay per head and token, 2 one per key channel; SHIFTED reads
before the write. The forward sweeps the chunks once for the state each starts from, then computes
all outputs in parallel. The backward sweeps again, and backwards for the states' gradients, so
nothing is kept from the forward (GLA, arXiv 2312.06635 §4; SSD, arXiv 2405.21060 §6).

The delta family reads and writes through the same kernels: STATE reads the state a chunk starts
from, FLOW writes to the one it ends with, ADD adds to what another read or write gave.
"""

from typing import Any, NamedTuple, Self

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.triton_common import (
    Places,
    across_of,
    beyond,
    block,
    channel_pairs,
    channel_pairs_across,
    channel_pairs_backward,
    chunk_and_head,
    chunk_size,
    chunk_tokens,
    decays,
    decays_across,
    half,
    keep_rows,
    keep_state,
    kernel,
    logs_across_of,
    logs_of,
    on,
    pair_decay,
    places,
    product,
    row_and_head,
    row_place,
    rows_of,
    square,
    state_across_of,
    state_of,
    sums,
    total_decay,
    until,
    weighed,
)
from archdsl.kernels.triton_common import loop as range


@kernel
def state_kernel(
    left: tl.tensor, right: tl.tensor, log: tl.tensor, first: tl.tensor, states: tl.tensor,
    last: tl.tensor, bounds: tl.tensor, slots: tl.tensor, length: tl.tensor, scale: tl.tensor,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, GATE: tl.constexpr, SHIFTED: tl.constexpr, REVERSE: tl.constexpr,
    PACKED: tl.constexpr, HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Sweep S = total S + (left weight)^T right over the chunks of one (row, head, tile).

    `states` [chunks, H, K, V] receives S before each chunk: the state it starts from (left = k), or
    if REVERSE the gradient of the state it ends with (left = q, right = d_out). `first` and `last`
    [rows, H, K, V].
    """
    row, head = row_and_head(H)
    key = tl.program_id(1) * BK + tl.arange(0, BK)
    value = tl.program_id(2) * BV + tl.arange(0, BV)
    i, j = square(C)
    start, stop, slot, count = row_place(row, bounds, slots, length, C, PACKED)
    state = state_of(first, row * H + head, key, value, K, V)
    for step in range(0, count):
        chunk = step
        if REVERSE:
            chunk = count - 1 - step
        keep_state(states, state, (slot + chunk) * H + head, key, value, K, V)
        token = start + chunk * C + tl.arange(0, C)
        good = token < stop
        keys = across_of(left, token, good, head, key, H, K).to(tl.float32)
        values = rows_of(right, token, good, head, value, H, V)
        if GATE > 0:
            logs = logs_across_of(log, token, good, head, key, H, K, GATE)
            state = state * total_decay(logs, GATE)
            if REVERSE:
                keys = keys * decays_across(logs, until(j, i, C, SHIFTED), GATE)
            else:
                keys = keys * decays_across(logs, beyond(j, i, C), GATE)
        state += product(keys * scale, values, HALF)
    keep_state(last, state, row * H + head, key, value, K, V)


@kernel
def output_kernel(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, log: tl.tensor, states: tl.tensor, base: tl.tensor,
    out: tl.tensor, owner: tl.tensor, bounds: tl.tensor, slots: tl.tensor, length: tl.tensor,
    scale: tl.tensor, H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr, SHIFTED: tl.constexpr,
    STATE: tl.constexpr, ADD: tl.constexpr, PACKED: tl.constexpr, HALF: tl.constexpr,
) -> None:  # fmt: skip
    """O = scale ((q enter) S + P V) of one (chunk, head, value tile), and `base` if ADD."""
    chunk, head = chunk_and_head()
    value = tl.program_id(2) * BV + tl.arange(0, BV)
    i, j = square(C)
    token, good = chunk_tokens(chunk, owner, bounds, slots, length, C, PACKED)
    pairs = tl.zeros([C, C], dtype=tl.float32)
    result = tl.zeros([C, BV], dtype=tl.float32)
    for begin in range(0, K, BK):
        key = begin + tl.arange(0, BK)
        query = rows_of(q, token, good, head, key, H, K)
        keys = across_of(k, token, good, head, key, H, K)
        if GATE == 2:
            logs = logs_of(log, token, good, head, key, H, K, GATE)
            across = logs_across_of(log, token, good, head, key, H, K, GATE)
            pairs += channel_pairs(query, logs, keys, across, C, SHIFTED, HALF)
            if not SHIFTED:
                own = rows_of(k, token, good, head, key, H, K).to(tl.float32)
                own = tl.sum(query.to(tl.float32) * own, axis=1)
                pairs += tl.where(i == j, own[:, None], 0.0)
            if STATE:
                query = query * decays(until(i, j, C, SHIFTED), logs, GATE)
        else:
            pairs += product(query, keys, HALF)
        if STATE:
            state = state_of(states, chunk * H + head, key, value, K, V)
            result += product(query, state, HALF)
    if GATE == 1 and STATE:
        logs = logs_of(log, token, good, head, value, H, K, GATE)
        result *= decays(until(i, j, C, SHIFTED), logs, GATE)
    pairs = weighed(pairs, log, token, good, head, H, C, GATE, SHIFTED, False)
    result += product(pairs, rows_of(v, token, good, head, value, H, V), HALF)
    result *= scale
    if ADD:
        result += rows_of(base, token, good, head, value, H, V)
    keep_rows(out, result, token, good, head, value, H, V)


@kernel
def value_kernel(
    q: tl.tensor, k: tl.tensor, log: tl.tensor, d_out: tl.tensor, flows: tl.tensor,
    base: tl.tensor, d_v: tl.tensor, owner: tl.tensor, bounds: tl.tensor, slots: tl.tensor,
    length: tl.tensor, scale: tl.tensor, H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
    SHIFTED: tl.constexpr, FLOW: tl.constexpr, ADD: tl.constexpr, PACKED: tl.constexpr,
    HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Fill dV = scale P^T dO + (k leave) dS' of one (chunk, head, value tile), and `base` if ADD."""
    chunk, head = chunk_and_head()
    value = tl.program_id(2) * BV + tl.arange(0, BV)
    j, i = square(C)
    token, good = chunk_tokens(chunk, owner, bounds, slots, length, C, PACKED)
    pairs = tl.zeros([C, C], dtype=tl.float32)
    result = tl.zeros([C, BV], dtype=tl.float32)
    for begin in range(0, K, BK):
        key = begin + tl.arange(0, BK)
        query = across_of(q, token, good, head, key, H, K)
        keys = rows_of(k, token, good, head, key, H, K)
        if GATE == 2:
            logs = logs_of(log, token, good, head, key, H, K, GATE)
            across = logs_across_of(log, token, good, head, key, H, K, GATE)
            pairs += channel_pairs_across(keys, logs, query, across, C, SHIFTED, HALF)
            if not SHIFTED:
                own = rows_of(q, token, good, head, key, H, K).to(tl.float32)
                own = tl.sum(keys.to(tl.float32) * own, axis=1)
                pairs += tl.where(i == j, own[:, None], 0.0)
            if FLOW:
                keys = keys * decays(beyond(j, i, C), logs, GATE)
        else:
            pairs += product(keys, query, HALF)
        if FLOW:
            flow = state_of(flows, chunk * H + head, key, value, K, V)
            result += product(keys, flow, HALF)
    if GATE == 1 and FLOW:
        logs = logs_of(log, token, good, head, value, H, K, GATE)
        result *= decays(beyond(j, i, C), logs, GATE)
    pairs = weighed(pairs, log, token, good, head, H, C, GATE, SHIFTED, True)
    result += product(pairs * scale, rows_of(d_out, token, good, head, value, H, V), HALF)
    if ADD:
        result += rows_of(base, token, good, head, value, H, V)
    keep_rows(d_v, result, token, good, head, value, H, V)


@kernel
def key_kernel(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, log: tl.tensor, states: tl.tensor, flows: tl.tensor,
    d_out: tl.tensor, d_q: tl.tensor, d_k: tl.tensor, d_log: tl.tensor, owner: tl.tensor,
    bounds: tl.tensor, slots: tl.tensor, length: tl.tensor, tokens: tl.tensor, scale: tl.tensor,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, GATE: tl.constexpr, SHIFTED: tl.constexpr, STATE: tl.constexpr,
    FLOW: tl.constexpr, PACKED: tl.constexpr, HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients to q, k and the log decay of one (chunk, head, key tile).

    Without FLOW a read of earlier tokens only, as the delta family erases. A decay per head gets one
    part from every key tile, `d_log` [tiles, tokens, H], what lies between pairs excepted
    (`between_kernel`).
    """
    chunk, head = chunk_and_head()
    place = chunk * H + head
    key = tl.program_id(2) * BK + tl.arange(0, BK)
    i, j = square(C)
    token, good = chunk_tokens(chunk, owner, bounds, slots, length, C, PACKED)
    weight = tl.zeros([C, C], dtype=tl.float32)
    across = tl.zeros([C, C], dtype=tl.float32)
    d_query = tl.zeros([C, BK], dtype=tl.float32)
    d_leave = tl.zeros([C, BK], dtype=tl.float32)
    own = tl.zeros([C], dtype=tl.float32)
    through = tl.zeros([BK], dtype=tl.float32)
    for begin in range(0, V, BV):
        value = begin + tl.arange(0, BV)
        grad = rows_of(d_out, token, good, head, value, H, V)
        values = rows_of(v, token, good, head, value, H, V)
        weight += product(grad, across_of(v, token, good, head, value, H, V), HALF)
        across += product(values, across_of(d_out, token, good, head, value, H, V), HALF)
        own += tl.sum(grad.to(tl.float32) * values.to(tl.float32), axis=1)
        if STATE:
            state = state_across_of(states, place, key, value, K, V)
            d_query += product(grad, state, HALF)
        if FLOW:
            flow = state_across_of(flows, place, key, value, K, V)
            d_leave += product(values, flow, HALF)
            if STATE:
                through += tl.sum(state * flow, axis=0)
    query = rows_of(q, token, good, head, key, H, K).to(tl.float32) * scale
    keys = rows_of(k, token, good, head, key, H, K).to(tl.float32)
    if GATE > 0:
        logs = logs_of(log, token, good, head, key, H, K, GATE)
        d_query *= decays(until(i, j, C, SHIFTED), logs, GATE)
        d_leave *= decays(beyond(i, j, C), logs, GATE)
        through *= tl.exp(tl.sum(logs, axis=0))
    if GATE == 2:
        d_rows, d_cols, grads = channel_pairs_backward(
            weight, across, query, keys, logs, C, SHIFTED, HALF
        )
        grads += sums(j >= i + SHIFTED, query * d_query) + sums(j < i, keys * d_leave)
        raw = rows_of(log, token, good, head, key, H, K)
        grads = tl.where(raw < -120.0, 0.0, grads + through[None, :])
        keep_rows(d_log, grads, token, good, head, key, H, K)
    else:
        weight = tl.where(i > j, weight, 0.0)
        across = tl.where(i < j, across, 0.0)
        if GATE == 1:
            write = tl.sum(keys * d_leave, axis=1)[None, :]
            read = tl.sum(query * d_query, axis=1)[None, :]
            found = tl.sum(tl.where(j < i, write, 0.0), axis=1) + tl.sum(through, axis=0)
            found += tl.sum(tl.where(j >= i + SHIFTED, read, 0.0), axis=1)
            raw = tl.load(log + token * H + head, mask=good, other=0.0)
            part = (tl.program_id(2).to(tl.int64) * tokens + token) * H + head
            tl.store(d_log + part, tl.where(raw < -120.0, 0.0, found), mask=good)
            weight *= pair_decay(log, token, good, head, H, C, SHIFTED, False)
            across *= pair_decay(log, token, good, head, H, C, SHIFTED, True)
        d_rows = product(weight, keys, HALF)
        d_cols = product(across, query, HALF)
    d_query += d_rows
    d_keys = d_cols + d_leave
    if (not SHIFTED) and FLOW:
        d_query += own[:, None] * keys
        d_keys += own[:, None] * query
    keep_rows(d_q, d_query * scale, token, good, head, key, H, K)
    keep_rows(d_k, d_keys, token, good, head, key, H, K)


@kernel
def between_kernel(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, log: tl.tensor, d_out: tl.tensor, d_log: tl.tensor,
    owner: tl.tensor, bounds: tl.tensor, slots: tl.tensor, length: tl.tensor, tokens: tl.tensor,
    scale: tl.tensor, H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, SHIFTED: tl.constexpr, PACKED: tl.constexpr,
    HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Gradient to a decay per head of the pairs it lies between, of one (chunk, head).

    It is the last part of `d_log` [tiles + 1, tokens, H], reached by an offset: a pointer to it would
    be aligned for some lengths and not for others, and each case compiles. Sums those pairs and no
    others, so that a closed gate's is not a difference of large sums.
    """
    chunk, head = chunk_and_head()
    i, j = square(C)
    token, good = chunk_tokens(chunk, owner, bounds, slots, length, C, PACKED)
    weight = tl.zeros([C, C], dtype=tl.float32)
    for begin in range(0, V, BV):
        value = begin + tl.arange(0, BV)
        grad = rows_of(d_out, token, good, head, value, H, V)
        weight += product(grad, across_of(v, token, good, head, value, H, V), HALF)
    pairs = tl.zeros([C, C], dtype=tl.float32)
    for begin in range(0, K, BK):
        key = begin + tl.arange(0, BK)
        query = rows_of(q, token, good, head, key, H, K)
        pairs += product(query, across_of(k, token, good, head, key, H, K), HALF)
    weight *= pair_decay(log, token, good, head, H, C, SHIFTED, False)
    over = sums(j >= i + SHIFTED, tl.where(i > j, weight * pairs, 0.0))
    found = tl.sum(tl.where(j < i, over, 0.0), axis=1) * scale
    raw = tl.load(log + token * H + head, mask=good, other=0.0)
    before = tl.full([1], (K + BK - 1) // BK, tl.int64) * tokens
    part = (before + token) * H + head
    tl.store(d_log + part, tl.where(raw < -120.0, 0.0, found), mask=good)


class Call(NamedTuple):
    """Contiguous inputs of one call, and the constants of its kernels."""

    q: Tensor
    k: Tensor
    v: Tensor
    log: Tensor | None
    places: Places
    constants: dict[str, Any]

    @property
    def decay(self) -> Tensor:
        """The log decay; any tensor where there is none."""
        return self.q if self.log is None else self.log

    def but(self, before: bool = False, **changed: Any) -> Self:
        """The call with other tensors, read before the write or after it."""
        constants = {**self.constants, "SHIFTED": int(before)}
        return self._replace(constants=constants, **changed)


def prepare(
    q: Tensor, k: Tensor, v: Tensor, log: Tensor | None, cu_seqlens: Tensor | None, chunk: int,
    before: bool,
) -> Call:  # fmt: skip
    """Gather a call's contiguous inputs, chunk tables and constants."""
    batch, length, heads, key_dim = q.shape
    gate = 0 if log is None else log.dim() - 2
    size = chunk_size(chunk, q.dtype, gate == 2)
    constants = {
        "H": heads, "K": key_dim, "V": v.shape[3], "C": size,
        "GATE": gate, "SHIFTED": int(before),
        "PACKED": cu_seqlens is not None, "HALF": half(q.dtype), **tiles(key_dim, v.shape[3], gate),
    }  # fmt: skip
    tensors = (q.contiguous(), k.contiguous(), v.contiguous())
    where = places(cu_seqlens, batch, length, size, q)
    return Call(*tensors, None if log is None else log.contiguous(), where, constants)


def tiles(key_dim: int, value_dim: int, gate: int) -> dict[str, int]:
    """Tile sides and warps of the forward's kernels, by head widths and gate alone."""
    warps = 8 if gate == 2 else 4
    return {"BK": block(key_dim, 32), "BV": block(value_dim, 64), "num_warps": warps}


def key_tiles(key_dim: int, value_dim: int, gate: int) -> dict[str, int]:
    """Tile sides and warps of `key_kernel`, which holds most at once."""
    wide = 16 if gate == 2 else 32  # a decay per channel spills registers from wider tiles
    return {"BK": block(key_dim, wide), "BV": block(value_dim, 32), "num_warps": 8}


def kernels(key_dim: int, value_dim: int, gate: int) -> list[tuple[Any, dict[str, int]]]:
    """Every kernel with its tile sides and warps."""
    plain, most = tiles(key_dim, value_dim, gate), key_tiles(key_dim, value_dim, gate)
    parallel = [(each, plain) for each in (state_kernel, output_kernel, value_kernel)]
    between = [(between_kernel, most)] if gate == 1 else []
    return [*parallel, (key_kernel, most), *between]


def sweep(
    call: Call, left: Tensor, right: Tensor, first: Tensor, scale: float, reverse: bool
) -> tuple[Tensor, Tensor]:
    """States at every chunk's start (or state gradients at its end) and after the last chunk."""
    c, where = call.constants, call.places
    first = first.contiguous()
    states = first.new_empty((where.chunks, c["H"], c["K"], c["V"]))
    last = torch.empty_like(first)
    grid = (where.rows * c["H"], triton.cdiv(c["K"], c["BK"]), triton.cdiv(c["V"], c["BV"]))
    state_kernel[grid](
        left, right, call.decay, first, states, last, where.bounds, where.slots, where.length,
        scale, REVERSE=reverse, **c,
    )  # fmt: skip
    return states, last


def read_out(
    call: Call,
    value: Tensor,
    states: Tensor | None,
    scale: float,
    base: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Output [B, T, H, V] of values written and, if given, states at chunk starts; `base` added."""
    c, where = call.constants, call.places
    out = torch.empty_like(call.v, dtype=dtype)
    grid = (where.chunks, c["H"], triton.cdiv(c["V"], c["BV"]))
    output_kernel[grid](
        call.q, call.k, value, call.decay, out if states is None else states,
        out if base is None else base, out, *where[:3], where.length, scale,
        STATE=states is not None, ADD=base is not None, **c,
    )  # fmt: skip
    return out


def value_gradient(
    call: Call,
    d_out: Tensor,
    flows: Tensor | None,
    scale: float,
    dtype: torch.dtype,
    base: Tensor | None = None,
) -> Tensor:
    """Gradient to the values written, `base` added; without `flows` through the pairs alone."""
    c, where = call.constants, call.places
    d_v = torch.empty_like(call.v, dtype=dtype)
    grid = (where.chunks, c["H"], triton.cdiv(c["V"], c["BV"]))
    value_kernel[grid](
        call.q, call.k, call.decay, d_out, d_v if flows is None else flows,
        d_v if base is None else base, d_v, *where[:3], where.length, scale,
        FLOW=flows is not None, ADD=base is not None, **c,
    )  # fmt: skip
    return d_v


def key_gradients(
    call: Call, states: Tensor | None, flows: Tensor | None, d_out: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients to q, k and the log decay (float32) of what reads `states` and writes `flows`.

    Without `flows` it reads earlier tokens only.
    """
    c, where, log = {**call.constants}, call.places, call.log
    c |= key_tiles(c["K"], c["V"], c["GATE"])
    d_q, d_k = torch.empty_like(call.q), torch.empty_like(call.k)
    grid = (where.chunks, c["H"], triton.cdiv(c["K"], c["BK"]))
    parts = call.q if log is None else _gate_parts(log, grid[2])
    key_kernel[grid](
        call.q, call.k, call.v, call.decay, d_out if states is None else states,
        d_out if flows is None else flows, d_out, d_q, d_k, parts, *where[:3], where.length,
        call.q.shape[0] * call.q.shape[1], scale,
        STATE=states is not None, FLOW=flows is not None, **c,
    )  # fmt: skip
    if log is None:
        return d_q, d_k, None
    if log.dim() == 4:
        return d_q, d_k, parts
    between_kernel[grid[:2]](
        call.q, call.k, call.v, log, d_out, parts, *where[:3], where.length,
        call.q.shape[0] * call.q.shape[1], scale,
        **{name: c[name] for name in between_kernel.arg_names if name in c}, num_warps=8,
    )  # fmt: skip
    return d_q, d_k, parts.sum(0)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    cu_seqlens: Tensor | None,
    scale: float,
    chunk: int,
    before: bool,
) -> tuple[Tensor, Tensor]:
    """Output [B, T, H, V] and final state, from the arguments of `operator.decay_op`."""
    with on(q.device):
        call = prepare(q, k, v, log_decay, cu_seqlens, chunk, before)
        states, last = sweep(call, call.k, call.v, state, 1.0, False)
        return read_out(call, call.v, states, scale), last


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    cu_seqlens: Tensor | None,
    d_out: Tensor,
    d_final: Tensor,
    scale: float,
    chunk: int,
    before: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients to q, k, v, log_decay (empty if None) and the initial state."""
    with on(q.device):
        call = prepare(q, k, v, log_decay, cu_seqlens, chunk, before)
        d_out = d_out.contiguous()
        states, _ = sweep(call, call.k, call.v, state, 1.0, False)
        flows, d_state = sweep(call, call.q, d_out, d_final, scale, True)
        d_v = value_gradient(call, d_out, flows, scale, v.dtype)
        d_q, d_k, d_log = key_gradients(call, states, flows, d_out, scale)
    if log_decay is None or d_log is None:
        return d_q, d_k, d_v, q.new_empty(0), d_state
    return d_q, d_k, d_v, d_log.to(log_decay.dtype), d_state


def _gate_parts(log_decay: Tensor, tiles: int) -> Tensor:
    """Room for the gate's gradient: as it is per channel, [tiles + 1, B, T, H] per head."""
    shape = log_decay.shape if log_decay.dim() == 4 else (tiles + 1, *log_decay.shape)
    return torch.empty(shape, dtype=torch.float32, device=log_decay.device)
