"""What one look at an untrained model shows; every metric reads from it.

One forward and one backward pass, on seeded sequences of the task, serve all metrics but the few that
need passes of their own (:mod:`archdsl.search.metrics.passes`). Gathering adds only hooks, so a further
metric costs what its own arithmetic costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from archdsl.blocks.nn.dense import Embedding, Head
from archdsl.blocks.nn.structure import ResidualSum
from archdsl.search.metrics.base import Need, spectrum
from archdsl.search.protocols import Arch
from archdsl.search.tasks.base import IGNORED, LearningTask

if TYPE_CHECKING:
    from archdsl.search.metrics.recall import Recall

EMBEDDINGS = (nn.Embedding, Embedding)

TABLES = (*EMBEDDINGS, Head)
"""Modules whose weights have a row a token: they are no part of what a metric of capacity counts."""

TOKENS = 2048
"""About how many tokens one look takes; at least 8 sequences and at most 32."""

BACKWARD = frozenset(
    {Need.JACOBIAN, Need.GRADIENTS, Need.HIDDEN_GRADIENTS, Need.SECOND, Need.CURVATURE}
)
"""Needs that take a backward pass."""


@dataclass
class Mixer:
    """A mixer or cell in the pass.

    Args:
        name: its path in the model.
        module: itself.
        inputs: what it was given, ``[B, T, D_i]`` each: a stream, or queries, keys, values, gates.
        output: what it gave, ``[B, T, D]``.
    """

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    output: Tensor


class Spectra:
    """Spectra that are computed when they are first asked for, and once."""

    def __init__(self, hidden: list[Tensor]) -> None:
        self.hidden = hidden
        self._known: dict[int, Tensor] = {}

    def __getitem__(self, place: int) -> Tensor:
        place %= len(self.hidden)
        if place not in self._known:
            self._known[place] = spectrum(self.hidden[place].flatten(0, -2).T)
        return self._known[place]

    def __len__(self) -> int:
        return len(self.hidden)


@dataclass
class Evidence:
    """What was seen. A field that no metric needed is empty.

    Args:
        arch: the architecture, for its costs.
        length: tokens of a sequence.
        mixers: mixers and cells in the order they ran.
        embedded: the embedded tokens ``[B, T, E]``.
        pulled: gradient of the loss with respect to them.
        probed: the position of each sequence whose loss was taken, ``[B]``.
        tables: paths of the embedding and of the head.
        names: of the parameters that the loss reaches.
        weights: those parameters.
        gradients: the gradient of each.
        codes: signs of all mixers' outputs, one row a sequence: [B, bits].
        synflow: log Σ|w·∂R/∂w| of the linearised model.
        second: gradients on a second batch, by name.
        curved: the Hessian of the second batch times its gradient, by name.
        noised: gradients at the embedded tokens with noise, by its size.
        residual: whether the model has a stream that layers add to.
        seconds: what each part of the look took.
    """

    arch: Arch
    length: int
    mixers: list[Mixer] = field(default_factory=list)
    embedded: Tensor | None = None
    pulled: Tensor | None = None
    probed: Tensor | None = None
    tables: frozenset[str] = frozenset()
    names: list[str] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    codes: Tensor | None = None
    synflow: float = -inf
    second: dict[str, Tensor] = field(default_factory=dict)
    curved: dict[str, Tensor] = field(default_factory=dict)
    noised: dict[float, Tensor] = field(default_factory=dict)
    residual: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def hidden(self) -> list[Tensor]:
        """Output [B, T, D] of each mixer and cell, in order."""
        return [mixer.output.detach() for mixer in self.mixers]

    @property
    def hidden_gradients(self) -> list[Tensor]:
        """Gradient of the loss with respect to each of them; zeros where it does not reach."""
        return [
            torch.zeros_like(m.output) if m.output.grad is None else m.output.grad
            for m in self.mixers
        ]

    @property
    def jacobian(self) -> Tensor | None:
        """Gradient of the loss with respect to the embedded tokens, [B, T·E]."""
        return None if self.pulled is None else self.pulled.flatten(1)

    @cached_property
    def reach(self) -> Tensor | None:
        """Size of the gradient at the tokens so many steps before the loss: [T], zeros beyond."""
        if self.pulled is None or self.probed is None:
            return None
        size = self.pulled.detach().norm(dim=-1).double().square()
        place = torch.arange(self.length, device=size.device)
        lag = self.probed[:, None] - place
        seen = torch.zeros(self.length, dtype=size.dtype, device=size.device)
        seen.index_add_(0, lag.clamp_min(0).flatten(), torch.where(lag >= 0, size, 0.0).flatten())
        return seen.sqrt()

    @cached_property
    def spectra(self) -> Spectra:
        """Eigenvalues of the correlation between the units of each mixer's output."""
        return Spectra(self.hidden)

    @cached_property
    def angles(self) -> Tensor | None:
        """Eigenvalues of the correlation between the sequences' gradients at the embedded tokens."""
        return None if self.jacobian is None else spectrum(self.jacobian)

    @cached_property
    def recall(self) -> Recall | None:
        """What can be read of earlier tokens from the last mixer's output."""
        from archdsl.search.metrics.recall import recall

        return None if self.embedded is None or not self.mixers else recall(self)

    @property
    def matrices(self) -> dict[str, Tensor]:
        """The weights with two axes or more by name, without the tables of tokens."""
        pairs = zip(self.names, self.weights, strict=True)
        return {
            name: weight
            for name, weight in pairs
            if weight.dim() > 1 and name.rpartition(".")[0] not in self.tables
        }

    def mixer_matrices(self) -> list[tuple[Tensor, Tensor]]:
        """The matrices of the mixers and of the projections around them, each with its gradient."""
        gradients = dict(zip(self.names, self.gradients, strict=True))
        found = {
            name: weight
            for mixer in self.mixers
            for name, weight in self._around(mixer.name).items()
        }
        return [(weight, gradients[name]) for name, weight in found.items()]

    def _around(self, mixer: str) -> dict[str, Tensor]:
        """The mixer's own matrices; those of its component where it has none."""
        own = {n: w for n, w in self.matrices.items() if n.startswith(f"{mixer}.")}
        parent = mixer.rpartition(".")[0]
        return own or {n: w for n, w in self.matrices.items() if n.startswith(f"{parent}.")}


def gather(
    model: Any,
    arch: Arch,
    task: LearningTask,
    needs: frozenset[Need],
    seed: int = 0,
    sequences: int | None = None,
) -> Evidence:
    """Look at an untrained model once; its weights are left as they were, its gradients cleared.

    Args:
        model: of ``arch``.
        arch: the architecture.
        task: gives the tokens, and what is learned of them.
        needs: what the metrics must see.
        seed: of the tokens.
        sequences: how many; as many as :data:`TOKENS` asks for where it is not said.
    """
    model.eval()
    device = next(model.parameters()).device
    tokens, targets = look(task, seed, device, sequences)
    evidence = Evidence(arch, tokens.shape[1], probed=(targets != IGNORED).int().argmax(1))
    evidence.residual = any(isinstance(module, ResidualSum) for module in model.modules())
    with watched(model, needs, evidence), _timed(evidence, "forward"):
        loss = model.loss(tokens, targets)
    if needs & BACKWARD:
        with _timed(evidence, "backward"):
            loss.backward()
    _keep(evidence, model, needs)
    model.zero_grad(set_to_none=True)
    other = look(task, seed + 1, device, sequences) if Need.SECOND in needs else (tokens, targets)
    _further(evidence, model, needs, (tokens, targets), other)
    return evidence


Look = tuple[Tensor, Tensor]
"""Tokens and targets ``[B, T]``."""


def _further(
    evidence: Evidence, model: Any, needs: frozenset[Need], first: Look, other: Look
) -> None:
    """The passes that only a few metrics need; those that can share one do."""
    from archdsl.search.metrics import passes

    tokens, targets = first
    if Need.SYNFLOW in needs:
        with _timed(evidence, Need.SYNFLOW.name):
            evidence.synflow = passes.synflow(model, tokens[:1, : passes.FLOW])
    if needs & {Need.SECOND, Need.CURVATURE}:
        with _timed(evidence, Need.SECOND.name):
            evidence.second = passes.gradients(model, *other)
        if Need.CURVATURE in needs:
            with _timed(evidence, Need.CURVATURE.name):
                evidence.curved = passes.curvature(model, evidence.second, *other)
    if Need.NOISE in needs:
        with _timed(evidence, Need.NOISE.name):
            evidence.noised = passes.noised(model, embedding(model), tokens, targets)


def look(
    task: LearningTask, seed: int, device: torch.device, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """The sequences every architecture is looked at with: tokens and targets [B, T].

    There are ``count`` of them, or as many as :data:`TOKENS` asks for.

    Only the last learned position of a sequence keeps its target, so that gradients at earlier tokens
    say how far back the model reaches.
    """
    count = count or max(8, min(32, TOKENS // task.positions))
    tokens, targets = (torch.from_numpy(part).to(device) for part in task.batch(count, seed, 0))
    learned = targets != IGNORED
    last = learned.shape[1] - 1 - learned.int().flip(1).argmax(1)
    kept = torch.arange(learned.shape[1], device=device) == last[:, None]
    return tokens, torch.where(kept, targets, IGNORED)


@contextmanager
def _timed(evidence: Evidence, part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    evidence.seconds[part] = time.perf_counter() - start


@contextmanager
def watched(model: Any, needs: frozenset[Need], evidence: Evidence) -> Iterator[None]:
    """Collect what mixers and the embedding give in the passes inside."""
    with ExitStack() as hooks:
        if needs & {Need.HIDDEN, Need.SIGNS, Need.HIDDEN_GRADIENTS}:
            retain = Need.HIDDEN_GRADIENTS in needs
            for name, module in hidden_modules(model):
                hooks.enter_context(_hooked(module, _seen(evidence, name, retain)))
        if needs & {Need.JACOBIAN, Need.HIDDEN}:
            hooks.enter_context(_hooked(embedding(model), _embedded(evidence)))
        yield


Hook = Callable[[nn.Module, Any, Any], None]


def _seen(evidence: Evidence, name: str, retain: bool) -> Hook:
    """Note a mixer's pass; a mixer that runs more than once is noted every time."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        value = _first(output)
        given = tuple(part.detach() for part in inputs if isinstance(part, Tensor))
        if retain and value.requires_grad:
            value.retain_grad()
        evidence.mixers.append(Mixer(name, module, given, value))

    return hook


def _embedded(evidence: Evidence) -> Hook:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if evidence.embedded is None and output.requires_grad:
            output.retain_grad()
            evidence.embedded = output

    return hook


@contextmanager
def _hooked(module: nn.Module, hook: Hook) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def hidden_modules(model: Any) -> list[tuple[str, nn.Module]]:
    """Mixers and cells; the embedding where a model has neither, so that a score is defined."""
    found: list[tuple[str, nn.Module]] = model.hidden_sites()
    return found or [("embed", embedding(model))]


def embedding(model: nn.Module) -> nn.Module:
    """The first embedding of a model of tokens."""
    return next(module for module in model.modules() if isinstance(module, EMBEDDINGS))


def _first(output: Any) -> Tensor:
    """The features of a module that also gives its state: ``(y, state)`` or ``((y,), state)``."""
    while not isinstance(output, Tensor):
        output = output[0]
    return output


def _keep(evidence: Evidence, model: nn.Module, needs: frozenset[Need]) -> None:
    """What the pass left behind, as the needs ask."""
    if Need.SIGNS in needs:
        evidence.codes = torch.cat([(value > 0).flatten(1) for value in evidence.hidden], 1)
    if evidence.embedded is not None:
        evidence.pulled, evidence.embedded = evidence.embedded.grad, evidence.embedded.detach()
    if needs & {Need.GRADIENTS, Need.WEIGHTS}:
        _keep_weights(evidence, model, needs)


def _keep_weights(evidence: Evidence, model: nn.Module, needs: frozenset[Need]) -> None:
    reached = Need.GRADIENTS in needs
    pairs = [(n, p) for n, p in model.named_parameters() if p.grad is not None or not reached]
    evidence.tables = frozenset(
        name for name, module in model.named_modules() if isinstance(module, TABLES)
    )
    evidence.names = [name for name, _ in pairs]
    evidence.weights = [weight.detach() for _, weight in pairs]
    evidence.gradients = [weight.grad for _, weight in pairs if weight.grad is not None]
