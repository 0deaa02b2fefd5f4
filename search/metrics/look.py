"""The sequences that every architecture is looked at with, and where their losses stand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from archdsl.search.tasks.base import IGNORED, LearningTask

TOKENS = 2048
"""About how many tokens one look takes; at least 8 sequences and at most 32."""

PROBES = 4
"""One sequence in so many keeps its last target alone."""


@dataclass(frozen=True)
class Places:
    """Where the losses of sequences stand; worked out once for all architectures.

    Args:
        only: the position of a sequence's only target, ``[B]``; -1 where it has several.
        length: tokens of a sequence.
    """

    only: Tensor
    length: int

    def to(self, device: torch.device) -> Places:
        """The same on a device."""
        return self if self.only.device == device else Places(self.only.to(device), self.length)

    @cached_property
    def whole(self) -> slice | Tensor:
        """Rows of the sequences with all their targets; all rows where none has several."""
        several = self.only < 0
        count = int(several.sum()) or len(several)
        first = slice(count)
        return first if bool(several[first].all()) or count == len(several) else several

    @cached_property
    def alone(self) -> Tensor:
        """Rows of the sequences with one target: ``[N]``."""
        return (self.only >= 0).nonzero()[:, 0]

    @cached_property
    def lags(self) -> Tensor:
        """How many steps before its sequence's only target a token stands: ``[N, T]``, < 0 behind it."""
        return self.only[self.alone][:, None] - torch.arange(self.length, device=self.only.device)

    @cached_property
    def behind(self) -> Tensor:
        """The tokens behind the only target: ``[N, T]``."""
        return self.lags < 0

    @cached_property
    def steps(self) -> Tensor:
        """:attr:`lags` as places of a sum, 0 behind the target: ``[N · T]``."""
        return self.lags.clamp(min=0).flatten()


def look(
    task: LearningTask, seed: int, device: torch.device, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """The sequences every architecture is looked at with: tokens and targets [B, T].

    There are ``count`` of them, or as many as :data:`TOKENS` asks for. One in :data:`PROBES`, the last
    ones, keeps only its last learned position: its gradients at earlier tokens say how far back the
    model reaches. The others keep all that the task has them learn, so that the gradients of weights are
    those of the task's loss.
    """
    tokens, targets, _ = _sequences(task, seed, count or _count(task))
    return tokens.to(device), targets.to(device)


def places(task: LearningTask, seed: int, device: torch.device, count: int | None = None) -> Places:
    """Where the losses of :func:`look`'s sequences stand."""
    return _sequences(task, seed, count or _count(task))[2].to(device)


def _count(task: LearningTask) -> int:
    return max(8, min(32, TOKENS // task.positions))


@lru_cache(maxsize=8)
def _sequences(task: LearningTask, seed: int, count: int) -> tuple[Tensor, Tensor, Places]:
    """The sequences of :func:`look`: the same for every architecture, so drawn once."""
    tokens, targets = map(torch.from_numpy, task.batch(count, seed, 0))
    learned = targets != IGNORED
    last = learned.shape[1] - 1 - learned.int().flip(1).argmax(1)
    kept = torch.arange(learned.shape[1]) == last[:, None]
    kept[: len(kept) - max(1, len(kept) // PROBES)] = True
    left = torch.where(kept, targets, IGNORED)
    return tokens, left, Places(_only(left), tokens.shape[1])


def _only(targets: Tensor) -> Tensor:
    """Where the only target of each sequence stands, -1 where there are several: ``[B]``."""
    learned = targets != IGNORED
    return torch.where(learned.sum(1) == 1, learned.int().argmax(1), -1)
