"""The delta family as written, one token at a time: what the other forms are tested against.

    S_t = D_t S_{t-1} + b_t k_t (v_t - (D_t S_{t-1})^T e_t)^T,    out_t = scale * S_t^T q_t

with the erase key e_t = k_t unless given (DeltaNet, arXiv 2406.06484 eq. 5; Gated DeltaNet,
arXiv 2412.06464 eq. 10; KDA, arXiv 2510.26692 eq. 1; Comba, arXiv 2506.02475); n micro steps a
token for DeltaProduct (arXiv 2502.10297 eq. 5), and RWKV-7 (arXiv 2503.14456 eq. 17):

    S_t = D_t S_{t-1} + b_t (S_{t-1}^T a_t)^T + k_t v_t^T
"""

from itertools import islice

import torch
from torch import Tensor

from archdsl.kernels.common import decay_factors, in_time, tokens


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
    outputs = []
    factors = decay_factors(log_decay, q, state.dtype)
    steps = tokens(state.dtype, k, v, beta.unsqueeze(-1), erase)
    for query, decay in tokens(state.dtype, q, factors):
        state = decay * state
        for key, value, rate, erased in islice(steps, rank):
            error = rate * (value - torch.einsum("bhk,bhkv->bhv", erased, state))
            state = state + key.unsqueeze(-1) * error.unsqueeze(-2)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", query, state))
    return in_time(outputs, v), state


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
    outputs = []
    factors = decay_factors(log_decay, q, state.dtype)
    for query, key, value, left, right, decay in tokens(state.dtype, q, k, v, a, b, factors):
        found = torch.einsum("bhk,bhkv->bhv", left, state)
        state = decay * state + right.unsqueeze(-1) * found.unsqueeze(-2)
        state = state + key.unsqueeze(-1) * value.unsqueeze(-2)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", query, state))
    return in_time(outputs, v), state
