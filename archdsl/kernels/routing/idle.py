"""Decays of tokens that go elsewhere, for memories that forget while they idle."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from archdsl.kernels.routing.plan import Plan


def idle_decay(log_decay: Tensor, plan: Plan, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
    """What routed rows decay by, the tokens since the one before included, and what is left at the end.

    log_decay [C B, T, W], of every copy and token; cu_seqlens as the text is packed (B is 1 then).
    Returns rows [N, W] and a remainder [C S, W]. A memory's state is linear in itself between two of
    its tokens, so its decays there are one decay by their sum. Sums are differences of a running total
    in float64, whose rounding is far below a float32 gate's.
    """
    lanes, length = log_decay.shape[:2]
    total = functional.pad(log_decay.double().cumsum(1), (0, 0, 1, 0)).flatten(0, 1)
    stride = lanes // plan.copies * (length + 1)
    here = plan.copy * stride + plan.token + plan.token // length + 1
    starts, ends = _edges(plan, stride, length, cu_seqlens)
    member = plan.member.clamp(max=plan.copies * plan.sequences - 1)
    rows = torch.arange(len(here), device=here.device)
    first = rows == plan.bounds[plan.member]
    before = torch.where(first, starts[member], here.roll(1))
    last = plan.bounds[1 : plan.copies * plan.sequences + 1] - 1
    empty = plan.bounds[: plan.copies * plan.sequences] > last
    behind = torch.where(empty, starts, here[last.clamp(min=0)])
    since = (total[here] - total[before]).clamp(max=0)
    left = (total[ends] - total[behind]).clamp(max=0)
    return since.to(log_decay.dtype), left.to(log_decay.dtype)


def _edges(
    plan: Plan, stride: int, length: int, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Where the running total of each member's sequence begins and ends: [C S] twice."""
    device = plan.token.device
    if cu_seqlens is None:
        start = torch.arange(plan.sequences, device=device) * (length + 1)
        end = start + length
    else:
        start, end = cu_seqlens[:-1], cu_seqlens[1:]
    copies = torch.arange(plan.copies, device=device)[:, None] * stride
    return (copies + start).flatten(), (copies + end).flatten()
