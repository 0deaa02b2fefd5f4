"""State tracking: the running product of group elements, the field's test of what depth can compute."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from math import factorial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.asking import Direction
from archdsl.search.tasks.anchors import Anchor, Published
from archdsl.search.tasks.base import HELD_OUT, TRAINING, LearningTask, random_stream
from archdsl.search.tasks.drawn import accuracy, misfit

if TYPE_CHECKING:
    from archdsl.search.tasks.base import Judge, Tokens

LARGEST = {"parity": 2, "sum": 4096, "permutation": 6}
"""The largest size of each group."""

Length = Annotated[int, Field(ge=1, le=1_000_000)]


class StateTracking(LearningTask):
    """Behind every element of a group, say the product of all so far.

    ``parity`` is the sum of bits; ``sum`` is the sum modulo ``size``; ``permutation`` composes all
    permutations of ``size`` symbols, five of which no circuit of constant depth can follow ("The Illusion
    of State in State-Space Models", Merrill et al., 2024, arXiv 2404.08819 §4). Elements are drawn evenly;
    every position is learned and judged. Permutations are numbered in lexicographic order, and the newest
    acts last: ``state_t(i) = new_t(state_{t-1}(i))``.

    Args:
        group: which one.
        size: the modulus, or the permuted symbols; of no meaning for ``parity``.
        length: elements of one sequence.
        test: elements of a judged one, where that is not ``length``: longer than what was learned.
    """

    name: ClassVar[str] = "state_tracking"
    published: ClassVar[Published] = Published(
        vocabulary=2,
        positions=32,
        scored=1.0,
        anchors=(
            Anchor(
                "gru", 0.99, steps=600, width=32, learning_rate=Fraction(1, 100), starts=3,
                sizes="group = parity, test = 256",
            ),
            # eigenvalues that are not negative: Grazzi et al., 2024, arXiv 2411.12537, theorem 1
            Anchor(
                "deltanet(heads = 1)", 0.6, solves=False, steps=100, width=32,
                sizes="group = parity, test = 256",
            ),
        ),
    )  # fmt: skip
    measures: ClassVar[dict[str, Direction]] = {"accuracy": "maximize"}

    group: Literal["parity", "sum", "permutation"] = "parity"
    size: Annotated[int, Field(ge=2, le=4096)] = 2
    length: Length = 32
    test: Length | None = None

    @property
    def symbols(self) -> int:
        """The group's elements."""
        sizes = {"parity": 2, "sum": self.size, "permutation": factorial(self.size)}
        return sizes[self.group]

    @property
    def positions(self) -> int:
        """``length``."""
        return self.length

    def verify(self) -> None:
        """A group small enough to be a vocabulary."""
        most = LARGEST[self.group]
        if self.size > most:
            raise misfit("size", f"`size = {self.size}` is too large for `group = {self.group}`",
                         "its elements are the vocabulary", f"use at most {most}")  # fmt: skip

    def batch(self, count: int, seed: int, step: int) -> tuple[Tokens, Tokens]:
        """Elements and running products [count, length] of one training step."""
        return self._draw(TRAINING, seed, step, count=count, length=self.length)

    def held_out(self, count: int, seed: int) -> tuple[Tokens, Tokens]:
        """Elements and running products of sequences that are the same for every model."""
        return self._draw(HELD_OUT, seed, count=count, length=self.test or self.length)

    def evaluate(self, judge: Judge, count: int, seed: int) -> dict[str, float]:
        """The share of products that are right."""
        tokens, targets = self.held_out(count, seed)
        return {"accuracy": accuracy(judge.predictions(tokens), targets)}

    def _draw(self, *key: int, count: int, length: int) -> tuple[Tokens, Tokens]:
        tokens = random_stream(*key).integers(self.symbols, size=(count, length))
        if self.group == "permutation":
            return tokens, self._composed(tokens)
        return tokens, tokens.cumsum(1) % self.symbols

    def _composed(self, tokens: Tokens) -> Tokens:
        import numpy as np

        elements = np.array(list(permutations(range(self.size))), dtype=np.int64)
        place = self.size ** np.arange(self.size)
        order = np.argsort(elements @ place)
        state = np.broadcast_to(np.arange(self.size), (len(tokens), self.size))
        codes = np.empty_like(tokens)
        for step, element in enumerate(tokens.T):
            state = np.take_along_axis(elements[element], state, 1)
            codes[:, step] = state @ place
        return order[np.searchsorted((elements @ place)[order], codes)]
