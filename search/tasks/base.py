"""What every task gives the training loop: batches to learn from and a way to be judged.

A task is torch-free: it makes numpy arrays and asks a :class:`Judge` what the model thinks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from archdsl.blocks.asking import Task

if TYPE_CHECKING:
    from typing import Self, TypeAlias

    import numpy as np
    from numpy.typing import NDArray

    from archdsl.search.tasks.anchors import Published

    Tokens: TypeAlias = NDArray[np.int64]
    Numbers: TypeAlias = NDArray[np.float64]
    Mask: TypeAlias = NDArray[np.bool_]

IGNORED = -100
"""The target of a position that is not learned and not judged."""

TRAINING, HELD_OUT = 0, 1
"""Streams of random numbers: a model is never judged on the draws it learned from."""


class Judge(Protocol):
    """A trained model as a task sees it: arrays in, arrays out."""

    def predictions(self, tokens: Tokens) -> Tokens:
        """The most likely next symbol at each position: [B, T] → [B, T]."""

    def losses(self, tokens: Tokens, targets: Tokens) -> Numbers:
        """Cross-entropy at each position in nats, 0 where the target is ignored: [B, T]."""

    def generate(self, prompt: Tokens, count: int, seed: int) -> Tokens:
        """``count`` sampled symbols behind each prompt: [B, T] → [B, count]."""


class LearningTask(Task):
    """A task that can be trained on. Every method is a pure function of its arguments.

    ``published`` says what is known about it, for ``archdsl verify tasks``.
    """

    published: ClassVar[Published | None] = None

    def bind(self, data: Path | None, folder: Path) -> Self:
        """The task with the user's data in place.

        Args:
            data: what the user gave beside the spec (``--data``), if anything.
            folder: where relative paths of the spec start.
        """
        return self

    def example(self, folder: Path) -> Path | None:
        """A file to learn from that what is published is about, written into ``folder``.

        ``None`` where the task makes its own data.
        """
        return None

    def prepare(self) -> None:
        """Raise :class:`archdsl.diagnostics.ArchError` where the data cannot be used."""

    def fingerprint(self) -> str:
        """What identifies the data behind the task; empty where the task makes its own."""
        return ""

    def around(self, model: Any, seed: int) -> Any:
        """What is trained: the model, or a module around it that has its methods.

        Args:
            model: a compiled model.
            seed: of further weights.
        """
        return model

    def batch(self, count: int, seed: int, step: int) -> tuple[Tokens, Tokens]:
        """Tokens and targets [count, positions] of one training step."""
        raise AssertionError(f"{type(self).__name__} does not say how it is learned")

    def held_out(self, count: int, seed: int) -> tuple[Tokens, Tokens]:
        """At most ``count`` sequences and targets [count, positions] to be judged on, never learned from."""
        raise AssertionError(f"{type(self).__name__} does not say what it is judged on")

    def evaluate(self, judge: Judge, count: int, seed: int) -> dict[str, float]:
        """One value for each name in ``measures``, over at most ``count`` held-out sequences."""
        raise AssertionError(f"{type(self).__name__} does not say how it is judged")

    def sample(self, judge: Judge, seed: int) -> str | None:
        """Something the model wrote, for the report; ``None`` where that says nothing."""
        return None


def random_stream(*key: int) -> np.random.Generator:
    """A generator that depends on ``key`` alone, so that no state needs to be saved."""
    import numpy as np

    return np.random.default_rng(np.random.SeedSequence(key))
