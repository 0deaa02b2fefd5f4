"""MAD's selective copying: remember what stands between blanks, in order."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.search.tasks.anchors import MEMORYLESS, Anchor, Published
from archdsl.search.tasks.base import IGNORED
from archdsl.search.tasks.drawn import Mad, misfit

if TYPE_CHECKING:
    import numpy as np

    from archdsl.search.tasks.base import Tokens


SMALL = "length = 32, tokens = 4"
"""Sizes that a small model learns in a minute."""

RATE = Fraction(2, 1000)


class SelectiveCopying(Mad):
    """Tokens with blanks strewn between them, a copy sign, then blanks where they are to be said again.

    MAD's ``generate_selective_copying_instance``: each of the blanks stands in front of a token that is
    drawn for it, so none stands behind the last token. The generator draws these places from numpy's
    global stream, which makes the published file the only reproducible one; here they come from the
    task's own.

    Args:
        vocab: number of symbols, blank and copy sign with them.
        length: tokens of one sequence.
        examples: sequences to train on (12,800 in MAD); ``none`` draws fresh ones for ever.
        tokens: how many are to be copied.
    """

    name: ClassVar[str] = "selective_copying"
    published: ClassVar[Published] = Published(
        vocabulary=16,
        positions=256,
        scored=16 / 256,
        anchors=(
            Anchor("deltanet(heads = 1)", 0.98, steps=400, sizes=SMALL, learning_rate=RATE),
            Anchor(MEMORYLESS, 0.12, solves=False, steps=100, sizes=SMALL),  # one of 14 tokens
        ),
    )

    vocab: Annotated[int, Field(ge=3, le=1_000_000)] = 16
    length: Annotated[int, Field(ge=4, le=1_000_000)] = 256
    tokens: Annotated[int, Field(ge=1, le=500_000)] = 16

    def verify(self) -> None:
        """The copies must fit behind the tokens."""
        least = 2 * self.tokens + 2
        if self.length < least:
            raise misfit("length", f"`length = {self.length}` is too short to copy {self.tokens} tokens",
                         "it holds the tokens twice, the copy sign and a blank",
                         f"use at least {least}")  # fmt: skip

    def draw(self, random: np.random.Generator, count: int, judged: bool) -> tuple[Tokens, Tokens]:
        """Tokens among blanks, the copy sign, blanks; the targets stand on these last blanks."""
        import numpy as np

        blank, copy = self.vocab - 2, self.vocab - 1
        wanted = random.integers(self.vocab - 2, size=(count, self.tokens))
        slots = random.integers(self.tokens, size=(count, self.length - 2 * self.tokens - 1))
        flat = slots + self.tokens * np.arange(count)[:, None]
        in_front = np.bincount(flat.ravel(), minlength=count * self.tokens).reshape(wanted.shape)
        tokens = np.full((count, self.length), blank, dtype=np.int64)
        np.put_along_axis(tokens, np.arange(self.tokens) + in_front.cumsum(1), wanted, 1)
        tokens[:, -self.tokens - 1] = copy
        targets = np.full_like(tokens, IGNORED)
        targets[:, -self.tokens :] = wanted
        return tokens, targets
