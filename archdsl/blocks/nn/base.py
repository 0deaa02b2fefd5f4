"""What modules share: the context of a call, states, and how an operation's module is called."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.op import Op
from archdsl.kernels.common import segments
from archdsl.kernels.shell.choice import Form

if TYPE_CHECKING:
    from archdsl.blocks.nn.forms import Rows

State = dict[str, Any]
"""A decoding state: tensors by name, nested as the regions are. Its leaves have the batch first."""


@dataclass
class Context:
    """What a whole call shares.

    Args:
        position: tokens that came before the first one of this call.
        keep: whether states are wanted back.
        auxiliary: losses that operations add beside their output (balance, halting …).
        carried: what one layer hands to those behind it beside the stream, by name.
        number: of the training step, from 0; ``None`` where nothing is trained.
        seed: of what is drawn in a step.
        iteration: which run of a loop's weights this is, for what differs from run to run.
        readout: logits of the stream at this place, where a loop may stop early.
        cu_seqlens: offsets of the sequences packed in a batch of one ``[N + 1]``; ``None`` for a plain batch.
        rows: where tokens go, inside a region that routes them.
    """

    position: int = 0
    keep: bool = False
    auxiliary: list[Tensor] = field(default_factory=list)
    carried: dict[str, Tensor] = field(default_factory=dict)
    number: int | None = None
    seed: int = 0
    iteration: int = 0
    readout: Callable[[Tensor], Tensor] | None = None
    cu_seqlens: Tensor | None = None
    rows: Rows | None = None

    def places(self, like: Tensor) -> Tensor:
        """How many tokens of its sequence came before each one of ``like [B, T, …]``: ``[T]``."""
        here = torch.arange(like.shape[1], device=like.device)
        if self.cu_seqlens is None:
            return here + self.position
        return here - self.cu_seqlens[segments(self.cu_seqlens, like.shape[1])[0]]


Seeded = Callable[[str], torch.Generator]
"""A generator for a parameter, by the name it is saved under, relative to its module."""


@dataclass(frozen=True)
class Place:
    """How deep a module stands: its number among those of the same operation, and how many there are."""

    index: int = 0
    count: int = 1

    @property
    def share(self) -> float:
        """From 0 for the first to 1 for the last."""
        return self.index / max(self.count - 1, 1)


class Site(nn.Module):
    """The module of one operation.

    ``call`` says how it is called: ``plain`` modules take tensors; ``context`` ones also the context;
    ``state`` ones also ``state=`` and give ``(outputs, state)``. A ``state`` of ``None`` is a fresh
    start; the state given back is ``None`` where the context does not keep it. Tensors are made in torch's
    default dtype on its default device: a model is moved as a whole, where something else is asked for.
    """

    op: Op
    call: ClassVar[Literal["plain", "context", "state"]] = "plain"
    packs: ClassVar[bool] = False
    """Whether a stateful module takes packed sequences, or hands the context to those inside."""
    bucketed: ClassVar[bool] = True
    """Whether packed sequences are better trained as batches of similar length, where those are known."""
    sparing: ClassVar[bool] = False
    """Whether it leaves out packed rows behind the last offset, which are nobody's."""
    routes: ClassVar[bool] = False
    """Whether it takes text and gives the rows that arrive, and sees to the memories' states itself."""
    place: Place = Place()
    places: ClassVar[bool] = False
    """Whether what it gives depends on where a token stands, though it keeps no state."""
    backend: Form | None = None
    """Which form of the shell's kernels runs; ``None`` is whichever suits the tensors."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.note(op=op)

    def note(self, **plain: object) -> None:
        """Keep attributes that are no tensors nor modules, without torch's long look at each."""
        vars(self).update(plain)

    def hold(self, **parameters: Tensor | None) -> None:
        """Keep tensors as parameters, in the same way; ``None`` where there is none."""
        for name, tensor in parameters.items():
            if tensor is None:
                vars(self)[name] = None
            else:
                self._parameters[name] = nn.Parameter(tensor)

    def held(self, name: str) -> Tensor:
        """A parameter, or the plain tensor that ``torch.func.functional_call`` has put in its place."""
        found: Tensor = getattr(self, name)
        return found

    def draw(self, seeded: Seeded) -> None:
        """Draw the random initial weights; what is not random is set by the constructor.

        It is called where no gradients are taken.
        """

    def init_state(self, batch: int, like: Tensor) -> State:
        """A fresh state for ``batch`` sequences, on ``like``'s device; ``model`` is its dtype."""
        return {
            name: torch.full(
                (batch, *buffer.shape),
                buffer.fill,
                dtype=state_dtype(buffer.dtype, like),
                device=like.device,
            )
            for name, buffer in self.op.state(0).items()
        }


def caches(state: State) -> bool:
    """Whether a state has an entry a token ``[B, S, D]``, as that of attention."""
    named = set(state) in ({"keys", "values"}, {"latents"})
    return named and all(isinstance(x, Tensor) and x.dim() == 3 for x in state.values())


def state_dtype(name: str, like: Tensor) -> torch.dtype:
    """The dtype of a state; ``float32`` ones are kept in float64 where the model is."""
    if name == "model":
        return like.dtype
    if name == "float32":
        return torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.int64


def widened(x: Tensor) -> Tensor:
    """In float32, or wider if it is already: what gates and states are computed in."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def exactly(like: Tensor) -> AbstractContextManager[Any]:
    """A context without autocast: gates and states are computed in the precision they are given in."""
    kind = like.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def unit(x: Tensor) -> Tensor:
    """To unit length over the last axis: ``x / sqrt(Σx² + 1e-6)``, as published code has it."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def heads_apart(x: Tensor, heads: int) -> Tensor:
    """``[B, T, H·D]`` → ``[B, T, H, D]``."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def by_head(x: Tensor, weight: Tensor) -> Tensor:
    """``[…, H·D]`` times a matrix, or a block a head ``[H, E, D]``: ``[…, H·E]``."""
    if weight.dim() == 2:
        return F.linear(x, weight)
    if weight.shape[0] == 1:
        return F.linear(x, weight[0])
    rows = x.reshape(-1, weight.shape[0], weight.shape[2]).transpose(0, 1)
    y = torch.bmm(rows, weight.transpose(1, 2)).transpose(0, 1)
    return y.reshape(*x.shape[:-1], weight.shape[0] * weight.shape[1])
