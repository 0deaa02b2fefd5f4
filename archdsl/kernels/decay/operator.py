"""The chunked decay form as a registered operator: one node for `torch.compile`."""

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from archdsl.kernels import factors
from archdsl.kernels.common import buckets
from archdsl.kernels.decay.chunked import Saved, backward, forward
from archdsl.kernels.decay.flops import backward_flops, flops


@torch.library.custom_op("archdsl::decay", mutates_args=())
def decay_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    cu_seqlens: Tensor | None,
    scale: float,
    chunk: int,
    before: bool,
    fused: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, final state [B, H, K, V], and two buffers for the backward.

    The buffers are empty when packed, or when `fused` runs it in Triton.
    """
    if fused:
        gpu = importlib.import_module("archdsl.kernels.decay.triton")
        result = gpu.forward(q, k, v, log_decay, state, cu_seqlens, scale, chunk, before)
        return *result, state.new_empty(0), state.new_empty(0)
    if cu_seqlens is None:
        out, saved = forward(q, k, v, log_decay, state, scale, chunk, before)
        return out, saved.states[-1].clone().view(state.shape), *saved
    out, final = torch.empty_like(v), state.clone()
    for bucket in buckets(cu_seqlens, chunk):
        pq, pk, pv, log = bucket.gather_all((q, k, v, log_decay))
        tokens, saved = forward(pq, pk, pv, log, state[bucket.rows], scale, chunk, before)
        bucket.scatter(out, tokens)
        final[bucket.rows] = saved.states[-1].view(-1, *state.shape[1:])
    return out, final, state.new_empty(0), state.new_empty(0)


@decay_op.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    cu_seqlens: Tensor | None,
    scale: float,
    chunk: int,
    before: bool,
    fused: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out, final = torch.empty_like(v), torch.empty_like(state)
    if fused or cu_seqlens is not None:
        return out, final, state.new_empty(0), state.new_empty(0)
    count = -(-q.shape[1] // chunk)
    states = state.new_empty((count + 1, state.shape[0] * state.shape[1], *state.shape[2:]))
    return out, final, states, factors.allocate(log_decay, state, chunk)


@torch.library.custom_op("archdsl::decay_backward", mutates_args=())
def decay_backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    states: Tensor,
    decays: Tensor,
    cu_seqlens: Tensor | None,
    d_out: Tensor,
    d_final: Tensor,
    scale: float,
    chunk: int,
    before: bool,
    fused: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `decay_op` to q, k, v, log_decay (empty if None) and the initial state."""
    if fused:
        gpu = importlib.import_module("archdsl.kernels.decay.triton")
        arrived = (state, cu_seqlens, d_out, d_final)
        grads = gpu.backward(q, k, v, log_decay, *arrived, scale, chunk, before)
        return grads[0], grads[1], grads[2], grads[3], grads[4]
    if cu_seqlens is None:
        saved = Saved(states, decays)
        return backward(q, k, v, log_decay, saved, d_out, d_final, scale, chunk, before)
    d_log = q.new_empty(0) if log_decay is None else torch.empty_like(log_decay)
    grads = [*(torch.empty_like(x) for x in (q, k, v)), d_log]
    d_state = d_final.clone()
    for bucket in buckets(cu_seqlens, chunk):
        pq, pk, pv, log = bucket.gather_all((q, k, v, log_decay))
        _, saved = forward(pq, pk, pv, log, state[bucket.rows], scale, chunk, before)
        d_part, flow = bucket.gather(d_out), d_final[bucket.rows]
        *found, flow = backward(pq, pk, pv, log, saved, d_part, flow, scale, chunk, before)
        bucket.scatter_all(grads, found)
        d_state[bucket.rows] = flow
    return grads[0], grads[1], grads[2], grads[3], d_state


@decay_backward_op.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    states: Tensor,
    decays: Tensor,
    cu_seqlens: Tensor | None,
    d_out: Tensor,
    d_final: Tensor,
    scale: float,
    chunk: int,
    before: bool,
    fused: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    d_log = torch.empty_like(log_decay) if log_decay is not None else q.new_empty(0)
    d_q, d_k, d_v = (torch.empty_like(x) for x in (q, k, v))
    return d_q, d_k, d_v, d_log, torch.empty_like(state)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, log_decay, state, cu_seqlens, *ctx.options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, log_decay, state, *output[2:], cu_seqlens)


def _differentiate(
    ctx: Any, d_out: Tensor | None, d_final: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    q, k, v, log_decay, state, states, decays, cu_seqlens = ctx.saved_tensors
    d_out = torch.zeros_like(v) if d_out is None else d_out
    d_final = torch.zeros_like(state) if d_final is None else d_final
    found = decay_backward_op(
        q, k, v, log_decay, state, states, decays, cu_seqlens, d_out, d_final, *ctx.options
    )
    d_log = found[3] if log_decay is not None else None
    return found[0], found[1], found[2], d_log, found[4], None, None, None, None, None


decay_op.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.archdsl.decay)
def _count(q: Any, k: Any, v: Any, log: Any, *rest: Any, out_shape: Any = None, **_: Any) -> int:
    batch, length, heads, key_dim = q
    per_channel = log is not None and len(log) == 4
    return flops(batch, length, heads, key_dim, v[3], chunk=rest[3], per_channel=per_channel)


@register_flop_formula(torch.ops.archdsl.decay_backward)
def _count_backward(
    q: Any, k: Any, v: Any, log: Any, state: Any, states: Any, decays: Any, bounds: Any,
    *rest: Any, **_: Any,
) -> int:  # fmt: skip
    """Packed sequences, and the Triton form, keep no states: they go forward again."""
    again = _count(q, k, v, log, state, bounds, *rest[2:]) if not all(states) else 0
    batch, length, heads, key_dim = q
    return again + backward_flops(batch, length, heads, key_dim, v[3], chunk=rest[3])
