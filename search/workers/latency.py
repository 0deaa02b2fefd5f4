"""How long a model takes on the machine at hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

ENOUGH = 0.5
"""Seconds of repeated calls behind one figure; at least 3 calls and at most 50."""


def seconds_of(model: Any, length: int, mode: str, batch: int) -> float:
    """The median time of one call, after one to warm up.

    Args:
        model: the model.
        length: tokens of a sequence; for ``decode``, tokens before the one that is timed.
        mode: ``prefill``, ``train`` (forward and backward) or ``decode`` (one token).
        batch: sequences at a time.
    """
    device = next(model.parameters()).device
    tokens = torch.zeros(batch, length, dtype=torch.int64, device=device)
    call = {"prefill": _prefill, "train": _train, "decode": _decode}[mode](model, tokens)
    _timed(call, device)
    times = [_timed(call, device)]
    while len(times) < 3 or (sum(times) < ENOUGH and len(times) < 50):
        times.append(_timed(call, device))
    return median(times)


def _prefill(model: Any, tokens: torch.Tensor) -> Callable[[], object]:
    @torch.no_grad()
    def call() -> object:
        return model.eval()(tokens)

    return call


def _train(model: Any, tokens: torch.Tensor) -> Callable[[], object]:
    def call() -> object:
        model.train().zero_grad(set_to_none=True)
        return model.loss(tokens, tokens).backward()

    return call


@torch.no_grad()
def _decode(model: Any, tokens: torch.Tensor) -> Callable[[], object]:
    model.eval()
    _, state = model.prefill(tokens, model.init_state(tokens.shape[0]))

    @torch.no_grad()
    def call() -> object:
        return model.step(tokens[:, 0], state)

    return call


def _timed(call: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
