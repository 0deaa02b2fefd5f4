"""Attention over segments with what a memory has of those before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import SkipValidation

from archdsl.blocks.op import Buffer, Op, Shape, Work
from archdsl.kernels.learner.flops import part_flops
from archdsl.kernels.learner.rule import Rule
from archdsl.kernels.learner.states import state_shapes

PROJECTIONS = ("recall", "query", "key", "value", "mix", "read", "learn_key", "learn_value")
"""Square maps: of the input what the memory is asked, and attention's; of what attention gives (behind
``mix``) what the memory is asked and taught."""

GATES = ("rate", "momentum", "decay")


class ContextMemory(Op):
    """Memory as context (Titans, arXiv 2501.00663 eq. 21-25): ``[B, T, width]`` → the same.

    For a segment ``x``: ``h = M(recall x)`` of the memory the segment began with; ``y`` is ``mix`` of
    causal attention over ``persistent`` tokens, ``h`` and ``x``; the memory learns from ``y`` with a rate,
    a momentum and a decay a head that come from ``y``; ``y ⊙ norm(M(read y))``.

    Args:
        width: of the stream.
        heads: of attention and memory.
        persistent: learned tokens in front of every segment.
        rule: the memory's, whose chunk is the segment.
    """

    module: ClassVar[str] = "archdsl.blocks.nn.context_memory:ContextMemory"
    width: int
    heads: int
    persistent: int
    rule: Annotated[Rule, SkipValidation]

    def parameters(self) -> Mapping[str, Shape]:
        """The maps, gates with biases, learned tokens, what the memory begins with, the norm's gain."""
        found: dict[str, Shape] = dict.fromkeys(PROJECTIONS, (self.width, self.width))
        found |= dict.fromkeys(GATES, (self.heads, self.width))
        found |= {f"{name}_bias": (self.heads,) for name in GATES}
        found["persistent"] = (self.persistent, self.width)
        for layer, shape in enumerate(self.rule.store.shapes):
            found[f"start_{layer}"] = (self.heads, *shape)
        return found | {"gain": (self.width,)}

    def state(self, length: int) -> Mapping[str, Buffer]:
        """The memory, and keys and values of the segment so far, of tokens and of their context."""
        found = {name: Buffer(shape) for name, shape in state_shapes(self.rule, self.heads).items()}
        cache = Buffer((2, self.rule.learn.chunk, self.width), "model")
        return found | {"segment_keys": cache, "segment_values": cache}

    def flops(self, work: Work) -> int:
        """Every part of a segment; the learned tokens are mapped once a part."""
        chunk, place = self.rule.learn.chunk, 0
        if work.mode == "decode":
            place = (work.length - 1) % chunk
        left, total = work.steps, 0
        whole, rest = divmod(left, chunk) if place == 0 else (0, left)
        total += whole * self._part(0, chunk) + (self._part(place, rest) if rest else 0)
        return work.batch * total + (whole + bool(rest)) * self._learned()

    def _learned(self) -> int:
        return 2 * 2 * self.persistent * self.width**2

    def _part(self, place: int, count: int) -> int:
        """``count`` tokens from a place of a segment on."""
        maps = (
            2 * count * self.width * ((len(PROJECTIONS) + 2) * self.width + len(GATES) * self.heads)
        )
        keys = self.persistent + 2 * (place + count)
        attention = 4 * count * keys * self.width
        recalled = sum(2 * count * out * into for out, into in self.rule.store.shapes)
        return maps + attention + self.heads * (recalled + part_flops(self.rule, count))
