"""The chunked delta form as a registered operator: one node for `torch.compile`."""

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from archdsl.kernels.common import buckets
from archdsl.kernels.delta.chunked import Inputs, Saved, allocate, backward, forward
from archdsl.kernels.delta.flops import backward_flops, flops


@torch.library.custom_op("archdsl::delta", mutates_args=())
def delta_op(
    q: Tensor,
    erase: Tensor | None,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None,
    write: Tensor | None,
    log_decay: Tensor | None,
    state: Tensor,
    cu_seqlens: Tensor | None,
    scale: float,
    chunk: int,
    fused: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Output, final state, and four buffers for the backward (empty when packed or fused).

    Without `erase`, the key erases: one gradient in place of two to add. `fused` runs in Triton.
    """
    x = Inputs(q, erase, key, value, rate, write)
    if fused:
        gpu = importlib.import_module("archdsl.kernels.delta.triton")
        out, final = gpu.forward(x, log_decay, state, cu_seqlens, scale, chunk)
        return out, final, *_nothing(state)
    if cu_seqlens is None:
        out, saved = forward(x, log_decay, state, scale, chunk)
        return out, saved.states[-1].clone().view(state.shape), *saved
    out, final = torch.empty_like(value), state.clone()
    for bucket in buckets(cu_seqlens, chunk):
        part = Inputs(*bucket.gather_all(x))
        (log,) = bucket.gather_all((log_decay,))
        tokens, saved = forward(part, log, state[bucket.rows], scale, chunk)
        bucket.scatter(out, tokens)
        final[bucket.rows] = saved.states[-1].view(-1, *state.shape[1:])
    return out, final, *_nothing(state)


def _nothing(like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Empty buffers."""
    return like.new_empty(0), like.new_empty(0), like.new_empty(0), like.new_empty(0)


@delta_op.register_fake
def _(
    q: Tensor,
    erase: Tensor | None,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None,
    write: Tensor | None,
    log_decay: Tensor | None,
    state: Tensor,
    cu_seqlens: Tensor | None,
    scale: float,
    chunk: int,
    fused: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    out, final = torch.empty_like(value), torch.empty_like(state)
    if fused or cu_seqlens is not None:
        return out, final, *_nothing(state)
    return out, final, *allocate(q, log_decay, state, chunk)


@torch.library.custom_op("archdsl::delta_backward", mutates_args=())
def delta_backward_op(
    q: Tensor,
    erase: Tensor | None,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None,
    write: Tensor | None,
    log_decay: Tensor | None,
    state: Tensor,
    states: Tensor,
    decays: Tensor,
    inverses: Tensor,
    updates: Tensor,
    cu_seqlens: Tensor | None,
    d_out: Tensor,
    d_final: Tensor,
    scale: float,
    chunk: int,
    fused: bool = False,
) -> list[Tensor]:
    """Gradients to the inputs in order (empty where None), log_decay and the state."""
    x = Inputs(q, erase, key, value, rate, write)
    if fused:
        gpu = importlib.import_module("archdsl.kernels.delta.triton")
        run = (x, log_decay, state, cu_seqlens, d_out, d_final, scale, chunk)
        grads, d_log, d_state = gpu.backward(*run)
        return [*_filled([*grads, d_log], state), d_state]
    if cu_seqlens is None:
        saved = Saved(states, decays, inverses, updates)
        grads, d_log, d_state = backward(x, log_decay, saved, d_out, d_final, scale, chunk)
        return [*_filled([*grads, d_log], state), d_state]
    found = [None if part is None else torch.empty_like(part) for part in (*x, log_decay)]
    d_state = d_final.clone()
    for bucket in buckets(cu_seqlens, chunk):
        part = Inputs(*bucket.gather_all(x))
        (log,) = bucket.gather_all((log_decay,))
        _, saved = forward(part, log, state[bucket.rows], scale, chunk)
        arrived = (bucket.gather(d_out), d_final[bucket.rows])
        grads, d_log, flow = backward(part, log, saved, *arrived, scale, chunk)
        bucket.scatter_all(found, [*grads, d_log])
        d_state[bucket.rows] = flow
    return [*_filled(found, state), d_state]


def _filled(grads: list[Tensor | None], like: Tensor) -> list[Tensor]:
    """Operators cannot return None: an empty tensor stands for it."""
    return [like.new_empty(0) if grad is None else grad for grad in grads]


@delta_backward_op.register_fake
def _(
    q: Tensor,
    erase: Tensor | None,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None,
    write: Tensor | None,
    log_decay: Tensor | None,
    state: Tensor,
    states: Tensor,
    decays: Tensor,
    inverses: Tensor,
    updates: Tensor,
    cu_seqlens: Tensor | None,
    d_out: Tensor,
    d_final: Tensor,
    scale: float,
    chunk: int,
    fused: bool = False,
) -> list[Tensor]:
    inputs = (q, erase, key, value, rate, write, log_decay)
    grads = [None if x is None else torch.empty_like(x) for x in inputs]
    return [*_filled(grads, state), torch.empty_like(state)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, scale, chunk, fused = inputs
    ctx.options = (scale, chunk, fused)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output[2:])


def _differentiate(
    ctx: Any, d_out: Tensor | None, d_final: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    *x, state, cu_seqlens, states, decays, inverses, updates = ctx.saved_tensors
    d_out = torch.zeros_like(x[3]) if d_out is None else d_out
    d_final = torch.zeros_like(state) if d_final is None else d_final
    buffers = (state, states, decays, inverses, updates, cu_seqlens)
    *grads, d_state = delta_backward_op(*x, *buffers, d_out, d_final, *ctx.options)
    given = [None if part is None else grad for part, grad in zip(x, grads, strict=True)]
    return *given, d_state, None, None, None, None


delta_op.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.archdsl.delta)
def _count(q: Any, *x: Any, out_shape: Any = None, **_: Any) -> int:
    batch, length, heads, key_dim = q
    write, log, chunk = x[4], x[5], x[9]
    per_channel = log is not None and len(log) == 4
    general = write is not None
    return flops(
        batch, length, heads, key_dim, x[2][3],
        chunk=chunk, per_channel=per_channel, general=general,
    )  # fmt: skip


@register_flop_formula(torch.ops.archdsl.delta_backward)
def _count_backward(q: Any, *x: Any, out_shape: Any = None, **_: Any) -> int:
    """Packed sequences, and the Triton form, keep nothing: they go forward again."""
    write, states, chunk = x[4], x[7], x[15]
    again = 0 if all(states) else _count(q, *x[:7], x[11], x[14], chunk)
    batch, length, heads, key_dim = q
    general = write is not None
    return again + backward_flops(
        batch, length, heads, key_dim, x[2][3], chunk=chunk, general=general
    )
