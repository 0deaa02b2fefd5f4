"""What one look at an untrained model shows; every metric reads from it.

One forward and one backward pass, on seeded sequences of the task, serve all metrics but the few that
need passes of their own (:mod:`archdsl.search.metrics.passes`). Gathering adds only hooks, so a further
metric costs what its own arithmetic costs.
"""

from __future__ import annotations

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
from archdsl.search.metrics.base import Need, covariance_score, spectrum
from archdsl.search.metrics.look import Places, look, places
from archdsl.search.space.protocols import Arch
from archdsl.search.tasks.base import LearningTask

if TYPE_CHECKING:
    from archdsl.search.metrics.recall import Recall

EMBEDDINGS = (nn.Embedding, Embedding)

TABLES = (*EMBEDDINGS, Head)
"""Modules whose weights have a row a token: they are no part of what a metric of capacity counts."""

BACKWARD = frozenset({Need.JACOBIAN, Need.GRADIENTS, Need.HIDDEN_GRADIENTS})
"""Needs that take the backward pass."""


@dataclass
class Mixer:
    """A mixer or cell in the pass.

    Args:
        name: its path in the model.
        module: itself.
        inputs: what it was given, ``[B, T, D_i]`` each: a stream, or queries, keys, values, gates.
        output: what it gave, ``[B, T, D]``.
        gradient: of the loss with respect to that, where it was asked for.
    """

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    output: Tensor
    gradient: Tensor | None = None


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
        places: where the sequences' losses stand.
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
    """

    arch: Arch
    length: int
    mixers: list[Mixer] = field(default_factory=list)
    embedded: Tensor | None = None
    pulled: Tensor | None = None
    places: Places | None = None
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

    @property
    def hidden(self) -> list[Tensor]:
        """Output [B, T, D] of each mixer and cell, in order."""
        return [mixer.output.detach() for mixer in self.mixers]

    @property
    def hidden_gradients(self) -> list[Tensor]:
        """Gradient of the loss with respect to each of them; zeros where it does not reach."""
        return [
            torch.zeros_like(m.output) if m.gradient is None else m.gradient for m in self.mixers
        ]

    @cached_property
    def jacobian(self) -> Tensor | None:
        """Gradient of the loss with respect to the embedded tokens, [N, T·E].

        Of the N sequences with all their targets; of every one where none has several.
        """
        return None if self.pulled is None else self.whole(self.pulled).flatten(1)

    def whole(self, rows: Tensor) -> Tensor:
        """The rows [B, …] of the sequences with all their targets; all rows where none has several."""
        return rows if self.places is None else rows[self.places.whole]

    @cached_property
    def reach(self) -> Tensor | None:
        """Size of the gradient at the tokens so many steps before the loss: [T], zeros beyond.

        Over the sequences with one target.
        """
        if self.pulled is None or self.places is None:
            return None
        size = self.pulled[self.places.alone].norm(dim=-1).double().square_()
        size.masked_fill_(self.places.behind, 0.0)
        seen = torch.zeros(self.length, dtype=size.dtype, device=size.device)
        return seen.index_add_(0, self.places.steps, size.flatten()).sqrt_()

    @cached_property
    def spectra(self) -> Spectra:
        """Eigenvalues of the correlation between the units of each mixer's output."""
        return Spectra(self.hidden)

    @cached_property
    def angles(self) -> float | None:
        """S(R) of the correlation R between the sequences' gradients at the embedded tokens."""
        return None if self.jacobian is None else covariance_score(self.jacobian)

    @cached_property
    def recall(self) -> Recall | None:
        """What can be read of earlier tokens from the last mixer's output."""
        from archdsl.search.metrics.recall import recall

        return None if self.embedded is None or not self.mixers else recall(self)

    @cached_property
    def matrices(self) -> dict[str, Tensor]:
        """The weights with two axes or more by name, without the tables of tokens."""
        pairs = zip(self.names, self.weights, strict=True)
        return {
            name: weight
            for name, weight in pairs
            if weight.dim() > 1 and name.rpartition(".")[0] not in self.tables
        }

    @cached_property
    def mixer_matrices(self) -> list[tuple[Tensor, Tensor]]:
        """The matrices of the mixers and of the projections around them, each with its gradient."""
        gradients = dict(zip(self.names, self.gradients, strict=True))
        found = {
            name: weight
            for mixer in self.mixers
            for name, weight in self._around(mixer.name).items()
        }
        return [(weight, gradients[name]) for name, weight in found.items()]

    @cached_property
    def nuclear(self) -> list[tuple[float, float]]:
        """Nuclear norms of those matrices and of their gradients, which take a decomposition each."""

        def norm(matrices: Tensor) -> float:
            return float(torch.linalg.matrix_norm(matrices.double(), "nuc").sum())

        return [(norm(weight), norm(gradient)) for weight, gradient in self.mixer_matrices]

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
    evidence = Evidence(arch, tokens.shape[1], places=places(task, seed, device, sequences))
    _describe(evidence, model, needs)
    with ExitStack() as things:
        if Need.GRADIENTS not in needs:
            things.enter_context(_frozen(model))
        things.enter_context(watched(model, needs, evidence))
        loss = model.loss(tokens, targets)
    if needs & BACKWARD:
        _pull(evidence, loss, needs)
    evidence.weights = [weight.detach() for weight in evidence.weights]
    if evidence.embedded is not None:
        evidence.embedded = evidence.embedded.detach()
    if Need.SIGNS in needs:
        evidence.codes = torch.cat([(value > 0).flatten(1) for value in evidence.hidden], 1)
    other = look(task, seed + 1, device, sequences) if Need.SECOND in needs else (tokens, targets)
    _further(evidence, model, needs, (tokens, targets), other)
    return evidence


def _describe(evidence: Evidence, model: nn.Module, needs: frozenset[Need]) -> None:
    """What can be said of the model before anything runs."""
    modules = list(model.named_modules())
    evidence.residual = any(isinstance(module, ResidualSum) for _, module in modules)
    if needs & {Need.GRADIENTS, Need.WEIGHTS}:
        evidence.tables = frozenset(n for n, module in modules if isinstance(module, TABLES))
        pairs = list(model.named_parameters())
        evidence.names = [name for name, _ in pairs]
        evidence.weights = [weight for _, weight in pairs]


def _pull(evidence: Evidence, loss: Tensor, needs: frozenset[Need]) -> None:
    """The gradients that are needed, and no others; parameters that the loss misses are dropped."""
    embedded = evidence.embedded if Need.JACOBIAN in needs else None
    mixers = evidence.mixers if Need.HIDDEN_GRADIENTS in needs else []
    wanted = [embedded] if embedded is not None else []
    hidden = [mixer for mixer in mixers if mixer.output.requires_grad]
    weights = evidence.weights if Need.GRADIENTS in needs else []
    inputs = [*wanted, *(mixer.output for mixer in hidden), *weights]
    if not inputs or not loss.requires_grad:
        return
    found = iter(torch.autograd.grad(loss, inputs, allow_unused=True))
    evidence.pulled = next(found) if wanted else None
    for mixer in hidden:
        mixer.gradient = next(found)
    if weights:
        reached = [
            pair for pair in zip(evidence.names, weights, found, strict=True) if pair[2] is not None
        ]
        evidence.names = [name for name, _, _ in reached]
        evidence.weights = [weight for _, weight, _ in reached]
        evidence.gradients = [gradient for _, _, gradient in reached]


Look = tuple[Tensor, Tensor]
"""Tokens and targets ``[B, T]``."""


def _further(
    evidence: Evidence, model: Any, needs: frozenset[Need], first: Look, other: Look
) -> None:
    """The passes that only a few metrics need; those that can share one do."""
    from archdsl.search.metrics import passes

    tokens, targets = first
    if Need.SYNFLOW in needs:
        evidence.synflow = passes.synflow(model, tokens[:1, : passes.FLOW])
    if needs & {Need.SECOND, Need.CURVATURE}:
        evidence.second = passes.gradients(model, *other)
        if Need.CURVATURE in needs:
            evidence.curved = passes.curvature(model, evidence.second, *other)
    if Need.NOISE in needs:
        noised = passes.noised(model, embedding(model), tokens, targets)
        evidence.noised = {size: evidence.whole(rows) for size, rows in noised.items()}


@contextmanager
def watched(model: Any, needs: frozenset[Need], evidence: Evidence) -> Iterator[None]:
    """Collect what mixers and the embedding give in the passes inside."""
    with ExitStack() as hooks:
        if needs & {Need.HIDDEN, Need.SIGNS, Need.HIDDEN_GRADIENTS}:
            for name, module in hidden_modules(model):
                hooks.enter_context(_hooked(module, _seen(evidence, name)))
        if needs & {Need.JACOBIAN, Need.HIDDEN}:
            hooks.enter_context(_hooked(embedding(model), _embedded(evidence)))
        yield


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No gradient of a weight is wanted inside: none is prepared for, and kernels need not find it."""
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in learned:
        weight.requires_grad = False
    try:
        yield
    finally:
        for weight in learned:
            weight.requires_grad = True


Hook = Callable[[nn.Module, Any, Any], None]


def _seen(evidence: Evidence, name: str) -> Hook:
    """Note a mixer's pass; a mixer that runs more than once is noted every time."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        given = tuple(part.detach() for part in inputs if isinstance(part, Tensor))
        evidence.mixers.append(Mixer(name, module, given, _first(output)))

    return hook


def _embedded(evidence: Evidence) -> Hook:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if evidence.embedded is None and torch.is_grad_enabled():
            evidence.embedded = output if output.requires_grad else output.requires_grad_()

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
