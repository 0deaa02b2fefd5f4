"""The delta family as written, one token at a time: what the other forms are tested against.

    S_t = D_t S_{t-1} + b_t k_t (v_t - (D_t S_{t-1})^T e_t)^T,    out_t = scale * S_t^T q_t

with the erase key e_t = k_t unless given (DeltaNet, arXiv 2406.06484 eq. 5; Gated DeltaNet,
arXiv 2412.06464 eq. 10; KDA, arXiv 2510.26692 eq. 1; Comba, arXiv 2506.02475); n micro steps a
token for DeltaProduct (arXiv 2502.10297 eq. 5), and RWKV-7 (arXiv 2503.14456 eq. 17):

    S_t = D_t S_{t-1} + b_t (S_{t-1}^T a_t)^T + k_t v_t^T
"""

import torch
from torch import Tensor

from archdsl.kernels.common import decay_factors


def reference(
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
    """Output [B, T, H, V] and final state [B, H, K, V], in the dtype of `state`.

    q [B, T, H, K]; k, erase [B, T n, H, K]; v [B, T n, H, V]; beta [B, T n, H]; log_decay None or
    [B, T, H] or [B, T, H, K].
    """
    query, key, value, rate, erased = (x.to(state.dtype) for x in (q, k, v, beta, erase))
    decay = decay_factors(log_decay, query)
    outputs = []
    for token in range(q.shape[1]):
        state = decay[:, token] * state
        for micro in range(token * rank, (token + 1) * rank):
            found = torch.einsum("bhk,bhkv->bhv", erased[:, micro], state)
            error = rate[:, micro, :, None] * (value[:, micro] - found)
            state = state + key[:, micro, :, :, None] * error[:, :, None, :]
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", query[:, token], state))
    return torch.stack(outputs, 1).to(v.dtype), state


def reference_general(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """RWKV-7's form; q, k, a, b [B, T, H, K], v [B, T, H, V], results as in `reference`."""
    query, key, value, left, right = (x.to(state.dtype) for x in (q, k, v, a, b))
    decay = decay_factors(log_decay, query)
    outputs = []
    for token in range(q.shape[1]):
        found = torch.einsum("bhk,bhkv->bhv", left[:, token], state)
        state = decay[:, token] * state + right[:, token, :, :, None] * found[:, :, None, :]
        state = state + key[:, token, :, :, None] * value[:, token, :, None, :]
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", query[:, token], state))
    return torch.stack(outputs, 1).to(v.dtype), state
