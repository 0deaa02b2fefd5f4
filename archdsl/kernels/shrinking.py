"""Packed sequences side by side, in blocks of chunks with fewer and fewer of them as they end.

Every member cuts its own rows into chunks. Blocks of whole chunks are laid out with the members that have
the most of them first, so that those of a block are the first ones of the block before; what is missing
in a member's first chunk, if it goes on from within one, and behind its last row is empty. A step at a
time is blocks of one chunk of one row.

How many members a block has is known where lengths are. Else it is bounded by how many rows there are in
all: of N rows, at most N / n members have n or more. No shape then depends on a length, nothing waits
for one, and the sum over all blocks of M members of at most W rows is below N (1 + ln(M W / N)) and a
chunk a member.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from archdsl.kernels.common import segments
from archdsl.kernels.routing import take_rows


@dataclass(frozen=True)
class Shrinking:
    """Where N packed rows of M members stand in blocks, G places in all.

    Args:
        sizes: members in each block.
        width: places a member has for each chunk: no more than its rows can need.
        span: places a member has in a block.
        order: members by their number of blocks [M].
        begun: which number in its chunk a member's first row has [M], in that order; `None` for 0.
        source: the row at each place [G], block by block and member by member; N where there is none.
        place: the place of each row [N]; G for one that is nobody's.
        full: whether there is a row at every place.
    """

    sizes: tuple[int, ...]
    width: int
    span: int
    order: Tensor
    begun: Tensor | None
    source: Tensor
    place: Tensor
    full: bool

    @classmethod
    def of(
        cls, total: int, bounds: Tensor, *, chunk: int = 1, room: int = 1,
        written: Tensor | None = None, widest: int | None = None,
    ) -> Shrinking:  # fmt: skip
        """Of so many rows.

        Args:
            total: N.
            bounds: offsets [M + 1]; rows behind the last are nobody's.
            chunk: rows of a chunk.
            room: places a member has in a block, about, where it has a use for them.
            written: rows each member had before [M]; none where not given.
            widest: rows that a member has at most.
        """
        lengths, begun = bounds.diff(), None if written is None else written % chunk
        known = bounds.device.type == "cpu" and not torch.compiler.is_compiling()
        most = int(lengths.max()) if known and len(lengths) else min(widest or total, total)
        width = max(1, min(chunk, most))
        chunks = max(1, min(room // width, 1 + (most - 1 + (most > 1) * (chunk - 1)) // chunk))
        span, laid = width * chunks, partial(_laid, chunk=chunk, width=width)
        blocks = torch.where(lengths > 0, laid(lengths - 1, begun) // span + 1, 0)
        order = blocks.argsort(descending=True, stable=True)
        if known:
            sizes = tuple((len(blocks) - blocks.bincount().cumsum(0))[:-1].tolist())
        else:
            least = _least(most, chunks * chunk, late=0 if begun is None else chunk - 1)
            sizes = tuple(min(len(lengths), total // rows) for rows in least)
        member, _ = segments(bounds, total)
        inside, rows = member.clamp(max=len(lengths) - 1), torch.arange(total, device=order.device)
        at = laid(rows - bounds[inside], None if begun is None else begun[inside])
        at = at.masked_fill(member >= len(lengths), 0)
        first = torch.tensor([0, *accumulate(sizes)], device=order.device)
        place = (first[at // span] + order.argsort()[inside]) * span + at % span
        place = place.masked_fill(member >= len(lengths), sum(sizes) * span)
        source = torch.full((sum(sizes) * span + 1,), total, device=order.device)
        source = source.index_copy(0, place, rows)[:-1]
        begun = None if begun is None else begun[order]
        return cls(sizes, width, span, order, begun, source, place, known and span == 1)

    @property
    def present(self) -> Tensor:
        """Whether there is a row at each place [G]."""
        return self.source < len(self.place)

    def spread(self, x: Tensor) -> Tensor:
        """Rows [N, …] in their places [G, …]; zeros where there is none."""
        return _taken(x, self.source)

    def rows(self, x: Tensor) -> Tensor:
        """What stands in the places [G, …], row by row [N, …]; zeros for nobody's."""
        return _taken(x, self.place)


def _laid(index: Tensor, begun: Tensor | None, chunk: int, width: int) -> Tensor:
    """The place of a member's row: every chunk's are `width` apart, the first has what it lacks."""
    if begun is None:
        return index // chunk * width + index % chunk
    behind = index + begun - chunk
    later = (behind // chunk + 1) * width + behind % chunk
    return torch.where(behind < 0, index, later)


def _least(most: int, step: int, late: int) -> list[int]:
    """How many rows a member has at least that has one in each block; it has at most `most`.

    A block takes `step` of its rows, the first one perhaps `late` fewer. A list, for what traces this.
    """
    return [max(1, rows) for rows in range(1 - late, most + 1, step)] if most else []


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """Rows [R, …] by an index; R is a row of zeros."""
    rows = x.flatten(1)
    wide = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
    return take_rows(wide, index).view(-1, *x.shape[1:])
