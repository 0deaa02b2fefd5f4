"""The decay family as written, one token at a time: what the other forms are tested against.

    S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T,    out_t = scale * S_t^T q_t

(linear attention, arXiv 2006.16236; GLA, arXiv 2312.06635 eq. 3), or a read of S_{t-1} with a bonus
for the current token (RWKV-6, arXiv 2404.05892 eq. 19).
"""

import torch
from torch import Tensor

from archdsl.kernels.common import decay_factors


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
    query, key, value = (x.to(state.dtype) for x in (q, k, v))
    decay = decay_factors(log_decay, key)
    outputs = []
    for token in range(q.shape[1]):
        write = key[:, token, :, :, None] * value[:, token, :, None, :]
        after = decay[:, token] * state + write
        read = state if before else after
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", query[:, token], read))
        state = after
    return torch.stack(outputs, 1).to(v.dtype), state
