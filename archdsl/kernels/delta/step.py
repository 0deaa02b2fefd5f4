"""One decode token of the delta family: no chunks, differentiable by plain autograd."""

import torch
from torch import Tensor

from archdsl.kernels.common import decay_factors


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    erase: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    scale: float,
    rank: int,
) -> tuple[Tensor, Tensor]:
    """Output [B, 1, H, V] and next state [B, H, K, V] of one token of `rank` micro steps.

    q [B, 1, H, K]; k, erase [B, n, H, K]; v [B, n, H, V]; beta [B, n, H]; log_decay as for `delta`.
    """
    query, key, value, erased = (x.transpose(1, 2).to(state.dtype) for x in (q, k, v, erase))
    rate = beta.transpose(1, 2).unsqueeze(-1).to(state.dtype)
    if log_decay is not None:
        state = state * decay_factors(log_decay, q, state.dtype)[:, 0]
    for micro in range(rank):
        part = slice(micro, micro + 1)
        error = rate[:, :, part] * (value[:, :, part] - torch.matmul(erased[:, :, part], state))
        state = torch.addcmul(state, key[:, :, part].mT, error)
    out = torch.matmul(query * scale, state)
    return out.transpose(1, 2).to(v.dtype), state


def step_general(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """RWKV-7's form of one token; q, k, a, b [B, 1, H, K], v [B, 1, H, V]."""
    query, key, value, left, right = (x.transpose(1, 2).to(state.dtype) for x in (q, k, v, a, b))
    found = torch.matmul(left, state)
    if log_decay is not None:
        state = state * decay_factors(log_decay, q, state.dtype)[:, 0]
    state = torch.addcmul(torch.addcmul(state, right.mT, found), key.mT, value)
    out = torch.matmul(query * scale, state)
    return out.transpose(1, 2).to(v.dtype), state
