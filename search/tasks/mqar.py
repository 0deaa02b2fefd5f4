"""Multi-query associative recall: the field's test of what a memory can hold."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.base import Real
from archdsl.search.tasks.anchors import Anchor, Published
from archdsl.search.tasks.base import IGNORED
from archdsl.search.tasks.drawn import Drawn, distinct, misfit

if TYPE_CHECKING:
    import numpy as np

    from archdsl.search.tasks.base import Numbers, Tokens


SMALL = "vocab = 128, length = 64, pairs = 8"
"""Sizes that a small model learns in a minute."""

RATES = {16: Fraction(1, 100), 32: Fraction(5, 1000), 64: Fraction(3, 1000)}
"""Learning rates of attention by its width."""


def _attention(width: int, rate: Fraction) -> Anchor:
    return Anchor(
        "attention(heads = 1)", 0.98, steps=600, sizes=SMALL, width=width, channel=False,
        position="learned", learning_rate=rate,
    )  # fmt: skip


class MQAR(Drawn):
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
        examples: sequences to train on; ``none`` draws fresh ones for ever.
        pairs: keys to remember; at most ``length / 4``.
        gap_power: a; 1 asks at uniform gaps, near 0 soon after the pairs.
        random_non_queries: fill with random tokens.
    """

    name: ClassVar[str] = "mqar"
    published: ClassVar[Published] = Published(
        vocabulary=8192,
        positions=64,
        scored=8 / 64,
        anchors=(  # Arora et al., 2023, figure 2: attention at every width, small states at none
            *(_attention(width, rate) for width, rate in RATES.items()),
            Anchor(
                "linear_attention(heads = 4, conv = 4)", 0.5, solves=False, steps=300, sizes=SMALL,
                width=16, channel=False, learning_rate=RATES[16],
            ),
        ),
    )  # fmt: skip

    vocab: Annotated[int, Field(ge=4, le=1_000_000)] = 8192
    length: Annotated[int, Field(ge=4, le=1_000_000)] = 64
    pairs: Annotated[int, Field(ge=1, le=250_000)] = 8
    gap_power: Annotated[Real, Field(gt=0, le=10)] = Fraction(1, 100)
    random_non_queries: bool = True

    @property
    def shown(self) -> int:
        """Pairs in front of the questions."""
        return self.pairs

    def verify(self) -> None:
        """Sizes must leave room for every pair and every question."""
        if self.length % 2:
            raise misfit("length", f"`length = {self.length}` is odd", "keys and values alternate",
                         f"use {self.length + 1}")  # fmt: skip
        if 4 * self.pairs > self.length:
            raise misfit(
                "pairs",
                f"{self.pairs} pairs do not fit into {self.length} tokens",
                "a pair takes 4 tokens: key, value, question, answer",
                f"use at most {self.length // 4} pairs, or `length = {4 * self.pairs}`",
            )
        if self.vocab <= self.length or self.vocab // 2 - 1 < self.pairs:
            least = max(self.length, 2 * self.pairs + 1) + 1
            raise misfit("vocab", f"`vocab = {self.vocab}` is too small for {self.length} tokens",
                         "keys and values are distinct", f"use at least {least}")  # fmt: skip

    def draw(self, random: np.random.Generator, count: int, judged: bool) -> tuple[Tokens, Tokens]:
        """Pairs, then questions; the answers are the targets."""
        import numpy as np

        half = self.vocab // 2
        keys = 1 + distinct(random, count, self.pairs, half - 1)
        values = half + distinct(random, count, self.pairs, self.vocab - half)
        tokens = np.zeros((count, self.length), dtype=np.int64)
        answers = self.show(random, tokens, keys, values)
        places = 2 * self.shown + 2 * self._gaps(random, count)
        targets = np.full_like(tokens, IGNORED)
        np.put_along_axis(tokens, places, keys, axis=1)
        np.put_along_axis(targets, places, answers, axis=1)
        if self.random_non_queries:
            filler = random.integers(self.vocab, size=tokens.shape)
            tokens = np.where(tokens == 0, filler, tokens)
        return tokens, targets

    def show(
        self, random: np.random.Generator, tokens: Tokens, keys: Tokens, values: Tokens
    ) -> Tokens:
        """Write the pairs in front, and say what each key's value is in the end: [count, pairs]."""
        tokens[:, 0 : 2 * self.pairs : 2] = keys
        tokens[:, 1 : 2 * self.pairs : 2] = values
        return values

    def _gaps(self, random: np.random.Generator, count: int) -> Tokens:
        """Even gaps, halved, without replacement: [count, pairs] (Gumbel's top-k draws in order)."""
        import numpy as np

        room = (self.length - 2 * self.shown) // 2
        power = float(self.gap_power)
        weight: Numbers = (power - 1) * np.log(np.arange(1, room + 1, dtype=np.float64))
        noisy = weight + random.gumbel(size=(count, room))
        return np.argsort(-noisy, axis=1, kind="stable")[:, : self.pairs]
