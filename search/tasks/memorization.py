"""MAD's memorization: facts that hold in every sequence, learned into the weights."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.search.tasks.anchors import Anchor, Published
from archdsl.search.tasks.base import IGNORED
from archdsl.search.tasks.drawn import Mad

if TYPE_CHECKING:
    import numpy as np

    from archdsl.search.tasks.base import Tokens

MAP_SEED = 12345
"""What the published map is drawn from."""


MAD_SIZES, RATE = "examples = 256", Fraction(1, 1000)


class Memorization(Mad):
    """A key, then a blank on which its value is to be said; the same map in training and in the test.

    MAD's ``generate_memorization_instance``: keys are the first half of the vocabulary without its last
    symbol, the blank; keys and values are shuffled in this order by ``default_rng(12345)``.

    Args:
        vocab: number of symbols, the blank with them.
        length: tokens of one sequence; an odd last one is dropped.
        examples: sequences to train on (256 in MAD); ``none`` draws fresh ones for ever.
    """

    name: ClassVar[str] = "memorization"
    published: ClassVar[Published] = Published(
        vocabulary=256,
        positions=32,
        scored=0.5,
        anchors=(  # Yang et al., 2024, table 1: Mamba 89.5, DeltaNet 52.8; by MAD's largest rate
            Anchor("mamba(states = 4)", 0.85, steps=50, sizes=MAD_SIZES, learning_rate=RATE, batch=128),
            Anchor(
                "deltanet(heads = 1)", 0.53, solves=False, steps=50, sizes=MAD_SIZES,
                learning_rate=RATE, batch=128,
            ),
        ),
    )  # fmt: skip

    vocab: Annotated[int, Field(ge=3, le=1_000_000)] = 256
    length: Annotated[int, Field(ge=2, le=1_000_000)] = 32

    @property
    def positions(self) -> int:
        """``length``, made even."""
        return self.length // 2 * 2

    def draw(self, random: np.random.Generator, count: int, judged: bool) -> tuple[Tokens, Tokens]:
        """Keys and blanks; the values are the targets on the blanks."""
        import numpy as np

        keys, values = self.facts()
        picks = random.integers(len(keys), size=(count, self.length // 2))
        blanks = np.full_like(picks, self.vocab - 1)
        ignored = np.full_like(picks, IGNORED)
        tokens, targets = np.stack([keys[picks], blanks], 2), np.stack([ignored, values[picks]], 2)
        return tokens.reshape(count, -1), targets.reshape(count, -1)

    def facts(self) -> tuple[Tokens, Tokens]:
        """The keys and, in the same order, their values: [facts] each."""
        import numpy as np

        content = self.vocab - 1
        random = np.random.default_rng(MAP_SEED)
        keys, values = list(range(content // 2)), list(range(content // 2, content))
        random.shuffle(keys)
        random.shuffle(values)
        return np.array(keys, dtype=np.int64), np.array(values[: len(keys)], dtype=np.int64)
