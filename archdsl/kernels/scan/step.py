"""One decode token of the diagonal recurrence."""

import torch
from torch import Tensor


def step(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return h [B, 1, ...] and the next state [B, ...] from a, b [B, 1, ...] and the state before."""
    after = torch.addcmul(b[:, 0], a[:, 0], state)
    return after.unsqueeze(1), after
