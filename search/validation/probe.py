"""The tokens that published architectures are scored with: made up, so that no text is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.blocks.asking import Direction
from archdsl.search.tasks.base import IGNORED
from archdsl.search.tasks.drawn import Drawn

if TYPE_CHECKING:
    import numpy as np

    from archdsl.search.tasks.base import Tokens


class Probe(Drawn):
    """Tokens with the frequencies of a text (Zipf's law), and a random token to tell at the end.

    The one target of a sequence is uniform: its gradient is a random direction of the last features.
    It cannot be learned; it only looks.

    Args:
        vocab: symbols.
        length: tokens of a sequence.
    """

    name: ClassVar[str] = "probe"
    measures: ClassVar[dict[str, Direction]] = {}

    def draw(self, random: np.random.Generator, count: int, judged: bool) -> tuple[Tokens, Tokens]:
        """Sequences and targets [count, length]."""
        import numpy as np

        weight = 1 / np.arange(1, self.vocab + 1)
        tokens = random.choice(self.vocab, size=(count, self.length), p=weight / weight.sum())
        targets = np.full_like(tokens, IGNORED)
        targets[:, -1] = random.permutation(self.vocab)[np.arange(count) % self.vocab]
        return tokens.astype(np.int64), targets.astype(np.int64)
