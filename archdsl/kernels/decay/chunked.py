"""Chunk-parallel form of the decay family in plain PyTorch, with a hand-written backward.

Within a chunk of C tokens that starts from state S (GLA, arXiv 2312.06635 §4; SSD, arXiv 2405.21060
§6), with G the cumulative log decay and P[i, j] = (q_i exp(G_i - G_j)) . k_j for j <= i:

    O   = (q exp(G)) S + P V
    S'  = exp(G_C) S + (k exp(G_C - G))^T V

The pair (chunk products, state recurrence) is a registered operator, so that `torch.compile` sees
one node whatever the length, and packed lengths never recompile.
"""

import torch
from torch import Tensor

from archdsl.kernels.common import Window, load, store, windows
from archdsl.kernels.gates import diagonal, load_gate, store_gate
from archdsl.kernels.memory import fresh_like, on_huge_pages
from archdsl.kernels.products import product_dtype


def advance(states: Tensor, writes: Tensor, total: Tensor, window: Window) -> Tensor:
    """Fill `states[first + 1 ...]` from chunk sums `writes`; return the window's start states.

    `states` [N + 1, B*H, K, V], `writes` [L, K, V], `total` [L, W, 1]; the result is [L, K, V].
    """
    first, lanes = window.first, states.shape[1]
    for chunk in range(window.chunks):
        part = slice(chunk * lanes, (chunk + 1) * lanes)
        start = states[first + chunk]
        torch.addcmul(writes[part], total[part], start, out=states[first + chunk + 1])
    return states[first : first + window.chunks].flatten(0, 1)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    scale: float,
    chunk: int,
    before: bool,
) -> tuple[Tensor, Tensor]:
    """Output [B, T, H, V] and the states at every chunk start and the end, [N + 1, B*H, K, V]."""
    batch, length, heads, _ = q.shape
    lanes = batch * heads
    count = -(-length // chunk)
    states = on_huge_pages(state.new_empty((count + 1, lanes, *state.shape[2:])))
    states[0] = state.flatten(0, 1)
    out, dtype = fresh_like(v), product_dtype(state.dtype, q, k, v)
    for window in windows(length, chunk, lanes):
        query = load(q, window, dtype).mul_(scale)
        key, value = load(k, window, dtype), load(v, window, dtype)
        gate = load_gate(log_decay, q, window, state.dtype, dtype)
        writes = torch.bmm((key * gate.leave()).mT, value)
        starts = advance(states, writes, gate.total(), window).to(dtype)
        result = torch.bmm(gate.pairs(query, key, before, not before), value)
        store(out, window, result.baddbmm_(query.mul_(gate.enter(before)), starts))
    return out, states


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    states: Tensor,
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
    lanes = flow.shape[0]
    for window in reversed(windows(q.shape[1], chunk, lanes)):
        flow = _window_backward(
            (q, k, v, d_out), log_decay, states, flow, (*grads, d_log), window, scale, before
        )
    return *grads, d_log, flow.view(d_state.shape)


def retreat(flow: Tensor, reads: Tensor, total: Tensor, chunks: int) -> tuple[Tensor, Tensor]:
    """State gradients through a window, backwards: (at each chunk's end [L, K, V], at its start).

    `flow` [B*H, K, V] arrives at the window's end; `reads` [L, K, V] are the chunks' own reads.
    """
    lanes = flow.shape[0]
    ends = torch.empty_like(reads)
    for chunk in reversed(range(chunks)):
        part = slice(chunk * lanes, (chunk + 1) * lanes)
        ends[part] = flow
        flow = torch.addcmul(reads[part], total[part], flow)
    return ends, flow


def _window_backward(
    inputs: tuple[Tensor, ...],
    log_decay: Tensor | None,
    states: Tensor,
    flow: Tensor,
    grads: tuple[Tensor, ...],
    window: Window,
    scale: float,
    before: bool,
) -> Tensor:
    """Write one window's gradients; return the state gradient at its start."""
    dtype = product_dtype(states.dtype, *inputs)
    query, key, value, d_out = (load(x, window, dtype) for x in inputs)
    gate = load_gate(log_decay, inputs[0], window, states.dtype, dtype)
    query.mul_(scale)
    kept = states[window.first : window.first + window.chunks].flatten(0, 1)
    starts = kept.to(dtype)
    enter, leave = gate.enter(before), gate.leave()

    reads = torch.bmm((query * enter).mT, d_out)
    ends, flow = retreat(flow, reads, gate.total(), window.chunks)
    products = gate.pairs(query, key, before, not before)
    d_value = torch.bmm(products.mT, d_out).baddbmm_(key * leave, ends)
    d_products = torch.bmm(d_out, value.mT)
    own = None if before else diagonal(d_products)
    d_query, d_key = gate.pairs_backward(d_products, query, key, before)
    d_query.addcmul_(torch.bmm(d_out, starts.mT), enter)
    d_leaving = torch.bmm(value, ends.mT).mul_(leave)

    if log_decay is not None:
        through = gate.total().squeeze(2) * (kept * ends).sum(2)
        wide = states.dtype  # what follows cancels to a large part
        row, col = query.to(wide) * d_query, (key.to(wide) * d_key).neg_()
        rows, shifted = (col, row) if before else (row.add_(col), None)
        store_gate(grads[3], window, gate.backward(rows, shifted, key * d_leaving, through))
    d_key.add_(d_leaving)
    if own is not None:
        d_query.addcmul_(own, key)
        d_key.addcmul_(own, query)
    for grad, value_ in zip(grads, (d_query.mul_(scale), d_key, d_value), strict=False):
        store(grad, window, value_)
    return flow
