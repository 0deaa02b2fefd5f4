"""Packed sequences of the learner family: chunks of each one's own writes, in blocks that shrink."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from archdsl.kernels.common import compute_dtype
from archdsl.kernels.learner import biases, chunked, closed
from archdsl.kernels.learner.chunked import SPAN
from archdsl.kernels.learner.lanes import (
    Gates,
    Learned,
    State,
    memory_of,
    named,
    norm_of,
    share_of,
    streams_of,
    sums_of,
)
from archdsl.kernels.learner.memories import Norm, split
from archdsl.kernels.learner.parts import Offset, Rules, Streams
from archdsl.kernels.learner.rule import Rule
from archdsl.kernels.shrinking import Shrinking

Carried = Any
"""Tensors with lanes first, in tuples of any depth."""

Run = Callable[[Streams, Carried, Offset], tuple[Tensor, Carried]]
"""A block's writes, the memories before them and where in its chunk each lane begins."""


def learn_packed(
    rule: Rule, q: Tensor, k: Tensor, v: Tensor, gates: Gates, learned: Learned, cu_seqlens: Tensor,
    *, state: State | None = None, written: Tensor | None = None, widest: int | None = None,
    bias: tuple[biases.Bias, biases.Bias] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """As `learn`, for M sequences packed in one row: out [1, N, H, V], and M states.

    Args:
        rule: the point.
        q: [1, N, H, K], one for each write.
        k: [1, N, H, K].
        v: [1, N, H, V].
        gates: the token's sizes and decays.
        learned: what a memory begins with, and its norm.
        cu_seqlens: offsets [M + 1]; writes behind the last are nobody's, and are read as zero.
        state: what `state_shapes` names, of M; a fresh start where not given.
        written: writes each sequence had before [M]; none where not given.
        widest: writes that a sequence has at most.
        bias: gradient and value of a loss that `biases` does not have.
    """
    heads, dtype = k.shape[2], compute_dtype(q, k, v)
    layout = layout_of(rule, k.shape[1], cu_seqlens, written, widest)
    spread = Spread(layout, q, k, v, gates, dtype)
    if state is not None:
        state = {name: leaf.index_select(0, layout.order) for name, leaf in state.items()}
    members = len(layout.order)
    if rule.learn.form == "closed":
        sums = sums_of(rule, state, members * heads, k.new_zeros((), dtype=dtype))
        out, (keys, values) = _blocks(spread, sums, _closed(rule, len(layout.sizes) > 1))
        after = {"keys": keys, "values": values}
    else:
        gradient, _ = bias or biases.pair(rule.loss)
        rules = Rules(rule, norm_of(learned, members, dtype), share_of(learned, dtype), gradient)
        memory = memory_of(rule, learned, state, members, dtype)
        out, found = _blocks(spread, memory, _chunked(rules, layout))
        after = named(rule, found)
    rank = layout.order.argsort()
    whole = {n: split(s, 0, (members, heads)).index_select(0, rank) for n, s in after.items()}
    return layout.rows(biases.read(rule.loss, out))[None], whole


def _chunked(rules: Rules, layout: Shrinking) -> Run:
    several = len(layout.sizes) > 1

    def run(x: Streams, memory: Carried, offset: Offset) -> tuple[Tensor, Carried]:
        norm = Norm(*(None if part is None else part[: len(x.key)] for part in rules.norm))
        return chunked.kept(rules._replace(norm=norm), x, memory, offset, several, layout.width)

    return run


def _closed(rule: Rule, several: bool) -> Run:
    return lambda x, sums, _: closed.kept(rule, x, sums, several)


def _blocks(spread: Spread, memory: Carried, run: Run) -> tuple[Tensor, Carried]:
    """What all places read [places, H, V], and the memories, members as they are ordered."""
    heads, outputs, ended = spread.heads, [spread.nothing], []
    for size, offset, x in spread.blocks():
        ended.append(_some(memory, slice(size * heads, None)))
        memory = _some(memory, slice(size * heads))
        out, memory = run(x, memory, offset)
        outputs.append(split(out, 0, (size, heads)).transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs), _joined([memory, *reversed(ended)])


def layout_of(
    rule: Rule, total: int, bounds: Tensor, written: Tensor | None, widest: int | None
) -> Shrinking:
    """Where so many writes stand; see `learn_packed`. The closed form has no chunks."""
    if rule.learn.form == "closed":
        return Shrinking.of(total, bounds, chunk=SPAN, room=SPAN, widest=widest)
    chunk = rule.learn.chunk
    return Shrinking.of(total, bounds, chunk=chunk, room=SPAN, written=written, widest=widest)


class Spread:
    """Packed writes in the places of a layout."""

    def __init__(
        self, layout: Shrinking, q: Tensor, k: Tensor, v: Tensor, gates: Gates, dtype: torch.dtype
    ) -> None:
        self.layout, self.heads, self.dtype = layout, k.shape[2], dtype
        decay = gates.decay
        if decay is not None and decay.dim() == 1:
            gates = gates._replace(decay=decay.expand(*k.shape[:2], -1))
        given = (q, k, v, *gates)
        self.parts = [None if x is None else layout.spread(x[0].to(dtype)) for x in given]
        self.present = layout.present
        self.nothing = v.new_zeros(0, *v.shape[2:], dtype=dtype)

    def blocks(self) -> Iterator[tuple[int, Offset, Streams]]:
        """Members of each block, where they begin in their chunk, and their writes."""
        first, begun = 0, self.layout.begun
        for size in self.layout.sizes:
            last = first + size * self.layout.span
            offset = 0 if begun is None else begun[:size].repeat_interleave(self.heads)
            yield size, offset, self._block(size, first, last)
            first, begun = last, None

    def _block(self, size: int, first: int, last: int) -> Streams:
        def cut(x: Tensor | None) -> Any:
            return None if x is None else split(x[first:last], 0, (size, self.layout.span))

        q, k, v, *gates = map(cut, self.parts)
        present = cut(self.present).repeat_interleave(self.heads, 0)
        return streams_of(q, k, v, Gates(*gates), self.dtype)._replace(present=present)


def _some(carried: Carried, lanes: slice) -> Carried:
    if isinstance(carried, Tensor):
        return carried[lanes]
    parts = [_some(part, lanes) for part in carried]
    return type(carried)(*parts) if hasattr(carried, "_fields") else tuple(parts)


def _joined(carried: list[Carried]) -> Carried:
    first = carried[0]
    if isinstance(first, Tensor):
        return torch.cat(carried)
    parts = [_joined(list(each)) for each in zip(*carried, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
