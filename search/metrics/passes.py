"""Passes that few metrics need, beside the one that all share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import hypot, inf, log
from typing import Any

import torch
from torch import Tensor, nn

from archdsl.search.metrics.base import norms, saliency
from archdsl.search.seeds import seed_of

FLOW = 8
"""Tokens of the pass for synflow: with a stream of ones, positions differ little."""

STEP = 1e-2
"""Length of a displacement of the weights, as a share of theirs: what a difference is taken over."""

NOISES = (0.1, 10.0, 100.0)
"""Sizes of noise, in variances of the embedded tokens, as the paper's code has them."""


def synflow(model: nn.Module, tokens: Tensor) -> float:
    """Log Σ|w·∂R/∂w| with absolute weights and a stream of ones behind the embedding.

    "Pruning neural networks without any data by iteratively conserving synaptic flow" (Tanaka et al.,
    NeurIPS 2020), in one pass of one sequence: with a stream of ones all sequences are equal. The
    logarithm is taken in float64, and the pass is repeated in float64 where float32 overflows. A layer
    norm turns ones into zeros: where nothing flows, absolute embeddings take the place of the ones.
    """
    change: Callable[[Tensor], Tensor] = torch.ones_like
    total = _flow(model, tokens, change)
    if total == 0:
        change = torch.abs
        total = _flow(model, tokens, change)
    if not 0 < total < inf:
        dtype = next(model.parameters()).dtype
        total = _flow(model.double(), tokens, change)
        model.to(dtype)
    return log(total) if 0 < total < inf else -inf


def _flow(model: nn.Module, tokens: Tensor, change: Callable[[Tensor], Tensor]) -> float:
    from archdsl.search.metrics.evidence import embedding

    weights = list(model.parameters())
    with _restored(weights), _changed(embedding(model), change):
        torch._foreach_abs_([weight.detach() for weight in weights])
        found = torch.autograd.grad(model(tokens).sum(), weights, allow_unused=True)
        reached = [(w.detach(), g) for w, g in zip(weights, found, strict=True) if g is not None]
        return saliency([w for w, _ in reached], [g for _, g in reached])


@contextmanager
def _restored(weights: list[nn.Parameter]) -> Iterator[None]:
    """Give the parameters their values back at the end."""
    values = [weight.detach() for weight in weights]
    kept = [value.clone() for value in values]
    try:
        yield
    finally:
        torch._foreach_copy_(values, kept)


@contextmanager
def _changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change what a module gives."""
    handle = module.register_forward_hook(lambda module, inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def gradients(model: Any, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The gradient of the loss for every parameter that it reaches, by name; none is left behind."""
    names, weights = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(model.loss(tokens, targets), weights, allow_unused=True)
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


def curvature(
    model: Any, gradient: Mapping[str, Tensor], tokens: Tensor, targets: Tensor
) -> dict[str, Tensor]:
    """The Hessian times the gradient ``g``, by a difference: ``(g(w + εg) - g(w)) / ε``.

    A difference needs no second derivative of any kernel, and shares ``g(w)`` with whoever needs the
    batch's gradient. ``ε`` moves the weights by :data:`STEP` of their length.
    """
    weights = dict(model.named_parameters())
    length = hypot(*norms([weights[name].detach() for name in gradient]))
    size = STEP * length / max(hypot(*norms(list(gradient.values()))), 1e-30)
    with _restored(list(weights.values())):
        for name, part in gradient.items():
            weights[name].detach().add_(part, alpha=size)
        moved = gradients(model, tokens, targets)
    return {name: (moved[name] - part) / size for name, part in gradient.items()}


def noised(model: Any, table: nn.Module, tokens: Tensor, targets: Tensor) -> dict[float, Tensor]:
    """Gradients at the embedded tokens ``[B, T·E]`` with normal noise, by its size.

    The noise is the variance of the embedded tokens times a size, as the code of Serianni and Kalita
    (ACL 2023) has it.
    """
    found: dict[float, Tensor] = {}
    for size in NOISES:
        kept: list[Tensor] = []

        def disturbed(output: Tensor, size: float = size, kept: list[Tensor] = kept) -> Tensor:
            generator = torch.Generator(output.device).manual_seed(seed_of("noise", size))
            noise = torch.randn(output.shape, generator=generator, device=output.device)
            value = (output + size * output.detach().var() * noise).detach().requires_grad_()
            kept.append(value)
            return value

        with _changed(table, disturbed):
            loss = model.loss(tokens, targets)
        if kept:
            found[size] = torch.autograd.grad(loss, kept)[0].flatten(1)
    return found
