"""What one look at an untrained model shows; every metric reads from it.

One forward and one backward pass, on seeded sequences of the task, serve all metrics. Gathering adds
only hooks, so a further metric costs what its own arithmetic costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import inf, log
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from archdsl.blocks.nn.dense import Embedding
from archdsl.search.metrics.base import Need
from archdsl.search.protocols import Arch
from archdsl.search.tasks.base import LearningTask

if TYPE_CHECKING:
    pass

EMBEDDINGS = (nn.Embedding, Embedding)

TOKENS = 2048
"""About how many tokens one look takes; at least 8 sequences and at most 32."""

FLOW = 8
"""Tokens of the pass for synflow: with a stream of ones, positions differ little."""


@dataclass
class Evidence:
    """What was seen. A field that no metric needed is empty.

    Args:
        arch: the architecture, for its costs.
        length: tokens of a sequence.
        hidden: output [B, T, D] of each mixer and cell, in order.
        jacobian: gradient of the loss with respect to the embedded tokens, [B, T·D].
        weights: parameters, and the gradient of each (zeros where the loss does not reach it).
        codes: signs of all mixers' outputs, one row a sequence: [B, bits].
        synflow: log Σ|w·∂R/∂w| of the linearised model.
    """

    arch: Arch
    length: int
    hidden: list[Tensor] = field(default_factory=list)
    jacobian: Tensor | None = None
    weights: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    codes: Tensor | None = None
    synflow: float = -inf


def gather(
    model: Any, arch: Arch, task: LearningTask, needs: frozenset[Need], seed: int = 0
) -> Evidence:
    """Look at an untrained model once; its weights are left as they were, its gradients cleared."""
    model.eval()
    tokens, targets = look(task, seed, next(model.parameters()).device)
    evidence = Evidence(arch, tokens.shape[1])
    with watched(model, needs) as (hidden, embedded):
        loss = model.loss(tokens, targets)
        if needs & {Need.JACOBIAN, Need.GRADIENTS}:
            loss.backward()
    _keep_hidden(evidence, hidden, needs)
    _keep_gradients(evidence, model, embedded, needs)
    model.zero_grad(set_to_none=True)
    if Need.SYNFLOW in needs:
        evidence.synflow = synflow(model, tokens[:1, :FLOW])
    return evidence


def look(task: LearningTask, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The sequences every architecture is looked at with: tokens and targets [B, T]."""
    count = max(8, min(32, TOKENS // task.positions))
    tokens, targets = task.batch(count, seed, 0)
    return torch.from_numpy(tokens).to(device), torch.from_numpy(targets).to(device)


@contextmanager
def watched(model: Any, needs: frozenset[Need]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Collect what mixers and the embedding give in the passes inside."""
    hidden: list[Tensor] = []
    embedded: list[Tensor] = []
    with ExitStack() as hooks:
        if needs & {Need.HIDDEN, Need.SIGNS}:
            for module in hidden_modules(model):
                hooks.enter_context(_hooked(module, lambda value: hidden.append(value.detach())))
        if Need.JACOBIAN in needs:
            hooks.enter_context(_hooked(embedding(model), lambda value: _retain(value, embedded)))
        yield hidden, embedded


def hidden_modules(model: Any) -> list[nn.Module]:
    """Mixers and cells; the embedding where a model has neither, so that a score is defined."""
    return [module for _, module in model.hidden_sites()] or [embedding(model)]


def embedding(model: nn.Module) -> nn.Module:
    """The first embedding of a model of tokens."""
    return next(module for module in model.modules() if isinstance(module, EMBEDDINGS))


def _retain(value: Tensor, kept: list[Tensor]) -> None:
    if not kept and value.requires_grad:
        value.retain_grad()
        kept.append(value)


@contextmanager
def _hooked(module: nn.Module, see: Callable[[Tensor], object]) -> Iterator[None]:
    def hook(module: nn.Module, inputs: object, output: Any) -> None:
        see(output if isinstance(output, Tensor) else _first(output))

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _first(output: Any) -> Tensor:
    """The features of a module that also gives its state: ``(y, state)`` or ``((y,), state)``."""
    while not isinstance(output, Tensor):
        output = output[0]
    return output


def _keep_hidden(evidence: Evidence, hidden: list[Tensor], needs: frozenset[Need]) -> None:
    if Need.HIDDEN in needs:
        evidence.hidden = hidden
    if Need.SIGNS in needs:
        evidence.codes = torch.cat([(value > 0).flatten(1) for value in hidden], 1)


def _keep_gradients(
    evidence: Evidence, model: nn.Module, embedded: list[Tensor], needs: frozenset[Need]
) -> None:
    if Need.JACOBIAN in needs and embedded and embedded[0].grad is not None:
        evidence.jacobian = embedded[0].grad.flatten(1)
    if Need.GRADIENTS in needs:
        pairs = [(p.detach(), p.grad) for p in model.parameters() if p.grad is not None]
        evidence.weights = [weight for weight, _ in pairs]
        evidence.gradients = [gradient for _, gradient in pairs]


def synflow(model: nn.Module, tokens: Tensor) -> float:
    """Log Σ|w·∂R/∂w| with absolute weights and a stream of ones behind the embedding.

    "Pruning neural networks without any data by iteratively conserving synaptic flow" (Tanaka et al.,
    NeurIPS 2020), in one pass of one sequence: with a stream of ones all sequences are equal. The
    logarithm is taken in float64, and the pass is repeated in float64 where float32 overflows.
    """
    total = _flow(model, tokens)
    if not 0 < total < inf:
        dtype = next(model.parameters()).dtype
        total = _flow(model.double(), tokens)
        model.to(dtype)
    return log(total) if 0 < total < inf else -inf


def _flow(model: nn.Module, tokens: Tensor) -> float:
    with _absolute(model), _ones_behind(embedding(model)):
        model(tokens).sum().backward()
        pairs = [(p.detach(), p.grad) for p in model.parameters() if p.grad is not None]
        total = sum(float((weight * gradient).abs().double().sum()) for weight, gradient in pairs)
    model.zero_grad(set_to_none=True)
    return total


@contextmanager
def _absolute(model: nn.Module) -> Iterator[None]:
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    try:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_()
        yield
    finally:
        with torch.no_grad():
            for parameter, before in zip(model.parameters(), kept, strict=True):
                parameter.copy_(before)


@contextmanager
def _ones_behind(module: nn.Module) -> Iterator[None]:
    handle = module.register_forward_hook(lambda module, inputs, output: torch.ones_like(output))
    try:
        yield
    finally:
        handle.remove()
