"""One decode token of the delta family: no chunks, differentiable by plain autograd."""

import torch
from torch import Tensor

from archdsl.kernels.common import decayed, lanes, read_lanes, write_lanes


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
    old, width, inplace = state.flatten(0, 1), k.shape[3], not torch.is_grad_enabled()
    memory, same = decayed(old, log_decay), erase is k
    writes = (k, v, beta, erase)
    micro = [writes] if rank == 1 else zip(*(x.unbind(1) for x in writes), strict=True)
    for key, value, rate, erased in micro:
        wanted, row = lanes(value, old, 1, v.shape[3]), lanes(erased, old, 1, width)
        error, rated = torch.baddbmm(wanted, row, memory, alpha=-1), lanes(rate, old, 1, 1)
        error = error.mul_(rated) if inplace else error * rated
        column = row.mT if same else lanes(key, old, width, 1)
        memory = write_lanes(memory, column, error, memory is not old)
    return read_lanes(q, memory, wanted, scale, v), memory.view(state.shape)


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
    memory = decayed(old, log_decay)
    memory = write_lanes(memory, lanes(b, memory, width, 1), found, memory is not old)
    value = lanes(v, memory, 1, v.shape[3])
    memory = write_lanes(memory, lanes(k, memory, width, 1), value, fresh=True)
    return read_lanes(q, memory, value, scale, v), memory.view(state.shape)
