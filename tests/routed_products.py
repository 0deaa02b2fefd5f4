"""What memories that learn multiply inside ``mom``, as the tokens of one call went."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from archdsl.blocks.nn import learner
from archdsl.kernels.learner.flops import packed_flops
from archdsl.kernels.learner.packed import layout_of, learn_packed


@contextmanager
def counted_learners() -> Iterator[list[int]]:
    """A list to which each call of such a memory adds the FLOPs of the blocks its tokens fill."""
    found: list[int] = []

    def counting(
        rule: Any, q: Any, k: Any, v: Any, gates: Any, learned: Any, bounds: Any, **how: Any
    ) -> Any:
        total, heads = k.shape[1:3]
        layout = layout_of(rule, total, bounds, how.get("written"), how.get("widest"))
        found.append(packed_flops(rule, heads, layout.sizes, layout.width, layout.span))
        return learn_packed(rule, q, k, v, gates, learned, bounds, **how)

    with mock.patch.object(learner, "learn_packed", counting):
        yield found
