"""In-context language learning: strings of an automaton nobody has seen before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.search.tasks.anchors import MEMORYLESS, Anchor, Published
from archdsl.search.tasks.base import HELD_OUT, IGNORED, random_stream
from archdsl.search.tasks.drawn import Drawn, misfit

if TYPE_CHECKING:
    import numpy as np

    from archdsl.search.tasks.base import Judge, Mask, Tokens


SMALL = "vocab = 8, length = 64, states = 4, edges = 3, string = 16"
"""Sizes that a small model learns in a minute."""


class Automata(Drawn):
    """Each sequence holds strings of one random automaton; the next symbol must be one it allows.

    The languages of "In-Context Language Learning: Architectures and Algorithms" (Akyürek et al., 2024,
    arXiv 2401.12973; its code ``src/dataloaders/dfa.py``): the number of states, the alphabet and each
    state's edges are drawn; edges lead to different other states under different symbols; every state
    accepts; a string is a walk of random length from the first state that takes each edge with equal
    probability, and strings are separated by a sign of their own. Upper bounds of edges and string
    lengths are exclusive there and here. Accuracy is the share of symbols inside strings where the most
    likely prediction can be read on by the automaton. Minimising the automaton, as the code does,
    changes neither its strings nor their probabilities, and is left out.

    Args:
        vocab: number of symbols, separator with them.
        length: tokens of one sequence; the strings are cut there.
        examples: sequences to train on (5,000 in the paper's smaller setting); ``none`` draws fresh ones.
        states: most states; at least ``edges``.
        edges: every state has fewer.
        string: every string is shorter.
    """

    name: ClassVar[str] = "automata"
    published: ClassVar[Published] = Published(
        vocabulary=19, positions=256, scored=None, anchors=(
            Anchor("gated_deltanet(heads = 1)", 0.85, sizes=SMALL),
            Anchor(MEMORYLESS, 0.45, solves=False, steps=100, sizes=SMALL),
        ),
    )  # fmt: skip

    vocab: Annotated[int, Field(ge=3, le=1000)] = 19
    length: Annotated[int, Field(ge=4, le=1_000_000)] = 256
    states: Annotated[int, Field(ge=2, le=200)] = 12
    edges: Annotated[int, Field(ge=2, le=100)] = 4
    string: Annotated[int, Field(ge=2, le=1_000_000)] = 50

    def verify(self) -> None:
        """There must be symbols and states for the edges."""
        if self.states < self.edges:
            raise misfit("states", f"`states = {self.states}` is less than `edges = {self.edges}`",
                         "edges lead to different other states",
                         f"use at least {self.edges}")  # fmt: skip
        if self.vocab - 1 < self.edges:
            raise misfit("vocab", f"`vocab = {self.vocab}` is too small for {self.edges} edges",
                         "a state's edges have different symbols",
                         f"use at least {self.edges + 1}")  # fmt: skip

    def draw(self, random: np.random.Generator, count: int, judged: bool) -> tuple[Tokens, Tokens]:
        """Strings and separators; targets are one token later, and none is a judged separator."""
        tokens, _ = self._walk(random, count)
        targets = tokens[:, 1:].copy()
        if judged:
            targets[targets == self.vocab - 1] = IGNORED
        return tokens[:, :-1].copy(), targets

    def evaluate(self, judge: Judge, count: int, seed: int) -> dict[str, float]:
        """The mean over sequences of the share of predictions the automaton can read."""
        import numpy as np

        tokens, allowed = self._walk(random_stream(HELD_OUT, seed), count)
        asked = tokens[:, 1:] != self.vocab - 1
        said = judge.predictions(tokens[:, :-1].copy())
        right = np.take_along_axis(allowed[:, 1:], said[:, :, None], 2)[:, :, 0] & asked
        return {"accuracy": float((right.sum(1) / np.maximum(asked.sum(1), 1)).mean())}

    def _walk(self, random: np.random.Generator, count: int) -> tuple[Tokens, Mask]:
        """Tokens [count, length + 1], and the symbols that could stand there [.., .., vocab]."""
        import numpy as np

        step = self._automata(random, count)
        rows, separator = np.arange(count), self.vocab - 1
        state, left = np.zeros(count, dtype=np.int64), random.integers(1, self.string, size=count)
        tokens = np.empty((count, self.length + 1), dtype=np.int64)
        allowed = np.zeros((count, self.length + 1, self.vocab), dtype=bool)
        for place in range(self.length + 1):
            possible = step[rows, state] >= 0
            allowed[:, place] = possible
            symbol = np.where(possible, random.random(possible.shape), -1.0).argmax(1)
            tokens[:, place] = np.where(left > 0, symbol, separator)
            onward = step[rows, state, symbol]
            state = np.where(left > 0, onward, 0)
            left = np.where(left > 0, left - 1, random.integers(1, self.string, size=count))
        return tokens, allowed

    def _automata(self, random: np.random.Generator, count: int) -> Tokens:
        """Where each symbol leads from each state, -1 where it cannot be read: [count, states, vocab]."""
        import numpy as np

        sizes = random.integers(self.edges, self.states + 1, size=count)
        alphabets = random.integers(self.edges, self.vocab, size=count)
        degrees = random.integers(1, self.edges, size=(count, self.states))
        letters = _ranks(random, np.ones((count, 1, self.vocab - 1), bool))
        usable = letters < alphabets[:, None, None]
        others = np.arange(self.states) != np.arange(self.states)[:, None]
        symbols = _ranks(random, np.repeat(usable, self.states, 1))
        places = _ranks(random, others & (np.arange(self.states) < sizes[:, None, None]))
        target_of = np.argsort(places, axis=2)
        taken = symbols < degrees[:, :, None]
        ranks = np.minimum(symbols, self.states - 1)
        step = np.where(taken, np.take_along_axis(target_of, ranks, 2), -1)
        return np.pad(step, ((0, 0), (0, 0), (0, 1)), constant_values=-1)


def _ranks(random: np.random.Generator, possible: Mask) -> Tokens:
    """A random order of the possible entries of the last axis, the others behind them."""
    import numpy as np

    noise = np.where(possible, random.random(possible.shape), 2.0)
    return np.argsort(np.argsort(noise, axis=-1), axis=-1)
