"""Packed sequences of the learner family: members side by side, fewer and fewer as they end.

Every member cuts its own writes into chunks. Blocks of whole chunks are laid out with the members that
have the most of them first, so that those of a block are the first ones of the block before; what is
missing in a member's first chunk, if it goes on from within one, and behind its last write is empty.

How many members a block has is known where lengths are. Else it is bounded by how many writes there are
in all: of N writes, at most N / n members have n or more. No shape then depends on a length, and the sum
over all blocks of M members of at most W writes is below N (1 + ln(M W / N)) and a chunk a member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, count, takewhile
from typing import Any

import torch
from torch import Tensor

from archdsl.kernels.common import compute_dtype, segments
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
from archdsl.kernels.routing import take_rows

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
    layout = Layout.of(rule, k.shape[1], cu_seqlens, written, widest)
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


def _chunked(rules: Rules, layout: Layout) -> Run:
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


@dataclass(frozen=True)
class Layout:
    """Where N writes of M members stand in blocks, G places in all.

    Args:
        sizes: members in each block.
        width: places a member has for each chunk: no more than its writes can need.
        span: places a member has in a block.
        order: members by their number of blocks [M].
        begun: which number in its chunk a member's first write has [M], in that order; `None` for 0.
        source: the write at each place [G]; N where there is none.
        place: the place of each write [N]; G for one that is nobody's.
    """

    sizes: tuple[int, ...]
    width: int
    span: int
    order: Tensor
    begun: Tensor | None
    source: Tensor
    place: Tensor

    @classmethod
    def of(
        cls, rule: Rule, total: int, bounds: Tensor, written: Tensor | None, widest: int | None
    ) -> Layout:
        """Of so many writes; see `learn_packed`."""
        closes, lengths = rule.learn.form == "closed", bounds.diff()
        chunk = SPAN if closes else rule.learn.chunk
        known = bounds.device.type == "cpu" and not torch.compiler.is_compiling()
        most = int(lengths.max()) if known and len(lengths) else min(widest or total, total)
        width = max(1, min(chunk, most))
        chunks = 1 + (most - 1 + (0 if most < 2 else chunk - 1)) // chunk
        span = width * max(1, min(SPAN // width, chunks))
        begun = None if written is None or closes else written % chunk
        laid = partial(_laid, chunk=chunk, width=width)
        last = laid(lengths - 1, begun)
        blocks = torch.where(lengths > 0, last // span + 1, 0)
        order = blocks.argsort(descending=True, stable=True)
        if known:
            sizes = tuple((len(blocks) - blocks.bincount().cumsum(0))[:-1].tolist())
        else:
            least = _least(chunk, span // width, late=begun is not None)
            found = takewhile(lambda writes: writes <= most, least)
            sizes = tuple(min(len(lengths), total // writes) for writes in found)
        member, _ = segments(bounds, total)
        inside, writes = (
            member.clamp(max=len(lengths) - 1),
            torch.arange(total, device=bounds.device),
        )
        at = laid(writes - bounds[inside], None if begun is None else begun[inside])
        at = at.masked_fill(member >= len(lengths), 0)
        first = torch.tensor([0, *accumulate(sizes)], device=bounds.device)
        place = (first[at // span] + order.argsort()[inside]) * span + at % span
        places = sum(sizes) * span
        place = place.masked_fill(member >= len(lengths), places)
        source = torch.full((places + 1,), total, device=bounds.device)
        source = source.index_copy(0, place, writes)[:-1]
        return cls(
            sizes, width, span, order, None if begun is None else begun[order], source, place
        )

    def rows(self, x: Tensor) -> Tensor:
        """What stands in the places [G, …], write by write [N, …]; zeros for nobody's."""
        return _taken(x, self.place)


def _laid(index: Tensor, begun: Tensor | None, chunk: int, width: int) -> Tensor:
    """The place of a member's write: every chunk's are `width` apart, the first has what it lacks."""
    if begun is None:
        return index // chunk * width + index % chunk
    behind = index + begun - chunk
    later = (behind // chunk + 1) * width + behind % chunk
    return torch.where(behind < 0, index, later)


def _least(chunk: int, chunks: int, *, late: bool) -> Iterator[int]:
    """How many writes a member has at least that has one in each block of so many chunks.

    One that began `late` may have had all but one of its first chunk before.
    """
    for block in count():
        whole = block * chunks * chunk
        yield max(1, whole + 1 - (chunk - 1 if late else 0))


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """Rows [R, …] by an index; R is a row of zeros."""
    rows = x.flatten(1)
    return take_rows(torch.cat([rows, rows.new_zeros(1, rows.shape[1])]), index).view(
        -1, *x.shape[1:]
    )


class Spread:
    """Packed writes in the places of a layout."""

    def __init__(
        self, layout: Layout, q: Tensor, k: Tensor, v: Tensor, gates: Gates, dtype: torch.dtype
    ) -> None:
        self.layout, self.heads, self.dtype = layout, k.shape[2], dtype
        decay = gates.decay
        if decay is not None and decay.dim() == 1:
            gates = gates._replace(decay=decay.expand(*k.shape[:2], -1))
        given = (q, k, v, *gates)
        self.parts = [None if x is None else _taken(x[0].to(dtype), layout.source) for x in given]
        self.present = layout.source < k.shape[1]
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
