"""The public entries of the delta family: checks, choice of form, micro steps."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from archdsl.kernels.common import (
    broadcast_decay,
    by_sequence,
    check_chunk,
    check_packed,
    check_shape,
    divide,
    initial,
    is_step,
    sequences,
)
from archdsl.kernels.decay.dispatch import choose
from archdsl.kernels.delta.flops import default_chunk
from archdsl.kernels.delta.operator import delta_op
from archdsl.kernels.delta.reference import reference, reference_general
from archdsl.kernels.delta.step import step, step_general


def delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    *,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    erase_key: Tensor | None = None,
    rank: int = 1,
    backend: str | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Run `S_t = (I - b_t k_t e_t^T) D_t S_{t-1} + b_t k_t v_t^T`, `out_t = scale * S_t^T q_t`.

    q [B, T, H, K]; k [B, T n, H, K], v [B, T n, H, V], beta [B, T n, H] with n = `rank` micro steps
    a token (token t owns rows t n ... t n + n - 1; the decay comes before the first, the read after
    the last); log_decay None, [H], [B, T, H] or [B, T, H, K], <= 0; `erase_key` e [B, T n, H, K], k
    unless given (Comba). beta up to 2. `cu_seqlens` [N + 1] counts tokens and packs N sequences in
    B = 1. Returns the output [B, T, H, V] in the dtype of v and the final state [B or N, H, K, V]
    in float32 (float64 for float64 inputs).
    """
    if rank == 1 and is_step(initial_state, q, k, v, cu_seqlens, backend):
        check_shape("beta", beta, tuple(q.shape[:3]))
        check_shape("erase_key", erase_key, tuple(q.shape))
        erase, log = k if erase_key is None else erase_key, broadcast_decay(log_decay, q)
        return step(q, k, v, beta, erase, log, initial_state, scale, rank)
    batch, length, heads, key_dim = q.shape
    micro = (batch, length * rank, heads)
    check_shape("k", k, (*micro, key_dim))
    check_shape("v", v, (*micro, v.shape[-1]))
    check_shape("beta", beta, micro)
    check_shape("erase_key", erase_key, (*micro, key_dim))
    check_packed(cu_seqlens, batch)
    log = broadcast_decay(log_decay, q)
    erase = k if erase_key is None else erase_key
    state = initial(initial_state, (sequences(cu_seqlens, batch), heads, key_dim, v.shape[-1]), q)
    name, _ = choose(q, state=state, packed=cu_seqlens is not None, backend=backend)
    if name == "step":
        return step(q, k, v, beta, erase, log, state, scale, rank)
    if name == "reference":
        return _reference(q, k, v, beta, erase, log, state, scale, rank, cu_seqlens)
    size = check_chunk(chunk or default_chunk(length, key_dim, v.shape[-1], rank))
    query, log, bounds = _spread(q, log, cu_seqlens, rank)
    fused = name == "triton" and q.numel() > 0
    found = delta_op(query, erase_key, k, v, beta, None, log, state, bounds, scale, size, fused)
    out, state = found[0], found[1]
    return out[:, rank - 1 :: rank], state


def delta_general(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    log_decay: Tensor | None = None,
    *,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Run `S_t = D_t S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T`, `out_t = scale * S_t^T q_t`.

    The erase reads the state before its decay. q, k, a, b [B, T, H, K], v [B, T, H, V]; the rest as
    for `delta`. RWKV-7 passes a = -kappa and b = kappa * in-context rate.
    """
    if is_step(initial_state, q, k, v, cu_seqlens, backend):
        check_shape("a", a, tuple(q.shape))
        check_shape("b", b, tuple(q.shape))
        return step_general(q, k, v, a, b, broadcast_decay(log_decay, q), initial_state, scale)
    batch, length, heads, key_dim = q.shape
    for name, x in (("k", k), ("a", a), ("b", b)):
        check_shape(name, x, tuple(q.shape))
    check_shape("v", v, (batch, length, heads, v.shape[-1]))
    check_packed(cu_seqlens, batch)
    log = broadcast_decay(log_decay, q)
    state = initial(initial_state, (sequences(cu_seqlens, batch), heads, key_dim, v.shape[-1]), q)
    name, _ = choose(q, state=state, packed=cu_seqlens is not None, backend=backend)
    if name == "step":
        return step_general(q, k, v, a, b, log, state, scale)
    if name == "reference":
        inputs = (q, k, v, a, b, log)
        return by_sequence(partial(reference_general, scale=scale), inputs, state, cu_seqlens)
    size = check_chunk(chunk or default_chunk(length, key_dim, v.shape[-1]))
    fused = name == "triton" and q.numel() > 0
    found = delta_op(q, -a, b, v, None, k, log, state, cu_seqlens, scale, size, fused)
    return found[0], found[1]


def _reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    erase: Tensor,
    log: Tensor | None,
    state: Tensor,
    scale: float,
    rank: int,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Token by token; micro steps are folded into the head axis so that packing can cut tokens."""

    def core(
        q: Tensor, k: Tensor, v: Tensor, beta: Tensor, erase: Tensor, log: Tensor | None, s: Tensor
    ) -> tuple[Tensor, Tensor]:
        k, v, beta, erase = (x.flatten(1, 2) for x in (k, v, beta, erase))
        return reference(q, k, v, beta, erase, log, s, scale, rank)

    micro = [divide(x, 1, q.shape[1], rank) for x in (k, v, beta, erase)]
    return by_sequence(core, (q, *micro, log), state, cu_seqlens)


def _spread(
    q: Tensor, log: Tensor | None, cu_seqlens: Tensor | None, rank: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Queries on the last and decays on the first of each token's micro steps, zeros elsewhere."""
    if rank == 1:
        return q, log, cu_seqlens
    query = functional.pad(q.unsqueeze(2), (0, 0, 0, 0, rank - 1, 0)).flatten(1, 2)
    bounds = None if cu_seqlens is None else cu_seqlens * rank
    if log is None:
        return query, None, bounds
    zeros = torch.zeros_like(log).unsqueeze(2)
    spread = torch.cat([log.unsqueeze(2), *[zeros] * (rank - 1)], 2)
    return query, spread.flatten(1, 2), bounds
