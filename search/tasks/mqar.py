"""Multi-query associative recall: the field's test of what a memory can hold."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.asking import Direction
from archdsl.blocks.base import Invalid, Real
from archdsl.search.tasks.base import HELD_OUT, IGNORED, TRAINING, LearningTask, random_stream

if TYPE_CHECKING:
    import numpy as np

    from archdsl.search.tasks.base import Judge, Numbers, Tokens


class MQAR(LearningTask):
    """Recall the value of a key that was shown once, several times in a sequence.

    The generator of "Zoology: Measuring and Improving Recall in Efficient Language Models" (Arora et
    al., ICLR 2024), file ``zoology/data/multiquery_ar.py``: ``pairs`` distinct keys from [1, vocab/2)
    and distinct values from [vocab/2, vocab) stand first, alternating; each key is then asked once,
    at an even gap behind them drawn without replacement from p(x) ∝ a·x^(a−1) with a = ``gap_power``.
    Only the answers are learned. Accuracy is the mean over sequences of the share of answers that
    are right.

    Options: with ``random_non_queries`` (the generator's default, and ours) every position that holds
    neither pair nor question is a random token of the whole vocabulary; the paper's figure 2 sets it
    to false, which leaves 0 there. One pass over the pairs; no separate slices.

    Args:
        vocab: number of symbols; more than ``length``, as in the generator.
        length: tokens of one sequence; even.
        pairs: keys to remember; at most ``length / 4``.
        gap_power: a; 1 asks at uniform gaps, near 0 soon after the pairs.
        random_non_queries: fill with random tokens.
    """

    name: ClassVar[str] = "mqar"
    measures: ClassVar[dict[str, Direction]] = {"accuracy": "maximize"}

    vocab: Annotated[int, Field(ge=4, le=1_000_000)] = 8192
    length: Annotated[int, Field(ge=4, le=1_000_000)] = 64
    pairs: Annotated[int, Field(ge=1, le=250_000)] = 8
    gap_power: Annotated[Real, Field(gt=0, le=10)] = Fraction(1, 100)
    random_non_queries: bool = True

    @property
    def symbols(self) -> int:
        """The whole vocabulary."""
        return self.vocab

    @property
    def positions(self) -> int:
        """``length``."""
        return self.length

    def verify(self) -> None:
        """Sizes must leave room for every pair and every question."""
        if self.length % 2:
            raise _misfit("length", f"`length = {self.length}` is odd", "keys and values alternate",
                          f"use {self.length + 1}")  # fmt: skip
        if 4 * self.pairs > self.length:
            raise _misfit(
                "pairs",
                f"{self.pairs} pairs do not fit into {self.length} tokens",
                "a pair takes 4 tokens: key, value, question, answer",
                f"use at most {self.length // 4} pairs, or `length = {4 * self.pairs}`",
            )
        if self.vocab <= self.length or self.vocab // 2 - 1 < self.pairs:
            least = max(self.length, 2 * self.pairs + 1) + 1
            raise _misfit("vocab", f"`vocab = {self.vocab}` is too small for {self.length} tokens",
                          "keys and values are distinct", f"use at least {least}")  # fmt: skip

    def batch(self, count: int, seed: int, step: int) -> tuple[Tokens, Tokens]:
        """Sequences and targets [count, length] of one training step."""
        return self._draw(random_stream(TRAINING, seed, step), count)

    def evaluate(self, judge: Judge, count: int, seed: int) -> dict[str, float]:
        """Accuracy on ``count`` fresh sequences, the same for every architecture."""
        tokens, targets = self._draw(random_stream(HELD_OUT, seed), count)
        asked = targets != IGNORED
        right = (judge.predictions(tokens) == targets) & asked
        return {"accuracy": float((right.sum(1) / asked.sum(1)).mean())}

    def _draw(self, random: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        import numpy as np

        half = self.vocab // 2
        keys = 1 + _distinct(random, count, self.pairs, half - 1)
        values = half + _distinct(random, count, self.pairs, self.vocab - half)
        tokens = np.zeros((count, self.length), dtype=np.int64)
        tokens[:, 0 : 2 * self.pairs : 2] = keys
        tokens[:, 1 : 2 * self.pairs : 2] = values
        places = 2 * self.pairs + 2 * self._gaps(random, count)
        targets = np.full_like(tokens, IGNORED)
        np.put_along_axis(tokens, places, keys, axis=1)
        np.put_along_axis(targets, places, values, axis=1)
        if self.random_non_queries:
            filler = random.integers(self.vocab, size=tokens.shape)
            tokens = np.where(tokens == 0, filler, tokens)
        return tokens, targets

    def _gaps(self, random: np.random.Generator, count: int) -> Tokens:
        """Even gaps, halved, without replacement: [count, pairs] (Gumbel's top-k draws in order)."""
        import numpy as np

        room = (self.length - 2 * self.pairs) // 2
        power = float(self.gap_power)
        weight: Numbers = (power - 1) * np.log(np.arange(1, room + 1, dtype=np.float64))
        noisy = weight + random.gumbel(size=(count, room))
        return np.argsort(-noisy, axis=1, kind="stable")[:, : self.pairs]


def _distinct(random: np.random.Generator, count: int, size: int, bound: int) -> Tokens:
    """``size`` distinct numbers below ``bound`` in uniform order, ``count`` times."""
    import numpy as np

    noise = random.random((count, bound))
    chosen = np.argpartition(noise, size - 1, axis=1)[:, :size]
    order = np.argsort(np.take_along_axis(noise, chosen, 1), axis=1)
    return np.take_along_axis(chosen, order, 1)


def _misfit(argument: str, message: str, label: str, help: str) -> Invalid:
    return Invalid("task-size", message, argument=argument, label=label, help=help)
