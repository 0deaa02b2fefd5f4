"""The decay family as written, one token at a time: what the other forms are tested against.

    S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T,    out_t = scale * S_t^T q_t

(linear attention, arXiv 2006.16236; GLA, arXiv 2312.06635 eq. 3), or a read of S_{t-1} with a bonus
for the current token (RWKV-6, arXiv 2404.05892 eq. 19).
"""

import torch
from torch import Tensor

from archdsl.kernels.common import decay_factors, in_time, tokens


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    scale: float,
    before: bool,
) -> tuple[Tensor, Tensor]:
    """Output [B, T, H, V] and final state [B, H, K, V], in the dtype of `state`.

    q, k [B, T, H, K]; v [B, T, H, V]; log_decay None, [B, T, H] or [B, T, H, K].
    """
    outputs = []
    factors = decay_factors(log_decay, q, state.dtype)
    for query, key, value, decay in tokens(state.dtype, q, k, v, factors):
        after = decay * state + key.unsqueeze(-1) * value.unsqueeze(-2)
        read = state if before else after
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", query, read))
        state = after
    return in_time(outputs, v), state
