"""Tasks that draw their own sequences and ask for symbols at known positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.asking import Direction
from archdsl.blocks.base import Invalid
from archdsl.search.tasks.base import HELD_OUT, IGNORED, TRAINING, LearningTask, random_stream

if TYPE_CHECKING:
    import numpy as np

    from archdsl.search.tasks.base import Judge, Tokens

AT_A_TIME = 128
"""Sequences behind one macro average, the batch of MAD's test loop."""


class Drawn(LearningTask):
    """A task that is drawn; a subclass says the sizes and how with :meth:`draw`.

    Args:
        vocab: number of symbols.
        length: tokens of one sequence.
        examples: sequences to train on, shown again and again; ``none`` draws fresh ones for ever.
    """

    measures: ClassVar[Mapping[str, Direction]] = {"accuracy": "maximize"}

    vocab: Annotated[int, Field(ge=2, le=1_000_000)]
    length: Annotated[int, Field(ge=2, le=1_000_000)]
    examples: Annotated[int, Field(ge=1, le=10**9)] | None = None

    @property
    def symbols(self) -> int:
        """The whole vocabulary."""
        return self.vocab

    @property
    def positions(self) -> int:
        """``length``."""
        return self.length

    def draw(self, random: np.random.Generator, count: int, judged: bool) -> tuple[Tokens, Tokens]:
        """Sequences and their targets, [count, positions] each.

        Args:
            random: all that the draw depends on.
            count: sequences.
            judged: whether the targets are those that are judged, or those that are learned.
        """
        raise AssertionError(f"{type(self).__name__} does not say how it is drawn")

    def batch(self, count: int, seed: int, step: int) -> tuple[Tokens, Tokens]:
        """Sequences and targets [count, positions] of one training step."""
        if self.examples is not None:
            step %= max(1, self.examples // count)
            count = min(count, self.examples)
        return self.draw(random_stream(TRAINING, seed, step), count, judged=False)

    def held_out(self, count: int, seed: int) -> tuple[Tokens, Tokens]:
        """``count`` fresh sequences, the same for every architecture, and what is judged."""
        return self.draw(random_stream(HELD_OUT, seed), count, judged=True)

    def evaluate(self, judge: Judge, count: int, seed: int) -> dict[str, float]:
        """The measures over held-out sequences."""
        tokens, targets = self.held_out(count, seed)
        predictions = judge.predictions(tokens)
        return {name: MEASURES[name](predictions, targets) for name in self.measures}


def accuracy(predictions: Tokens, targets: Tokens) -> float:
    """The mean over sequences of the share of their answers that are right."""
    asked = targets != IGNORED
    right = (predictions == targets) & asked
    return float((right.sum(1) / asked.sum(1)).mean())


def macro_accuracy(predictions: Tokens, targets: Tokens) -> float:
    """The mean over symbols of the share of their answers that are right, batch by batch.

    What "Mechanistic Design and Scaling of Hybrid Architectures" (Poli et al., 2024) reports as
    accuracy: torchmetrics' default average, in which a symbol that was answered but never asked for
    counts as 0, taken for each batch of 128 and then averaged.
    """
    import numpy as np

    starts = range(0, len(targets), AT_A_TIME)
    parts = [slice(start, start + AT_A_TIME) for start in starts]
    return float(np.mean([_macro(predictions[part], targets[part]) for part in parts]))


def _macro(predictions: Tokens, targets: Tokens) -> float:
    import numpy as np

    asked = targets != IGNORED
    wanted, given = targets[asked], predictions[asked]
    size = int(max(wanted.max(), given.max())) + 1
    supported, answered = np.bincount(wanted, minlength=size), np.bincount(given, minlength=size)
    right = np.bincount(wanted[wanted == given], minlength=size)
    seen = (supported + answered) > 0
    return float((right[seen] / np.maximum(supported[seen], 1)).mean())


MEASURES: dict[str, Callable[[Tokens, Tokens], float]] = {
    "accuracy": accuracy,
    "macro_accuracy": macro_accuracy,
}
"""Every measure of answers, by name."""


class Mad(Drawn):
    """A task of MAD (Poli et al., 2024, arXiv 2403.17844), with the measure the paper reports beside."""

    measures: ClassVar[Mapping[str, Direction]] = {
        "accuracy": "maximize",
        "macro_accuracy": "maximize",
    }


def misfit(argument: str, message: str, label: str, help: str) -> Invalid:
    """A size that leaves no room for what the task must show."""
    return Invalid("task-size", message, argument=argument, label=label, help=help)


def distinct(random: np.random.Generator, count: int, size: int, bound: int) -> Tokens:
    """``size`` distinct numbers below ``bound`` in uniform order, ``count`` times."""
    import numpy as np

    noise = random.random((count, bound))
    chosen = np.argpartition(noise, size - 1, axis=1)[:, :size]
    order = np.argsort(np.take_along_axis(noise, chosen, 1), axis=1)
    return np.take_along_axis(chosen, order, 1)
