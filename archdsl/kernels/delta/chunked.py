"""Chunk-parallel form of the delta family in plain PyTorch, with a hand-written backward.

One algebra serves every member (WY transform: DeltaNet, arXiv 2406.06484 §3; Gated DeltaNet,
arXiv 2412.06464 §3.3). With start state S, cumulative log decay G, erase rows e (times b), write
keys k:

    A[i, j] = (e_i exp(G_i - G_j)) . k_j for j < i,      (I + A) U = X - (e exp(G)) S
    O  = (q exp(G)) S + P U,      S' = exp(G_C) S + (k exp(G_C - G))^T U

Delta rule: X = b v. RWKV-7 (arXiv 2503.14456) erases from the undecayed state, so its erase rows -a
use the G before their own token; its pairs (w, v) are written besides: X = -B V with B the pairs of
e and w, O gains the pairs of q and w, and S' gains (w exp(G_C - G))^T V.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from archdsl.kernels.common import Window, load, store, windows
from archdsl.kernels.gates import Gate, diagonal, load_gate, store_gate
from archdsl.kernels.memory import fresh_like, on_huge_pages
from archdsl.kernels.products import add_product, product_dtype
from archdsl.kernels.triangular import invert_unit_lower


class Inputs(NamedTuple):
    """q, erase, key, value [B, T, H, .]; rate [B, T, H] (delta) or write [B, T, H, K] (RWKV-7).

    Without `erase`, what is written to is erased.
    """

    q: Tensor
    erase: Tensor | None
    key: Tensor
    value: Tensor
    rate: Tensor | None
    write: Tensor | None


class Saved(NamedTuple):
    """Chunk states [N + 1, B*H, K, V], inverses [N*B*H, C, C] and updates U [N*B*H, C, V]."""

    states: Tensor
    inverses: Tensor
    updates: Tensor


class _Loaded(NamedTuple):
    """One window: scaled query, raw and rated erase rows and values, keys, second write keys."""

    query: Tensor
    raw_erase: Tensor
    erase: Tensor
    key: Tensor
    raw_value: Tensor
    value: Tensor
    rate: Tensor | None
    write: Tensor | None


def _load(x: Inputs, window: Window, dtype: torch.dtype, scale: float) -> _Loaded:
    query = load(x.q, window, dtype).mul_(scale)
    key, value = load(x.key, window, dtype), load(x.value, window, dtype)
    erase = key if x.erase is None else load(x.erase, window, dtype)
    if x.rate is None:
        assert x.write is not None
        write = load(x.write, window, dtype)
        return _Loaded(query, erase, erase, key, value, value, None, write)
    rate = load(x.rate.unsqueeze(-1), window, dtype)
    return _Loaded(query, erase, erase * rate, key, value, value * rate, rate, None)


def _precision(x: Inputs, wide: torch.dtype) -> torch.dtype:
    """The dtype of the products of a call whose states are in `wide`."""
    given = (x.q, x.erase, x.key, x.value, x.write)
    return product_dtype(wide, *(part for part in given if part is not None))


def allocate(q: Tensor, state: Tensor, chunk: int) -> Saved:
    """Unfilled buffers for what the backward needs."""
    lanes, count = q.shape[0] * q.shape[2], -(-q.shape[1] // chunk)
    key_dim, value_dim = state.shape[2:]
    return Saved(
        on_huge_pages(state.new_empty((count + 1, lanes, key_dim, value_dim))),
        on_huge_pages(state.new_empty((count * lanes, chunk, chunk))),
        on_huge_pages(state.new_empty((count * lanes, chunk, value_dim))),
    )


def forward(
    x: Inputs, log_decay: Tensor | None, state: Tensor, scale: float, chunk: int
) -> tuple[Tensor, Saved]:
    """Output [B, T, H, V] and what the backward needs."""
    saved = allocate(x.q, state, chunk)
    lanes = saved.states.shape[1]
    saved.states[0] = state.flatten(0, 1)
    out, dtype = fresh_like(x.value), _precision(x, state.dtype)
    for window in windows(x.q.shape[1], chunk, lanes):
        part = _load(x, window, dtype, scale)
        gate = load_gate(log_decay, x.q, window, state.dtype, dtype)
        store(out, window, _window_forward(part, gate, saved, window))
    return out, saved


def _window_forward(x: _Loaded, gate: Gate, saved: Saved, window: Window) -> Tensor:
    """The window's output [L, C, V]; fills its part of `saved`."""
    lanes, shifted = saved.states.shape[1], x.write is not None
    span = slice(window.first * lanes, (window.first + window.chunks) * lanes)
    inverse, update = saved.inverses[span], saved.updates[span]
    wide = inverse.dtype  # equal keys would add up equal errors of their products
    pairs = gate.pairs(x.erase.to(wide), x.key.to(wide), shifted, False)
    inverse.copy_(invert_unit_lower(pairs))
    leave, target = gate.leave(), x.value
    writes = None
    if x.write is not None:
        target = torch.bmm(gate.pairs(x.erase, x.write, True, False), x.value).neg_()
        writes = torch.bmm((x.write * leave).mT, x.value)
    _advance(
        saved.states, target, x.erase * gate.enter(shifted), x.key * leave, gate.total(),
        inverse, update, writes, window,
    )  # fmt: skip
    starts = saved.states[window.first : window.first + window.chunks].flatten(0, 1)
    starts = starts.to(gate.dtype)
    out = torch.bmm(gate.pairs(x.query, x.key, False, True), update.to(gate.dtype))
    out.baddbmm_(x.query * gate.enter(), starts)
    if x.write is not None:
        out.baddbmm_(gate.pairs(x.query, x.write, False, True), x.value)
    return out


def _advance(
    states: Tensor,
    target: Tensor,
    entering: Tensor,
    leaving: Tensor,
    total: Tensor,
    inverse: Tensor,
    update: Tensor,
    writes: Tensor | None,
    window: Window,
) -> None:
    """The sequential part: per chunk U = T (X - E S) and S' = total S + L^T U, into the buffers."""
    lanes = states.shape[1]
    for chunk in range(window.chunks):
        part = slice(chunk * lanes, (chunk + 1) * lanes)
        start, stop = states[window.first + chunk], states[window.first + chunk + 1]
        rest = torch.baddbmm(target[part], entering[part], start.to(target.dtype), alpha=-1)
        _solve(inverse[part], rest, update[part])
        torch.mul(start, total[part], out=stop)
        add_product(stop, leaving[part].mT, update[part].to(target.dtype))
        if writes is not None:
            stop.add_(writes[part])


def _solve(inverse: Tensor, rest: Tensor, out: Tensor) -> None:
    """Fill `out` with `inverse rest`, computed in the precision of `inverse`."""
    if out.dtype == inverse.dtype == rest.dtype:
        torch.bmm(inverse, rest, out=out)
    else:
        out.copy_(torch.bmm(inverse, rest.to(inverse.dtype)))


def backward(
    x: Inputs,
    log_decay: Tensor | None,
    saved: Saved,
    d_out: Tensor,
    d_state: Tensor,
    scale: float,
    chunk: int,
) -> tuple[list[Tensor | None], Tensor | None, Tensor]:
    """Gradients to every input in the order of `Inputs`, to log_decay, to the initial state."""
    grads = [None if part is None else fresh_like(part) for part in x]
    d_log = None if log_decay is None else fresh_like(log_decay)
    flow = d_state.flatten(0, 1).clone()
    dtype = _precision(x, flow.dtype)
    for window in reversed(windows(x.q.shape[1], chunk, flow.shape[0])):
        part = _load(x, window, dtype, scale)
        gate = load_gate(log_decay, x.q, window, flow.dtype, dtype)
        d_window = load(d_out, window, dtype)
        found, through, flow = _window_backward(part, gate, saved, d_window, flow, window)
        if d_log is not None:
            store_gate(d_log, window, _gate_backward(part, gate, found, through))
        for grad, value in zip(grads, _raw(part, found, scale, x.erase is None), strict=True):
            if grad is not None and value is not None:
                store(grad if grad.dim() == 4 else grad.unsqueeze(-1), window, value)
    return grads, d_log, flow.view(d_state.shape)


class _Write(NamedTuple):
    """Gradients to one kind of key: below the diagonal, on it [L, C, 1], and through the state."""

    pairs: Tensor
    own: Tensor
    leaving: Tensor


class _Gradients(NamedTuple):
    """Gradients of a window to scaled query, rated erase rows, rated values and both keys.

    Those to the query leave out the diagonal.
    """

    query: Tensor
    erase: Tensor
    value: Tensor
    key: _Write
    write: _Write | None


def _window_backward(
    x: _Loaded, gate: Gate, saved: Saved, d_out: Tensor, flow: Tensor, window: Window
) -> tuple[_Gradients, Tensor, Tensor]:
    """The window's gradients; what its start states give the decay [L, K]; the start's gradient."""
    lanes, shifted = saved.states.shape[1], x.write is not None
    span = slice(window.first * lanes, (window.first + window.chunks) * lanes)
    inverse, update = saved.inverses[span], saved.updates[span].to(gate.dtype)
    kept = saved.states[window.first : window.first + window.chunks].flatten(0, 1)
    starts = kept.to(gate.dtype)
    enter, leave, total = gate.enter(), gate.leave(), gate.total()
    erase_enter = gate.enter(True) if shifted else enter

    d_update = torch.bmm(gate.pairs(x.query, x.key, False, True).mT, d_out)
    reads = torch.bmm((x.query * enter).mT, d_out)
    ends, d_target, flow = _retreat(
        flow, reads, d_update, x.erase * erase_enter, x.key * leave, total, inverse
    )
    d_query, key = _write_pairs(gate, x.query, x.key, d_out, update, ends, leave)
    d_pairs = torch.bmm(d_target, update.mT).neg_()
    d_erase, d_key = gate.pairs_backward(d_pairs, x.erase, x.key, shifted)
    key.pairs.add_(d_key)
    d_query.addcmul_(torch.bmm(d_out, starts.mT), enter)
    d_erase.addcmul_(torch.bmm(d_target, starts.mT), erase_enter, value=-1)
    found = _Gradients(d_query, d_erase, d_target, key, None)
    if x.write is not None:
        found = _second_write(x, x.write, gate, found, d_out, ends, leave)
    return found, total.squeeze(2) * (kept * ends).sum(2), flow


def _write_pairs(
    gate: Gate,
    query: Tensor,
    key: Tensor,
    d_out: Tensor,
    value: Tensor,
    ends: Tensor,
    leave: Tensor,
) -> tuple[Tensor, _Write]:
    """Gradients to queries and keys of writes `key value^T`, read at once and carried to the end."""
    d_pairs = torch.bmm(d_out, value.mT)
    own = diagonal(d_pairs)
    d_query, d_key = gate.pairs_backward(d_pairs, query, key, False)
    return d_query, _Write(d_key, own, torch.bmm(value, ends.mT).mul_(leave))


def _second_write(
    x: _Loaded,
    write: Tensor,
    gate: Gate,
    found: _Gradients,
    d_out: Tensor,
    ends: Tensor,
    leave: Tensor,
) -> _Gradients:
    """Add the gradients through RWKV-7's second write: X = -B V, O += Pw V, S' += (w leave)^T V."""
    d_lead = found.value.neg()
    lead = gate.pairs(x.erase, write, True, False)
    read = gate.pairs(x.query, write, False, True)
    d_value = torch.bmm(lead.mT, d_lead).baddbmm_(read.mT, d_out).baddbmm_(write * leave, ends)
    d_query, keys = _write_pairs(gate, x.query, write, d_out, x.value, ends, leave)
    d_pairs = torch.bmm(d_lead, x.value.mT)
    d_erase, d_write = gate.pairs_backward(d_pairs, x.erase, write, True)
    keys.pairs.add_(d_write)
    d_query, d_erase = found.query.add_(d_query), found.erase.add_(d_erase)
    return _Gradients(d_query, d_erase, d_value, found.key, keys)


def _retreat(
    flow: Tensor,
    reads: Tensor,
    d_update: Tensor,
    entering: Tensor,
    leaving: Tensor,
    total: Tensor,
    inverse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The sequential part backwards: state gradients at chunk ends, of X, and at the start."""
    lanes = flow.shape[0]
    ends, d_target = torch.empty_like(reads), torch.empty_like(d_update)
    for chunk in reversed(range(reads.shape[0] // lanes)):
        part = slice(chunk * lanes, (chunk + 1) * lanes)
        ends[part] = flow
        rest = torch.baddbmm(d_update[part], leaving[part], ends[part])
        _solve(inverse[part].mT, rest, d_target[part])
        flow = torch.addcmul(reads[part], total[part], flow)
        add_product(flow, entering[part].mT, d_target[part], alpha=-1)
    return ends, d_target, flow


def _gate_backward(x: _Loaded, gate: Gate, found: _Gradients, through: Tensor) -> Tensor:
    """Gradient to the log decay [L, C, W]; rows scale with exp(+G), columns with exp(-G).

    Their products cancel to a large part, so they are not rounded before they are added.
    """
    wide = through.dtype
    rows = x.query.to(wide) * found.query
    rows.addcmul_(x.key.to(wide), found.key.pairs, value=-1)
    erased = x.erase.to(wide)
    leaving = x.key * found.key.leaving
    if x.write is None or found.write is None:
        return gate.backward(rows.addcmul_(erased, found.erase), None, leaving, through)
    rows.addcmul_(x.write.to(wide), found.write.pairs, value=-1)
    leaving.addcmul_(x.write, found.write.leaving)
    return gate.backward(rows, erased * found.erase, leaving, through)


def _raw(x: _Loaded, found: _Gradients, scale: float, tied: bool) -> tuple[Tensor | None, ...]:
    """Complete gradients to the raw inputs, in the order of `Inputs`; `tied` keys erase too."""
    d_query = found.query.addcmul_(found.key.own, x.key)
    d_key = _add_up(found.key, x.query)
    if found.write is not None and x.write is not None:
        d_query.addcmul_(found.write.own, x.write).mul_(scale)
        return d_query, found.erase, d_key, found.value, None, _add_up(found.write, x.query)
    assert x.rate is not None
    d_rate = (x.raw_erase * found.erase).sum(2, keepdim=True)
    d_rate += (x.raw_value * found.value).sum(2, keepdim=True)
    d_erase, d_value = found.erase.mul_(x.rate), found.value.mul_(x.rate)
    d_key = d_key.add_(d_erase) if tied else d_key
    return d_query.mul_(scale), d_erase, d_key, d_value, d_rate, None


def _add_up(write: _Write, query: Tensor) -> Tensor:
    """The whole gradient to a write's keys; may overwrite its parts."""
    return write.pairs.add_(write.leaving).addcmul_(write.own, query)
