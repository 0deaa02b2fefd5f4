"""``context_memory``: attention over segments that a long-term memory gives context to (Titans MAC)."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.base import (
    Builder,
    Children,
    Count,
    Layer,
    Real,
    Value,
    divides,
    features,
    scaled,
)
from archdsl.blocks.miras.memory import Expand
from archdsl.blocks.op import Type
from archdsl.blocks.ops.context_memory import ContextMemory
from archdsl.blocks.ops.dense import Linear
from archdsl.kernels.learner.rule import Keep, Learn, Loss, Rule, Store


class ContextMemoryLayer(Layer):
    """Memory as context (Titans, arXiv 2501.00663 §4.1, eq. 21-25), a ``segment`` at a time.

    What the memory of the segments before gives for each token stands with ``persistent`` learned tokens
    in front of the segment; attention over all of it gives ``y``, the memory learns ``y``, and
    ``y ⊙ norm(M(y))`` is the output. A token sees the context and the tokens up to itself: the paper's
    figure lets it see the whole segment's context, which later tokens have a part in.
    """

    name: ClassVar[str] = "context_memory"
    keeps: ClassVar[bool] = True
    heads: Count = 4
    segment: Annotated[int, Field(ge=1, le=1024)] = 16
    persistent: Count = 4
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    expand: Expand = Fraction(4)
    rate: Annotated[Real, Field(gt=0, le=2)] = Fraction(1)
    bound: bool = True

    def infer(self, stream: Type) -> Type:
        """Heads divide the width."""
        divides(self.heads, features(stream, self.name), "heads", "width")
        return stream

    def lower(self, build: Builder, stream: Value, children: Children) -> Value:
        """One operation over segments, one projection."""
        width = stream.type.width
        size = width // self.heads
        hidden = (scaled(self.expand, size),) * (self.depth - 1)
        learn = Learn(
            "momentum",
            chunk=self.segment,
            bound="error" if self.bound else "none",
            decay_first=False,
            largest=float(self.rate / self.segment),
        )
        rule = Rule(
            Store((size, *hidden, size), activation="gelu", learned=True),
            Loss("l2"),
            Keep(decay="head"),
            learn,
            ("MLP memory", "squared-error bias", "a decay a head", "momentum"),
        )
        op = ContextMemory(width=width, heads=self.heads, persistent=self.persistent, rule=rule)
        mixed = build.add(op, stream, name="core")
        return build.add(Linear(width_in=width, width_out=width), mixed, name="out")
