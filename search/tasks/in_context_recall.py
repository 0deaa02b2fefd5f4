"""MAD's in-context recall, plain and with noise between the pairs."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.base import Real
from archdsl.search.tasks.anchors import MEMORYLESS, Anchor, Published
from archdsl.search.tasks.base import IGNORED
from archdsl.search.tasks.drawn import Mad, misfit

if TYPE_CHECKING:
    import numpy as np

    from archdsl.search.tasks.base import Mask, Tokens


class InContextRecall(Mad):
    """Pairs of a key and its value, again and again; every value behind a key seen before is judged.

    MAD's ``generate_in_context_recall_instance`` with several queries (mad/data/instances.py): keys are
    the first half of the vocabulary and are drawn with replacement, values the second half, the map is
    drawn anew for each sequence, and the last pair's key was always seen before. The next token is
    learned at every position; only repeated keys are judged. Noise replaces a pair by two tokens of a
    vocabulary of its own.

    Args:
        vocab: number of symbols, those of the noise with them.
        length: tokens drawn; the model sees all but the last.
        examples: sequences to train on (12,800 in MAD); ``none`` draws fresh ones for ever.
        noise: share of pairs that are replaced.
        noise_vocab: symbols of the noise.
    """

    name: ClassVar[str] = "in_context_recall"
    published: ClassVar[Published] = Published(
        vocabulary=16,
        positions=127,
        # of 64 pairs the last is judged, and each before it whose key, one of 8, was drawn before
        scored=(1 + sum(1 - (7 / 8) ** pairs for pairs in range(63))) / 127,
        anchors=(
            Anchor("deltanet(heads = 1)", 0.99),  # Yang et al., 2024, table 1
            Anchor(MEMORYLESS, 0.2, solves=False, steps=50),  # one of 8 values
        ),
    )

    vocab: Annotated[int, Field(ge=4, le=100_000)] = 16
    length: Annotated[int, Field(ge=4, le=1_000_000)] = 128
    noise: Annotated[Real, Field(ge=0, lt=1)] = Fraction(0)
    noise_vocab: Annotated[int, Field(ge=0, le=100_000)] = 0

    @property
    def positions(self) -> int:
        """One less than ``length``: the last token is only a target."""
        return self.length - 1

    def verify(self) -> None:
        """There must be keys, values, and noise where it is asked for."""
        if self.length % 2:
            raise misfit("length", f"`length = {self.length}` is odd", "keys and values alternate",
                         f"use {self.length + 1}")  # fmt: skip
        if self.noise and not self.noise_vocab:
            raise misfit("noise_vocab", "there is no symbol for the noise", "noise has its own symbols",
                         "use 16, as MAD does")  # fmt: skip
        if self.vocab - self.noise_vocab < 4:
            raise misfit("vocab", f"`vocab = {self.vocab}` leaves no room for keys and values",
                         f"{self.noise_vocab} symbols are noise",
                         f"use at least {self.noise_vocab + 4}")  # fmt: skip

    def draw(self, random: np.random.Generator, count: int, judged: bool) -> tuple[Tokens, Tokens]:
        """Pairs and noise; targets are one token later."""
        import numpy as np

        content, pairs = self.vocab - self.noise_vocab, self.length // 2
        keys = random.integers(content // 2, size=(count, pairs))
        value_of = random.integers(content // 2, content, size=(count, content // 2))
        noisy = self._noisy(random, count, pairs)
        keys[:, -1] = _any_shown(random, keys[:, :-1], noisy[:, :-1], content // 2)
        values = np.take_along_axis(value_of, keys, 1)
        tokens = np.stack([keys, values], 2)
        if self.noise:
            drawn = random.integers(content, self.vocab, size=tokens.shape)
            tokens = np.where(noisy[:, :, None], drawn, tokens)
        tokens = tokens.reshape(count, self.length)
        targets = tokens.copy()
        if judged:
            targets[:, 0::2] = IGNORED
            targets[:, 1::2][noisy | ~_seen_before(keys, noisy)] = IGNORED
        return np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(targets[:, 1:])

    def _noisy(self, random: np.random.Generator, count: int, pairs: int) -> Mask:
        """Which pairs are noise: never one chosen pair before the last, and never the last."""
        import numpy as np

        noisy = random.random((count, pairs)) < float(self.noise)
        noisy[np.arange(count), random.integers(pairs - 1, size=count)] = False
        noisy[:, -1] = False
        return noisy


def _scored_with_noise(pairs: int, keys: int, noise: float) -> float:
    """How many pairs are judged on average, where a chosen one before the last is never noise.

    A clean pair is judged if its key stood in a clean pair before it; the last one always is.
    """
    clean, again = 1 - noise, 1 - (1 - noise) / keys
    judged = 1.0
    for chosen in range(pairs - 1):
        for place in range(pairs - 1):
            others = again**place if place <= chosen else again ** (place - 1) * (1 - 1 / keys)
            judged += (1.0 if place == chosen else clean) * (1 - others) / (pairs - 1)
    return judged


class NoisyInContextRecall(InContextRecall):
    """In-context recall with a fifth of the pairs replaced by noise, as MAD sets it.

    Its arguments are those of ``in_context_recall``.
    """

    name: ClassVar[str] = "noisy_in_context_recall"
    published: ClassVar[Published] = Published(
        vocabulary=32,
        positions=127,
        scored=_scored_with_noise(pairs=64, keys=8, noise=0.2) / 127,
        anchors=(
            Anchor("deltanet(heads = 1)", 0.99),  # Yang et al., 2024, table 1
            Anchor(MEMORYLESS, 0.2, solves=False, steps=50),  # one of 8 values
        ),
    )

    vocab: Annotated[int, Field(ge=4, le=100_000)] = 32
    noise: Annotated[Real, Field(ge=0, lt=1)] = Fraction(1, 5)
    noise_vocab: Annotated[int, Field(ge=0, le=100_000)] = 16


def _any_shown(random: np.random.Generator, keys: Tokens, noisy: Mask, bound: int) -> Tokens:
    """For each sequence one of the different keys it shows, all equally likely: [count]."""
    import numpy as np

    rows = np.broadcast_to(np.arange(len(keys))[:, None], keys.shape)
    shown = np.zeros((len(keys), bound), dtype=bool)
    shown[rows[~noisy], keys[~noisy]] = True
    picked: Tokens = np.where(shown, random.random(shown.shape), -1.0).argmax(1)
    return picked


def _seen_before(keys: Tokens, noisy: Mask) -> Mask:
    """Whether a pair's key stood in an earlier pair that was not noise: [count, pairs]."""
    import numpy as np

    marked = np.where(noisy, -1 - np.arange(keys.shape[1]), keys)
    order = np.argsort(marked, axis=1, kind="stable")
    ranked = np.take_along_axis(marked, order, 1)
    repeated = np.zeros(keys.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], 1)
    return repeated
