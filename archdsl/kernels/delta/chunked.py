"""Chunk-parallel form of the delta family in plain PyTorch, with a hand-written backward.

One algebra serves every member (WY transform: DeltaNet, arXiv 2406.06484 §3; Gated DeltaNet,
arXiv 2412.06464 §3.3). With start state S, cumulative log decay G, erase rows e and write keys k,
the rate inside k:

    A[i, j] = (e_i exp(G_i - G_j)) . k_j for j < i,      (I + A) U = X - (e exp(G)) S
    O  = (q exp(G)) S + P U,      S' = exp(G_C) S + (k exp(G_C - G))^T U

Delta rule: X = v. RWKV-7 (arXiv 2503.14456) erases from the undecayed state, so its erase rows -a
use the G before their own token; its pairs (w, v) are written besides: X = -B V with B the pairs of
e and w, O gains the pairs of q and w, and S' gains (w exp(G_C - G))^T V. The rows are kept as -e, so
that all of these are sums.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from archdsl.kernels import factors
from archdsl.kernels.common import Window, gather, load, pieces, store, windows
from archdsl.kernels.decay.chunked import borders
from archdsl.kernels.factors import choose_gate, store_decay
from archdsl.kernels.gates import Gate, Operand
from archdsl.kernels.memory import fresh, fresh_like
from archdsl.kernels.products import product_dtype, sum_product
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
    """What the backward needs.

    Chunk states [N + 1, B*H, K, V], the decay's factors, inverses [N*B*H, C, C] and updates U
    [N*B*H, C, V].
    """

    states: Tensor
    factors: Tensor
    inverses: Tensor
    updates: Tensor


class _Part(NamedTuple):
    """The operands of one window: queries, negative erase rows, keys, values, second write keys."""

    query: Operand
    erase: Operand
    key: Operand
    value: Tensor
    write: Operand | None

    @property
    def rows(self) -> list[Operand]:
        """What reads the states."""
        return [self.query, self.erase]

    @property
    def columns(self) -> list[Operand]:
        """What is written."""
        return [self.key] if self.write is None else [self.key, self.write]


def _load(x: Inputs, gate: Gate, window: Window) -> _Part:
    key = pieces(x.key, window)
    erase = key if x.erase is None else pieces(x.erase, window)
    rate = None if x.rate is None else load(x.rate.unsqueeze(-1), window, gate.wide)
    return _Part(
        gate.rows(pieces(x.q, window)),
        gate.rows(erase, shifted=x.write is not None, negative=True),
        gate.columns(key, rate),
        load(x.value, window, gate.dtype),
        None if x.write is None else gate.columns(pieces(x.write, window)),
    )


def _precision(x: Inputs, wide: torch.dtype) -> torch.dtype:
    """The dtype of the products of a call whose states are in `wide`."""
    given = (x.q, x.erase, x.key, x.value, x.write)
    return product_dtype(wide, *(part for part in given if part is not None))


def allocate(q: Tensor, log_decay: Tensor | None, state: Tensor, chunk: int) -> Saved:
    """Unfilled buffers for what the backward needs."""
    lanes, count = q.shape[0] * q.shape[2], -(-q.shape[1] // chunk)
    key_dim, value_dim = state.shape[2:]
    return Saved(
        state.new_empty((count + 1, lanes, key_dim, value_dim)),
        factors.allocate(log_decay, state, chunk),
        state.new_empty((count * lanes, chunk, chunk)),
        state.new_empty((count * lanes, chunk, value_dim)),
    )


def forward(
    x: Inputs, log_decay: Tensor | None, state: Tensor, scale: float, chunk: int
) -> tuple[Tensor, Saved]:
    """Output [B, T, H, V] and what the backward needs."""
    saved = Saved(*map(fresh, allocate(x.q, log_decay, state, chunk)))
    saved.states[0] = state.flatten(0, 1)
    filled = factors.fill_all(saved.factors, log_decay, chunk)
    out, dtype = fresh_like(x.value), _precision(x, state.dtype)
    for window in windows(x.q.shape[1], chunk, saved.states.shape[1]):
        if not filled and log_decay is not None:
            factors.fill(saved.factors, log_decay, window)
        gate = choose_gate(saved.factors, log_decay, window, state.dtype, dtype)
        store(out, window, _window_forward(_load(x, gate, window), gate, saved, window), scale)
    return out, saved


def _window_forward(x: _Part, gate: Gate, saved: Saved, window: Window) -> Tensor:
    """The window's output [L, C, V], not scaled; fills its part of `saved`."""
    inverse, update = _kept(saved, window)
    # exact: equal keys would add up equal errors of their products
    invert_unit_lower(gate.pairs(x.erase, x.key, False, exact=True), inverse)
    target = x.value
    if x.write is not None:
        target = torch.bmm(gate.pairs(x.erase, x.write, False), x.value)
    for part, start, stop in borders(saved.states, window):
        rest = torch.baddbmm(target[part], x.erase.scaled[part], start.to(gate.dtype))
        _solve(inverse[part], rest, update[part])
        writes = [(x.key.scaled[part], update[part].to(gate.dtype))]
        if x.write is not None:
            writes.append((x.write.scaled[part], x.value[part]))
        gate.write(start, part, stop, *writes)
    starts = saved.states[window.first : window.first + window.chunks].flatten(0, 1)
    out = torch.bmm(gate.pairs(x.query, x.key, True), update.to(gate.dtype))
    out.baddbmm_(x.query.scaled, starts.to(gate.dtype))
    if x.write is not None:
        out.baddbmm_(gate.pairs(x.query, x.write, True), x.value)
    return out


def _kept(saved: Saved, window: Window) -> tuple[Tensor, Tensor]:
    """The window's inverses [L, C, C] and updates [L, C, V]."""
    lanes = saved.states.shape[1]
    span = slice(window.first * lanes, (window.first + window.chunks) * lanes)
    return saved.inverses[span], saved.updates[span]


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
        gate = choose_gate(saved.factors, log_decay, window, flow.dtype, dtype)
        part = _load(x, gate, window)
        arrived = gather(pieces(d_out, window), dtype, scale)
        d_value, ends, flow = _window_backward(part, gate, saved, arrived, flow, window)
        if d_log is not None:
            states = saved.states[window.first : window.first + window.chunks + 1]
            store_decay(d_log, window, gate.backward(part.rows, part.columns, states, ends))
        _store(part, d_value, grads, window)
    return grads, d_log, flow.view(d_state.shape)


def _window_backward(
    x: _Part, gate: Gate, saved: Saved, d_out: Tensor, flow: Tensor, window: Window
) -> tuple[Tensor, Tensor, Tensor]:
    """Add to the operands' gradients; those to the values, of `Gate.retreat`, and to the start."""
    inverse, kept = _kept(saved, window)
    update = kept.to(gate.dtype)
    starts = saved.states[window.first : window.first + window.chunks].flatten(0, 1)
    starts = starts.to(gate.dtype)
    d_update = torch.bmm(gate.pairs(x.query, x.key, True).mT, d_out)
    ends, d_target = torch.empty_like(starts), torch.empty_like(d_update)
    for part, _, _ in reversed(borders(saved.states, window)):
        flow = gate.retreat(flow, part, ends[part])
        rest = d_update[part].baddbmm_(x.key.scaled[part], ends[part])
        _solve(inverse[part].mT, rest, d_target[part])
        flow = sum_product(flow, x.query.scaled[part].mT, d_out[part])
        flow = sum_product(flow, x.erase.scaled[part].mT, d_target[part])
    _operand_gradients(x, gate, x.key, update, d_out, d_target, ends)
    gate.read_backward(x.query, d_out, starts)
    gate.read_backward(x.erase, d_target, starts)
    if x.write is None:
        return d_target, ends, flow
    d_value = torch.bmm(gate.pairs(x.erase, x.write, False).mT, d_target)
    d_value.baddbmm_(gate.pairs(x.query, x.write, True).mT, d_out)
    d_value.baddbmm_(x.write.scaled, ends)
    _operand_gradients(x, gate, x.write, x.value, d_out, d_target, ends)
    return d_value, ends, flow


def _operand_gradients(
    x: _Part, gate: Gate, key: Operand, value: Tensor, d_out: Tensor, d_target: Tensor, ends: Tensor
) -> None:
    """Add the gradients through writes `key value^T`: read, erased later, and left at the end."""
    gate.pairs_backward(torch.bmm(d_out, value.mT), x.query, key, True)
    gate.pairs_backward(torch.bmm(d_target, value.mT), x.erase, key, False)
    gate.write_backward(key, value, ends)


def _store(x: _Part, d_value: Tensor, grads: list[Tensor | None], window: Window) -> None:
    """Write a window's complete gradients to the raw inputs, in the order of `Inputs`."""
    d_query, d_erase, d_key, value, d_rate, d_write = grads
    if d_rate is not None:
        store(d_rate.unsqueeze(-1), window, x.key.rate_gradient())
    for target, operand in ((d_query, x.query), (d_erase, x.erase), (d_write, x.write)):
        if target is not None and operand is not None:
            operand.store(target, window)
    assert d_key is not None
    assert value is not None
    store(value, window, d_value)
    if d_erase is None:  # what is written is erased
        store(d_key, window, x.key.weighted().add_(x.erase.weighted()))
    else:
        x.key.store(d_key, window)
