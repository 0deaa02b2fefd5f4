"""One decode token of the decay family: no chunks, no padding, differentiable by plain autograd."""

from torch import Tensor

from archdsl.kernels.common import decayed, lanes, read_lanes, write_lanes


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
    old, width = state.flatten(0, 1), k.shape[3]
    kept, value = decayed(old, log_decay), lanes(v, old, 1, v.shape[3])
    after = write_lanes(kept, lanes(k, old, width, 1), value, kept is not old)
    out = read_lanes(q, old if before else after, value, scale, v)
    return out, after.view(state.shape)
