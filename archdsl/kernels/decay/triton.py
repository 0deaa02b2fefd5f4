"""The decay family in Triton: the algebra of `chunked.py`, one set of kernels for every gate.

A gate is data: GATE 0 has none, 1 one decay per head and token, 2 one per key channel; SHIFTED reads
before the write. The forward sweeps the chunks once for the state each starts from, then computes
all outputs in parallel. The backward sweeps again, and backwards for the states' gradients, so
nothing is kept from the forward (GLA, arXiv 2312.06635 §4; SSD, arXiv 2405.21060 §6).
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.triton_common import (
    INTERPRETED,
    Places,
    across_of,
    beyond,
    block,
    channel_pairs,
    channel_pairs_across,
    channel_pairs_backward,
    chunk_place,
    chunk_size,
    enter_decay,
    floored,
    half,
    keep_rows,
    kernel,
    leave_decay,
    log_of,
    on,
    pair_decay,
    places,
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
    row, head = tl.program_id(0).to(tl.int64) // H, tl.program_id(0).to(tl.int64) % H
    key = tl.program_id(1) * BK + tl.arange(0, BK)
    value = tl.program_id(2) * BV + tl.arange(0, BV)
    here = tl.arange(0, C)
    i, j = here[:, None], here[None, :]
    start, stop, slot, count = row_place(row, bounds, slots, length, C, PACKED)
    tile = key[:, None] * V + value[None, :]
    inside = (key[:, None] < K) & (value[None, :] < V)
    state = tl.load(first + (row * H + head) * K * V + tile, mask=inside, other=0.0)
    for step in range(0, count):
        chunk = step
        if REVERSE:
            chunk = count - 1 - step
        tl.store(states + ((slot + chunk) * H + head) * K * V + tile, state, mask=inside)
        token = start + chunk * C + here
        good = token < stop
        keys = across_of(left, token, good, head, key, H, K).to(tl.float32)
        values = rows_of(right, token, good, head, value, H, V)
        if GATE == 1:
            decay = log_of(log, token, good, head, H)
            state = state * tl.exp(tl.sum(decay, axis=0))
            if REVERSE:
                keys = keys * enter_decay(decay, C, SHIFTED)[None, :]
            else:
                keys = keys * leave_decay(decay, C)[None, :]
        if GATE == 2:
            decays = floored(across_of(log, token, good, head, key, H, K))
            state = state * tl.exp(tl.sum(decays, axis=1))[:, None]
            if REVERSE:
                keys = keys * tl.exp(sums_across(decays, until(j, i, C, SHIFTED)))
            else:
                keys = keys * tl.exp(sums_across(decays, beyond(j, i, C)))
        state += product(keys * scale, values, HALF)
    tl.store(last + (row * H + head) * K * V + tile, state, mask=inside)


@kernel
def output_kernel(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, log: tl.tensor, states: tl.tensor, out: tl.tensor,
    owner: tl.tensor, bounds: tl.tensor, slots: tl.tensor, length: tl.tensor, scale: tl.tensor,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, GATE: tl.constexpr, SHIFTED: tl.constexpr, PACKED: tl.constexpr,
    HALF: tl.constexpr,
) -> None:  # fmt: skip
    """O = scale ((q enter) S + P V) of one (chunk, head, value tile)."""
    chunk, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    value = tl.program_id(2) * BV + tl.arange(0, BV)
    here = tl.arange(0, C)
    i, j = here[:, None], here[None, :]
    start, stop = chunk_place(chunk, owner, bounds, slots, length, C, PACKED)
    token = start + here
    good = token < stop
    pairs = tl.zeros([C, C], dtype=tl.float32)
    result = tl.zeros([C, BV], dtype=tl.float32)
    for begin in range(0, K, BK):
        key = begin + tl.arange(0, BK)
        query = rows_of(q, token, good, head, key, H, K)
        keys = across_of(k, token, good, head, key, H, K)
        tile = key[:, None] * V + value[None, :]
        inside = (key[:, None] < K) & (value[None, :] < V)
        state = tl.load(states + (chunk * H + head) * K * V + tile, mask=inside, other=0.0)
        if GATE == 2:
            decay = floored(rows_of(log, token, good, head, key, H, K))
            across = floored(across_of(log, token, good, head, key, H, K))
            pairs += channel_pairs(query, decay, keys, across, C, SHIFTED, HALF)
            if not SHIFTED:
                own = rows_of(k, token, good, head, key, H, K).to(tl.float32)
                own = tl.sum(query.to(tl.float32) * own, axis=1)
                pairs += tl.where(i == j, own[:, None], 0.0)
            query = query * tl.exp(sums(until(i, j, C, SHIFTED), decay))
        else:
            pairs += product(query, keys, HALF)
        result += product(query, state, HALF)
    if GATE == 1:
        result *= enter_decay(log_of(log, token, good, head, H), C, SHIFTED)[:, None]
        pairs *= pair_decay(log, token, good, head, H, C, SHIFTED, False)
    if GATE == 0:
        pairs = tl.where(i >= j + SHIFTED, pairs, 0.0)
    result += product(pairs, rows_of(v, token, good, head, value, H, V), HALF)
    keep_rows(out, result * scale, token, good, head, value, H, V)


@kernel
def value_kernel(
    q: tl.tensor, k: tl.tensor, log: tl.tensor, d_out: tl.tensor, flows: tl.tensor,
    d_v: tl.tensor, owner: tl.tensor, bounds: tl.tensor, slots: tl.tensor, length: tl.tensor,
    scale: tl.tensor, H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr, SHIFTED: tl.constexpr,
    FLOW: tl.constexpr, PACKED: tl.constexpr, HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Fill dV = scale P^T dO + (k leave) dS' of one (chunk, head, value tile).

    Without FLOW, what the pairs give alone.
    """
    chunk, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    value = tl.program_id(2) * BV + tl.arange(0, BV)
    here = tl.arange(0, C)
    j, i = here[:, None], here[None, :]
    start, stop = chunk_place(chunk, owner, bounds, slots, length, C, PACKED)
    token = start + here
    good = token < stop
    pairs = tl.zeros([C, C], dtype=tl.float32)
    result = tl.zeros([C, BV], dtype=tl.float32)
    for begin in range(0, K, BK):
        key = begin + tl.arange(0, BK)
        query = across_of(q, token, good, head, key, H, K)
        keys = rows_of(k, token, good, head, key, H, K)
        if GATE == 2:
            decay = floored(rows_of(log, token, good, head, key, H, K))
            across = floored(across_of(log, token, good, head, key, H, K))
            pairs += channel_pairs_across(keys, decay, query, across, C, SHIFTED, HALF)
            if not SHIFTED:
                own = rows_of(q, token, good, head, key, H, K).to(tl.float32)
                own = tl.sum(keys.to(tl.float32) * own, axis=1)
                pairs += tl.where(i == j, own[:, None], 0.0)
            if FLOW:
                keys = keys * tl.exp(sums(beyond(j, i, C), decay))
        else:
            pairs += product(keys, query, HALF)
        if FLOW:
            tile = key[:, None] * V + value[None, :]
            inside = (key[:, None] < K) & (value[None, :] < V)
            flow = tl.load(flows + (chunk * H + head) * K * V + tile, mask=inside, other=0.0)
            result += product(keys, flow, HALF)
    if GATE == 1:
        result *= leave_decay(log_of(log, token, good, head, H), C)[:, None]
        pairs *= pair_decay(log, token, good, head, H, C, SHIFTED, True)
    if GATE == 0:
        pairs = tl.where(i >= j + SHIFTED, pairs, 0.0)
    result += product(pairs * scale, rows_of(d_out, token, good, head, value, H, V), HALF)
    keep_rows(d_v, result, token, good, head, value, H, V)


@kernel
def key_kernel(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, log: tl.tensor, states: tl.tensor, flows: tl.tensor,
    d_out: tl.tensor, d_q: tl.tensor, d_k: tl.tensor, d_log: tl.tensor, owner: tl.tensor,
    bounds: tl.tensor, slots: tl.tensor, length: tl.tensor, tokens: tl.tensor, scale: tl.tensor,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, GATE: tl.constexpr, SHIFTED: tl.constexpr, ERASE: tl.constexpr,
    PACKED: tl.constexpr, HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients to q, k and the log decay of one (chunk, head, key tile).

    ERASE is the delta family's second read: of earlier tokens only, and no part in the next state.
    A decay per head gets one part from every key tile, `d_log` [tiles, tokens, H], what lies between
    pairs excepted (`between_kernel`).
    """
    chunk, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    key = tl.program_id(2) * BK + tl.arange(0, BK)
    here = tl.arange(0, C)
    i, j = here[:, None], here[None, :]
    start, stop = chunk_place(chunk, owner, bounds, slots, length, C, PACKED)
    token = start + here
    good = token < stop
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
        tile = (chunk * H + head) * K * V + key[None, :] * V + value[:, None]
        inside = (key[None, :] < K) & (value[:, None] < V)
        state = tl.load(states + tile, mask=inside, other=0.0)
        d_query += product(grad, state, HALF)
        if not ERASE:
            flow = tl.load(flows + tile, mask=inside, other=0.0)
            d_leave += product(values, flow, HALF)
            through += tl.sum(state * flow, axis=0)
    query = rows_of(q, token, good, head, key, H, K).to(tl.float32) * scale
    keys = rows_of(k, token, good, head, key, H, K).to(tl.float32)
    if GATE == 2:
        decay = floored(rows_of(log, token, good, head, key, H, K))
        d_query *= tl.exp(sums(until(i, j, C, SHIFTED), decay))
        d_leave *= tl.exp(sums(beyond(i, j, C), decay))
        through *= tl.exp(tl.sum(decay, axis=0))
        d_rows, d_cols, grads = channel_pairs_backward(
            weight, across, query, keys, decay, C, SHIFTED, HALF
        )
        grads += sums(j >= i + SHIFTED, query * d_query) + sums(j < i, keys * d_leave)
        raw = rows_of(log, token, good, head, key, H, K)
        grads = tl.where(raw < -120.0, 0.0, grads + through[None, :])
        keep_rows(d_log, grads, token, good, head, key, H, K)
    else:
        weight = tl.where(i > j, weight, 0.0)
        across = tl.where(i < j, across, 0.0)
        if GATE == 1:
            decay = log_of(log, token, good, head, H)
            d_query *= enter_decay(decay, C, SHIFTED)[:, None]
            d_leave *= leave_decay(decay, C)[:, None]
            through *= tl.exp(tl.sum(decay, axis=0))
            write = tl.sum(keys * d_leave, axis=1)[None, :]
            read = tl.sum(query * d_query, axis=1)[None, :]
            found = tl.sum(tl.where(j < i, write, 0.0), axis=1) + tl.sum(through, axis=0)
            found += tl.sum(tl.where(j >= i + SHIFTED, read, 0.0), axis=1)
            raw = tl.load(log + token * H + head, mask=good, other=0.0)
            part = (tl.program_id(2) * tokens + token) * H + head
            tl.store(d_log + part, tl.where(raw < -120.0, 0.0, found), mask=good)
            weight *= pair_decay(log, token, good, head, H, C, SHIFTED, False)
            across *= pair_decay(log, token, good, head, H, C, SHIFTED, True)
        d_rows = product(weight, keys, HALF)
        d_cols = product(across, query, HALF)
    d_query += d_rows
    d_keys = d_cols + d_leave
    if (not SHIFTED) and (not ERASE):
        d_query += own[:, None] * keys
        d_keys += own[:, None] * query
    keep_rows(d_q, d_query * scale, token, good, head, key, H, K)
    keep_rows(d_k, d_keys, token, good, head, key, H, K)


@kernel
def between_kernel(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, log: tl.tensor, d_out: tl.tensor, d_log: tl.tensor,
    owner: tl.tensor, bounds: tl.tensor, slots: tl.tensor, length: tl.tensor, scale: tl.tensor,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, SHIFTED: tl.constexpr, PACKED: tl.constexpr, HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Gradient to a decay per head of the pairs it lies between, [tokens, H], of one (chunk, head).

    Sums those pairs and no others, so that a closed gate's is not a difference of large sums.
    """
    chunk, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    here = tl.arange(0, C)
    i, j = here[:, None], here[None, :]
    start, stop = chunk_place(chunk, owner, bounds, slots, length, C, PACKED)
    token = start + here
    good = token < stop
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
    tl.store(d_log + token * H + head, tl.where(raw < -120.0, 0.0, found), mask=good)


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


def read_out(call: Call, value: Tensor, states: Tensor, scale: float) -> Tensor:
    """Output [B, T, H, V] of values written and states at chunk starts."""
    c, where = call.constants, call.places
    out = torch.empty_like(call.v)
    grid = (where.chunks, c["H"], triton.cdiv(c["V"], c["BV"]))
    output_kernel[grid](
        call.q, call.k, value, call.decay, states, out, *where[:3], where.length, scale, **c
    )
    return out


def value_gradient(
    call: Call, d_out: Tensor, flows: Tensor | None, scale: float, dtype: torch.dtype
) -> Tensor:
    """Gradient to the values written; without `flows` what the chunk's own outputs give."""
    c, where = call.constants, call.places
    d_v = torch.empty_like(call.v, dtype=dtype)
    grid = (where.chunks, c["H"], triton.cdiv(c["V"], c["BV"]))
    value_kernel[grid](
        call.q, call.k, call.decay, d_out, d_v if flows is None else flows, d_v, *where[:3],
        where.length, scale, FLOW=flows is not None, **c,
    )  # fmt: skip
    return d_v


def key_gradients(
    call: Call, states: Tensor, flows: Tensor | None, d_out: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients to q, k and the log decay (float32); without `flows` those of an erasing read."""
    c, where, log = {**call.constants}, call.places, call.log
    c |= key_tiles(c["K"], c["V"], c["GATE"])
    d_q, d_k = torch.empty_like(call.q), torch.empty_like(call.k)
    grid = (where.chunks, c["H"], triton.cdiv(c["K"], c["BK"]))
    parts = call.q if log is None else _gate_parts(log, grid[2])
    key_kernel[grid](
        call.q, call.k, call.v, call.decay, states, states if flows is None else flows, d_out, d_q,
        d_k, parts, *where[:3], where.length, call.q.shape[0] * call.q.shape[1], scale,
        ERASE=flows is None, **c,
    )  # fmt: skip
    if log is None:
        return d_q, d_k, None
    if log.dim() == 4:
        return d_q, d_k, parts
    between_kernel[grid[:2]](
        call.q, call.k, call.v, log, d_out, parts[-1], *where[:3], where.length, scale,
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
