"""Associative recall where some keys get a second value: what a memory can overwrite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.search.tasks.anchors import Anchor, Published
from archdsl.search.tasks.drawn import distinct, misfit
from archdsl.search.tasks.mqar import MQAR

if TYPE_CHECKING:
    import numpy as np

    from archdsl.search.tasks.base import Tokens


SMALL = "vocab = 64, length = 32, pairs = 4, updates = 4"
"""Sizes that a small model learns in a minute, with every key updated."""


class ForgettingMQAR(MQAR):
    """MQAR in which ``updates`` of the keys are shown again with another value; the last one counts.

    Zoology's ``zoology/data/forgetting_mqar.py``. There the new value differs from the first value of
    some key, which need not be the one that is updated; here it differs from the key's own, as that
    file's text says.

    Args:
        vocab: number of symbols.
        length: tokens of one sequence; even.
        examples: sequences to train on; ``none`` draws fresh ones for ever.
        pairs: keys to remember.
        gap_power: how soon after the pairs a key is asked for.
        random_non_queries: fill with random tokens.
        updates: keys that get a second value; at most ``pairs``.
    """

    name: ClassVar[str] = "forgetting_mqar"
    published: ClassVar[Published] = Published(
        vocabulary=8192,
        positions=64,
        scored=8 / 64,
        anchors=(
            Anchor("deltanet(heads = 1)", 0.95, steps=400, sizes=SMALL),
            # what is only added to shows an old value as strongly as the new one
            Anchor("linear_attention(heads = 1, conv = 4)", 0.5, solves=False, steps=150, sizes=SMALL),
        ),
    )  # fmt: skip

    updates: Annotated[int, Field(ge=0, le=250_000)] = 4

    @property
    def shown(self) -> int:
        """Pairs in front of the questions, the repeated ones with them."""
        return self.pairs + self.updates

    def verify(self) -> None:
        """As MQAR, and there must be keys and room for the updates."""
        super().verify()
        if self.updates > self.pairs:
            raise misfit("updates", f"{self.updates} of {self.pairs} keys cannot be updated",
                         "each key is updated at most once",
                         f"use at most {self.pairs}")  # fmt: skip
        least = 2 * self.shown + 2 * self.pairs
        if least > self.length:
            raise misfit(
                "updates",
                f"{self.pairs} pairs and {self.updates} updates do not fit into {self.length} tokens",
                "a pair takes 4 tokens, an update 2",
                f"use `length = {least}`",
            )

    def show(
        self, random: np.random.Generator, tokens: Tokens, keys: Tokens, values: Tokens
    ) -> Tokens:
        """Pairs, then the updated keys with values that are not their first ones."""
        import numpy as np

        super().show(random, tokens, keys, values)
        if not self.updates:
            return values
        half, start = self.vocab // 2, 2 * self.pairs
        which = distinct(random, len(keys), self.updates, self.pairs)
        first = np.take_along_axis(values, which, 1)
        other = random.integers(1, self.vocab - half, size=first.shape)
        fresh = half + (first - half + other) % (self.vocab - half)
        tokens[:, start : 2 * self.shown : 2] = np.take_along_axis(keys, which, 1)
        tokens[:, start + 1 : 2 * self.shown : 2] = fresh
        answers = values.copy()
        np.put_along_axis(answers, which, fresh, 1)
        return answers
