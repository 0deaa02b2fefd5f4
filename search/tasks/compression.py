"""MAD's compression: a whole sequence in one vector, and out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from archdsl.search.tasks.anchors import MEMORYLESS, Anchor, Published
from archdsl.search.tasks.drawn import Mad

if TYPE_CHECKING:
    import numpy as np

    from archdsl.search.tasks.base import Tokens


class Compression(Mad):
    """Random tokens, then a sign on which the model must hold all of them in what its head reads.

    MAD's ``generate_compression_instance`` and its auto-encoder: a decoder of two layers, drawn and
    trained with the model and dropped behind it, reads that one vector beside sinusoidal positions and
    gives all tokens back, the sign with them.

    Args:
        vocab: number of symbols, the sign with them.
        length: tokens of one sequence, the sign with them.
        examples: sequences to train on (12,800 in MAD); ``none`` draws fresh ones for ever.
    """

    name: ClassVar[str] = "compression"
    published: ClassVar[Published] = Published(
        vocabulary=16,
        positions=32,
        scored=1.0,  # the sign with the tokens: MAD's targets are its inputs
        anchors=(
            Anchor("gru", 0.98, steps=600, sizes="length = 4"),
            # the sign, and one of 15 tokens at each of three other places: 0.3
            Anchor(MEMORYLESS, 0.35, solves=False, steps=200, sizes="length = 4"),
        ),
    )

    vocab: Annotated[int, Field(ge=3, le=1_000_000)] = 16
    length: Annotated[int, Field(ge=2, le=1_000_000)] = 32

    def around(self, model: Any, seed: int) -> Any:
        """The model with its decoder."""
        from archdsl.search.tasks.decoder import Decoded

        return Decoded(model, seed)

    def draw(self, random: np.random.Generator, count: int, judged: bool) -> tuple[Tokens, Tokens]:
        """Tokens and the sign, which are the targets too."""
        import numpy as np

        tokens = random.integers(self.vocab - 1, size=(count, self.length - 1))
        tokens = np.pad(tokens, ((0, 0), (0, 1)), constant_values=self.vocab - 1)
        return tokens, tokens.copy()
