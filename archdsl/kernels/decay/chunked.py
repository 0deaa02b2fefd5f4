"""Chunk-parallel form of the decay family in plain PyTorch, with a hand-written backward.

Within a chunk of C tokens that starts from state S (GLA, arXiv 2312.06635 §4; SSD, arXiv 2405.21060
§6), with G the cumulative log decay and P[i, j] = (q_i exp(G_i - G_j)) . k_j for j <= i:

    O   = (q exp(G)) S + P V
    S'  = exp(G_C) S + (k exp(G_C - G))^T V

The pair (chunk products, state recurrence) is a registered operator, so that `torch.compile` sees
one node whatever the length, and packed lengths never recompile.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from archdsl.kernels import factors
from archdsl.kernels.common import Window, gather, load, pieces, store, windows
from archdsl.kernels.factors import choose_gate, store_decay
from archdsl.kernels.memory import fresh, fresh_like
from archdsl.kernels.products import product_dtype, sum_product


class Saved(NamedTuple):
    """What the backward needs: chunk states [N + 1, B*H, K, V] and the decay's factors."""

    states: Tensor
    factors: Tensor


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    scale: float,
    chunk: int,
    before: bool,
) -> tuple[Tensor, Saved]:
    """Output [B, T, H, V] and what the backward needs: states at every chunk start and the end."""
    lanes, count = q.shape[0] * q.shape[2], -(-q.shape[1] // chunk)
    states = fresh(state.new_empty((count + 1, lanes, *state.shape[2:])))
    states[0] = state.flatten(0, 1)
    saved = Saved(states, fresh(factors.allocate(log_decay, state, chunk)))
    filled = factors.fill_all(saved.factors, log_decay, chunk)
    out, dtype = fresh_like(v), product_dtype(state.dtype, q, k, v)
    for window in windows(q.shape[1], chunk, lanes):
        if not filled and log_decay is not None:
            factors.fill(saved.factors, log_decay, window)
        gate = choose_gate(saved.factors, log_decay, window, state.dtype, dtype)
        query, key = gate.rows(pieces(q, window), before), gate.columns(pieces(k, window))
        value = load(v, window, dtype)
        for part, start, stop in borders(states, window):
            gate.write(start, part, stop, (key.scaled[part], value[part]))
        result = torch.bmm(gate.pairs(query, key, not before), value)
        starts = states[window.first : window.first + window.chunks].flatten(0, 1).to(dtype)
        store(out, window, result.baddbmm_(query.scaled, starts), scale)
    return out, saved


def borders(states: Tensor, window: Window) -> list[tuple[slice, Tensor, Tensor]]:
    """The rows of each chunk of a window, and the states [B*H, K, V] at its start and its end."""
    lanes, first = states.shape[1], window.first
    kept = states[first : first + window.chunks + 1].unbind()
    return [(slice(i * lanes, (i + 1) * lanes), kept[i], kept[i + 1]) for i in range(window.chunks)]


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    saved: Saved,
    d_out: Tensor,
    d_state: Tensor,
    scale: float,
    chunk: int,
    before: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients to q, k, v, log_decay (empty if None) and the initial state."""
    grads = (fresh_like(q), fresh_like(k), fresh_like(v))
    d_log = fresh_like(log_decay) if log_decay is not None else q.new_empty(0)
    flow = d_state.flatten(0, 1).clone()
    for window in reversed(windows(q.shape[1], chunk, flow.shape[0])):
        flow = _window_backward(
            (q, k, v, d_out), log_decay, saved, flow, (*grads, d_log), window, scale, before
        )
    return *grads, d_log, flow.view(d_state.shape)


def _window_backward(
    inputs: tuple[Tensor, ...],
    log_decay: Tensor | None,
    saved: Saved,
    flow: Tensor,
    grads: tuple[Tensor, ...],
    window: Window,
    scale: float,
    before: bool,
) -> Tensor:
    """Write one window's gradients; return the state gradient at its start."""
    dtype = product_dtype(saved.states.dtype, *inputs)
    gate = choose_gate(saved.factors, log_decay, window, saved.states.dtype, dtype)
    q, k, v, d_out = (pieces(x, window) for x in inputs)
    query, key = gate.rows(q, before), gate.columns(k)
    value, arrived = gather(v, dtype), gather(d_out, dtype, scale)
    states = saved.states[window.first : window.first + window.chunks + 1]
    starts = states[:-1].flatten(0, 1)

    ends = torch.empty_like(starts, dtype=dtype)
    for part, _, _ in reversed(borders(saved.states, window)):
        flow = gate.retreat(flow, part, ends[part])
        flow = sum_product(flow, query.scaled[part].mT, arrived[part])
    d_value = torch.bmm(gate.pairs(query, key, not before).mT, arrived)
    store(grads[2], window, d_value.baddbmm_(key.scaled, ends))
    gate.pairs_backward(torch.bmm(arrived, value.mT), query, key, not before)
    gate.read_backward(query, arrived, starts.to(dtype))
    gate.write_backward(key, value, ends)
    if log_decay is not None:
        store_decay(grads[3], window, gate.backward([query], [key], states, ends))
    query.store(grads[0], window)
    key.store(grads[1], window)
    return flow
