"""The compiled model: a plain ``nn.Module`` that trains, decodes, generates and saves itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from archdsl.blocks.nn import packed
from archdsl.blocks.nn.attention import SoftmaxAttention
from archdsl.blocks.nn.base import Context, State, widened
from archdsl.blocks.nn.cell import CellRecurrence
from archdsl.blocks.nn.dense import Head
from archdsl.blocks.nn.dynamic import DynamicConvolution
from archdsl.blocks.nn.fourier import FourierMix
from archdsl.blocks.nn.learner import LearnerMemory
from archdsl.blocks.nn.loop import Loop
from archdsl.blocks.nn.memory import DecayMemory, DeltaMemory, ScanMemory
from archdsl.blocks.nn.routing import MixtureOfMemories
from archdsl.blocks.nn.structure import RegionModule, Step
from archdsl.compiler.graphs.cost import Cost
from archdsl.compiler.graphs.graph import Graph
from archdsl.compiler.models.emit import fill, tie
from archdsl.kernels.shell.loss import linear_cross_entropy

if TYPE_CHECKING:
    from archdsl.compiler.spaces.arch import Arch

IGNORED = -100
"""Target of a position that does not count in a loss."""

LOGITS_AT_ONCE = 2**24
"""Logits a loss holds at a time, in elements."""

HIDDEN = (
    SoftmaxAttention, DecayMemory, DeltaMemory, ScanMemory, CellRecurrence, FourierMix,
    DynamicConvolution, LearnerMemory, MixtureOfMemories,
)  # fmt: skip
"""Modules whose (first) output ``[B, T, D]`` is a mixer's hidden representation."""


class Model(RegionModule):
    """A model of tokens. ``arch``, ``graph`` and ``cost`` are what it was compiled from.

    ``model(tokens)`` gives logits for ``[B, T]`` tokens. :meth:`init_state`, :meth:`step` and
    :meth:`prefill` decode: the same outputs, token by token or in chunks of any size.

    Attributes:
        number: of the training step that the next :meth:`loss` belongs to; it counts them itself.
        seed: of what is drawn in a training step, with its number: the depth of a loop.
    """

    arch: Arch
    graph: Graph
    number: int
    seed: int
    draws: bool
    decodable: bool

    def __init__(self, arch: Arch, graph: Graph) -> None:
        super().__init__()
        vars(self).update(arch=arch, graph=graph, number=0, seed=0)
        made: list[nn.Module] = []
        fill(self, graph, made)
        tie(made)
        draws = any(isinstance(module, Loop) for module in made)
        vars(self).update(draws=draws, decodable=self.cost.causal)

    @property
    def cost(self) -> Cost:
        """What it costs; see :class:`archdsl.compiler.graphs.cost.Cost`."""
        return self.arch.cost

    def loops(self) -> list[tuple[str, Loop]]:
        """Its loops by path; ``loop.times = 64`` sets how often one runs when not training."""
        return [(name, module) for name, module in self.named_modules() if isinstance(module, Loop)]

    def forward(self, tokens: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Logits for every position: ``[B, T]`` int64 → ``[B, T, V]``.

        Args:
            tokens: ``[B, T]``.
            cu_seqlens: ``[N + 1]`` offsets of N sequences packed in ``[1, T]``; nothing passes from one
                to the next, and positions count from the start of each.

        Raises:
            ValueError: the offsets do not cut the tokens into sequences.
        """
        context = _packed(Context(), tokens, cu_seqlens)
        return self.run(tokens, None, context)[0] if tokens.shape[1] else self._of_none(tokens)

    def _of_none(self, tokens: Tensor) -> Tensor:
        """Logits ``[B, 0, V]`` of no tokens; most operations need one."""
        return self.table.new_zeros(*tokens.shape, self.table.shape[0])

    def features(self, tokens: Tensor) -> Tensor:
        """What the head reads: ``[B, T]`` int64 → ``[B, T, D]``."""
        return self.run(tokens, None, Context(), steps=len(self.program) - 1)[0]

    @property
    def table(self) -> Tensor:
        """The head's weights ``[V, D]``, its own or the embedding's."""
        head = self.operation(self.program[-1])
        assert isinstance(head, Head), "there is no head at the model's end"
        return head.table

    def loss(self, tokens: Tensor, targets: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        """Mean cross-entropy in nats over targets that are not -100, plus auxiliary losses.

        Args:
            tokens: ``[B, T]``.
            targets: ``[B, T]``, or ``[B]`` for a classifier.
            cu_seqlens: offsets of packed sequences, as for :meth:`forward`.

        Logits are only computed where there is a target, and never all at once if they are many.
        """
        context = _packed(self._learning(), tokens, cu_seqlens)
        head = self.operation(self.program[-1])
        assert isinstance(head, Head), "a loss needs a head at the model's end"
        features, _ = self.run(tokens, None, context, steps=len(self.program) - 1)
        total = cross_entropy(features.flatten(0, -2), targets.flatten(), head)
        return torch.stack([total, *context.auxiliary]).sum() if context.auxiliary else total

    def _learning(self) -> Context:
        """A context of one training step; of an evaluation, where nothing is trained.

        A step that activation checkpointing computes again draws what it drew.
        """
        if not (self.draws and self.training and torch.is_grad_enabled()):
            return Context()
        if not _in_backward():
            self.number += 1
        return Context(number=self.number - 1, seed=self.seed)

    def _step(
        self,
        step: Step,
        registers: dict[int, Tensor],
        state: State | None,
        kept: State,
        context: Context,
    ) -> None:
        module = self.operation(step)
        if isinstance(module, Loop) and module.exit is not None and _one_token(registers, context):
            context.readout = partial(self._rest, step, dict(registers), state, context)
        super()._step(step, registers, state, kept, context)

    def _rest(
        self,
        step: Step,
        registers: dict[int, Tensor],
        state: State | None,
        context: Context,
        x: Tensor,
    ) -> Tensor:
        """Logits of what a step may give, ``x``, through the layers behind it."""
        ahead = Context(position=context.position, carried=dict(context.carried))
        registers = {**registers, step.outputs[0]: x}
        for after in self.program[self.program.index(step) + 1 :]:
            super()._step(after, registers, state, {}, ahead)
        return registers[self.result]

    def init_state(self, batch: int) -> State:  # type: ignore[override]
        """The state before the first token, for ``batch`` sequences."""
        like = next(self.parameters())
        return {"position": 0, "layers": super().init_state(batch, like)}

    def prefill(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits ``[B, T, V]`` of the next ``T`` tokens, and the state behind them."""
        self._decodable()
        if not tokens.shape[1]:
            return self._of_none(tokens), state
        context = Context(position=state["position"], keep=True)
        logits, layers = self.run(tokens, state["layers"], context)
        return logits, {"position": state["position"] + tokens.shape[1], "layers": layers}

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits ``[B, V]`` of one token ``[B]``, and the state behind it."""
        logits, state = self.prefill(token[:, None], state)
        return logits[:, 0], state

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        count: int,
        *,
        temperature: float = 1.0,
        top: int | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Sample ``count`` tokens behind a prompt ``[B, T]`` (T ≥ 1): ``[B, T + count]``.

        Args:
            prompt: what stands already.
            count: how many tokens to add.
            temperature: of the distribution; 0 takes the likeliest token.
            top: keep only so many of the likeliest tokens.
            seed: of the draws, for a sample that can be had again.
        """
        generator = None if seed is None else torch.Generator(prompt.device).manual_seed(seed)
        logits, state = self.prefill(prompt, self.init_state(prompt.shape[0]))
        tokens, last = [prompt], logits[:, -1]
        for _ in range(count):
            token = drawn(last, temperature, top, generator)
            tokens.append(token[:, None])
            last, state = self.step(token, state)
        return torch.cat(tokens, 1)

    def hidden_sites(self) -> list[tuple[str, nn.Module]]:
        """Mixers and cells by path, in the order they run; see :data:`HIDDEN`.

        A mixture stands for its memories, whose rows are not the batch's.
        """
        found: list[tuple[str, nn.Module]] = []
        for name, module in self.named_modules():
            within = found and isinstance(found[-1][1], MixtureOfMemories)
            if isinstance(module, HIDDEN) and not (within and name.startswith(f"{found[-1][0]}.")):
                found.append((name, module))
        return found

    def state_bytes(self, state: State) -> int:
        """Bytes of a decoding state's tensors, over its whole batch."""
        return sum(tensor.numel() * tensor.element_size() for tensor in leaves(state))

    def save(self, path: str) -> None:
        """Write weights and the closed ``.arch`` text to a safetensors file."""
        from archdsl.compiler.models.checkpoint import save

        save(self, path)

    def _decodable(self) -> None:
        if not self.decodable:
            raise ValueError(
                "this model sees the whole sequence at once, so it cannot decode token by token:"
                " it has a layer that is not causal"
            )

    def extra_repr(self) -> str:
        """The hash of the architecture."""
        return f"architecture {self.arch.hash[:12]}"


def _in_backward() -> bool:
    """Whether a backward pass is running."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _one_token(registers: dict[int, Tensor], context: Context) -> bool:
    """Whether this call decodes a single token."""
    return context.keep and next(iter(registers.values())).shape[1] == 1


def _packed(context: Context, tokens: Tensor, cu_seqlens: Tensor | None) -> Context:
    """The context with the offsets of packed sequences."""
    if cu_seqlens is not None:
        packed.check(tokens, cu_seqlens)
        context.cu_seqlens = cu_seqlens
    return context


def leaves(state: Any) -> Iterator[Tensor]:
    """The tensors of a state, however nested."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from leaves(value)


def drawn(
    logits: Tensor, temperature: float, top: int | None, generator: torch.Generator | None
) -> Tensor:
    """One token a row of logits ``[B, V]``: ``[B]``."""
    if temperature == 0:
        return logits.argmax(-1)
    if top is not None:
        least = logits.topk(min(top, logits.shape[-1]), -1).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    weights = (logits.float() / temperature).softmax(-1)
    return torch.multinomial(weights, 1, generator=generator)[:, 0]


def cross_entropy(features: Tensor, targets: Tensor, head: Head) -> Tensor:
    """Mean cross-entropy of a head's logits: features ``[N, D]``, targets ``[N]``."""
    fused = head.backend is None and not torch.compiler.is_compiling()
    if fused and not torch.is_autocast_enabled(features.device.type):
        return linear_cross_entropy(
            features, head.table, head.bias, targets, LOGITS_AT_ONCE, cap=head.cap
        )
    if not torch.compiler.is_compiling():
        counted = targets != IGNORED
        features, targets = features[counted], targets[counted]
    size = max(1, LOGITS_AT_ONCE // head.table.shape[0])
    if len(targets) <= size or torch.compiler.is_compiling():
        return F.cross_entropy(widened(head(features)), targets, ignore_index=IGNORED)
    return _chunked(features, targets, head, size)


def _chunked(features: Tensor, targets: Tensor, head: Head, size: int) -> Tensor:
    def part(rows: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(widened(head(rows)), wanted, reduction="sum")

    pairs = zip(features.split(size), targets.split(size), strict=True)  # type: ignore[no-untyped-call]
    parts = [checkpoint(part, rows, wanted, use_reentrant=False) for rows, wanted in pairs]
    total: Tensor = torch.stack(parts).sum() / len(targets)
    return total
