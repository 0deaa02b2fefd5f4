"""One decode token of the delta family: no chunks, differentiable by plain autograd."""

import torch
from torch import Tensor

from archdsl.kernels.common import lane_decay, lanes, read_lanes, write_lanes


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
    old = memory = state.flatten(0, 1)
    if log_decay is not None:
        memory = memory * lane_decay(log_decay, memory)
    for micro in range(rank):
        key, value, rate, erased = (x[:, micro] for x in (k, v, beta, erase))
        wanted = lanes(value, memory, 1, v.shape[3])
        error = torch.baddbmm(wanted, lanes(erased, memory, 1, k.shape[3]), memory, alpha=-1)
        error = error * lanes(rate, memory, 1, 1)
        written = lanes(key, memory, k.shape[3], 1)
        memory = write_lanes(memory, written, error, memory is not old)
    return read_lanes(q, memory, v, scale), memory.view(state.shape)


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
    old, width = state.flatten(0, 1), k.shape[3]
    found = torch.bmm(lanes(a, old, 1, width), old)
    memory = old if log_decay is None else old * lane_decay(log_decay, old)
    memory = write_lanes(memory, lanes(b, memory, width, 1), found, memory is not old)
    value = lanes(v, memory, 1, v.shape[3])
    memory = write_lanes(memory, lanes(k, memory, width, 1), value, fresh=True)
    return read_lanes(q, memory, v, scale), memory.view(state.shape)
