"""MAD's fuzzy in-context recall: keys and values of several tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.search.tasks.anchors import MEMORYLESS, Anchor, Published
from archdsl.search.tasks.base import IGNORED
from archdsl.search.tasks.drawn import Mad, distinct, misfit

if TYPE_CHECKING:
    import numpy as np

    from archdsl.search.tasks.base import Tokens

    Motif = tuple[int, ...]

BLOCK = 32
"""Pairs drawn at a time."""


SMALL = "vocab = 9, length = 32, key_motif = 2, value_motif = 1"
"""Sizes that a small model learns in a minute."""


class FuzzyInContextRecall(Mad):
    """In-context recall where a key and a value are motifs of one to three different tokens.

    MAD's ``generate_fuzzy_in_context_recall_instance`` with several queries (mad/data/instances.py): in
    training keys have any size, judged keys always the largest; the same motif of one size has one
    value; one pair, the probe, stands somewhere in the sequence and again at its end; what is missing
    in front is filled with the vocabulary's last symbol. Motifs are drawn when they are needed, not
    from a list of all of them: the distribution is the same. The generator can fail to show the probe
    before its end; here it is always shown.

    Args:
        vocab: number of symbols, the filler with them.
        length: tokens the model sees.
        examples: sequences to train on (12,800 in MAD); ``none`` draws fresh ones for ever.
        key_motif: most tokens of a key.
        value_motif: most tokens of a value.
    """

    name: ClassVar[str] = "fuzzy_in_context_recall"
    published: ClassVar[Published] = Published(
        vocabulary=16, positions=128, scored=None, anchors=(
            Anchor("deltanet(heads = 1)", 0.8, steps=400, sizes=SMALL),
            Anchor(MEMORYLESS, 0.4, solves=False, steps=50, sizes=SMALL),  # one of 4 values
        ),
    )  # fmt: skip

    vocab: Annotated[int, Field(ge=3, le=100_000)] = 16
    length: Annotated[int, Field(ge=4, le=1_000_000)] = 128
    key_motif: Annotated[int, Field(ge=1, le=64)] = 3
    value_motif: Annotated[int, Field(ge=1, le=64)] = 3

    def verify(self) -> None:
        """Motifs are of different tokens, and the probe must fit twice."""
        longest = max(self.key_motif, self.value_motif)
        if (self.vocab - 1) // 2 < longest:
            raise misfit("vocab", f"`vocab = {self.vocab}` is too small for motifs of {longest} tokens",
                         "a motif's tokens are all different",
                         f"use at least {2 * longest + 1}")  # fmt: skip
        least = 3 * (self.key_motif + self.value_motif)
        if self.length < least:
            raise misfit("length", f"`length = {self.length}` is too short for the motifs",
                         "a pair must fit in front of the probe and its repetition",
                         f"use at least {least}")  # fmt: skip

    def draw(self, random: np.random.Generator, count: int, judged: bool) -> tuple[Tokens, Tokens]:
        """Motifs, each sequence filled in front; targets are one token later."""
        import numpy as np

        rows = [self._row(random, judged) for _ in range(count)]
        tokens = np.array([row for row, _ in rows], dtype=np.int64)
        targets = np.array([row for _, row in rows], dtype=np.int64)
        return tokens[:, :-1].copy(), (targets if judged else tokens)[:, 1:].copy()

    def _row(self, random: np.random.Generator, judged: bool) -> tuple[list[int], list[int]]:
        """``length + 1`` tokens, and what is judged at each."""
        motifs = self._motifs(random, judged)
        probe = next(motifs)
        size = len(probe[0]) + len(probe[1])
        longest = self.key_motif + self.value_motif
        room = self.length - size - longest
        place = int(random.integers(max(1, room - longest)))
        known: dict[Motif, Motif] = {}
        tokens: list[int] = []
        targets: list[int] = []
        while len(tokens) < room:
            due = len(tokens) >= place and probe[0] not in known
            key, value = probe if due else next(motifs)
            if key == probe[0]:
                value = probe[1]
            again, value = key in known, known.setdefault(key, value)
            tokens += key + value
            targets += (IGNORED,) * len(key) + (value if again else (IGNORED,) * len(value))
        tokens += probe[0] + probe[1]
        targets += (IGNORED,) * len(probe[0]) + probe[1]
        missing = self.length + 1 - len(tokens)
        return [self.vocab - 1] * missing + tokens, [IGNORED] * missing + targets

    def _motifs(self, random: np.random.Generator, judged: bool) -> Iterator[tuple[Motif, Motif]]:
        """Keys and values without end, in blocks: one draw of numpy costs as much as a hundred."""
        half, content = (self.vocab - 1) // 2, self.vocab - 1
        while True:
            keys = distinct(random, BLOCK, self.key_motif, half).tolist()
            values = (half + distinct(random, BLOCK, self.value_motif, content - half)).tolist()
            key_sizes = random.integers(1, self.key_motif + 1, size=BLOCK).tolist()
            value_sizes = random.integers(1, self.value_motif + 1, size=BLOCK).tolist()
            for key, value, k, v in zip(keys, values, key_sizes, value_sizes, strict=True):
                yield tuple(key if judged else key[:k]), tuple(value[:v])
