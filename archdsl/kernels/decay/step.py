"""One decode token of the decay family: no chunks, no padding, differentiable by plain autograd."""

import torch
from torch import Tensor

from archdsl.kernels.common import decay_factors


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    scale: float,
    before: bool,
) -> tuple[Tensor, Tensor]:
    """Output [B, 1, H, V] and next state [B, H, K, V] for one token.

    q, k [B, 1, H, K]; v [B, 1, H, V]; log_decay None, [B, 1, H] or [B, 1, H, K].
    """
    query = q.transpose(1, 2).to(state.dtype)
    key = k[:, 0, :, :, None].to(state.dtype)
    value = v.transpose(1, 2).to(state.dtype)
    kept = state
    if log_decay is not None:
        kept = state * decay_factors(log_decay, q, state.dtype)[:, 0]
    after = torch.addcmul(kept, key, value)
    out = torch.matmul(query * scale, state if before else after)
    return out.transpose(1, 2).to(v.dtype), after
