"""Cross-entropy in Triton: a row's loss, and its gradient in the place of its logits."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.triton_common import kernel, on

IGNORED = tl.constexpr(-100)
SHAPE = {"BV": 4096, "num_warps": 8}


@kernel
def softmax_kernel(
    logits: tl.tensor, targets: tl.tensor, losses: tl.tensor, V: tl.constexpr, BV: tl.constexpr
) -> None:
    """One row: its maximum and mass in one pass, its gradient in a second."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    kept = target != IGNORED
    # Before the row's reductions, which all warps wait in: behind them another warp may have written its
    # gradient in this place.
    chosen = tl.load(logits + row * V + tl.where(kept, target, 0))
    lane = tl.arange(0, BV)
    best = tl.full([BV], float("-inf"), dtype=tl.float32)
    mass = tl.zeros([BV], dtype=tl.float32)
    for begin in range(0, V, BV):
        good = begin + lane < V
        x = tl.load(logits + row * V + begin + lane, mask=good, other=float("-inf"))
        top = tl.maximum(best, x)
        safe = tl.where(top == float("-inf"), 0.0, top)
        mass = mass * tl.exp(best - safe) + tl.exp(x - safe)
        best = top
    top = tl.max(best, axis=0)
    total = tl.sum(mass * tl.exp(best - top), axis=0)
    tl.store(losses + row, tl.where(kept, top + tl.log(total) - chosen, 0.0))
    for begin in range(0, V, BV):
        good = begin + lane < V
        x = tl.load(logits + row * V + begin + lane, mask=good, other=float("-inf"))
        share = tl.exp(x - top) / total - tl.where(begin + lane == target, 1.0, 0.0)
        tl.store(logits + row * V + begin + lane, tl.where(kept, share, 0.0), mask=good)


def softmax_(logits: Tensor, targets: Tensor) -> Tensor:
    """The summed loss of float32 logits [n, V], which become its gradient."""
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    symbols = logits.shape[1]
    shape = {**SHAPE, "BV": min(SHAPE["BV"], triton.next_power_of_2(symbols))}
    with on(logits.device):
        softmax_kernel[(len(logits),)](logits, targets.contiguous(), losses, V=symbols, **shape)
    return losses.sum()
