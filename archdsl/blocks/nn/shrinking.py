"""Packed sequences as a batch that shrinks where they end, the longest first: no padding is computed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from archdsl.kernels.common import segments
from archdsl.kernels.routing import take_rows


@dataclass(frozen=True)
class Shrinking:
    """Where N packed tokens of M sequences stand, step by step.

    Where lengths are not known, a step has as many sequences as could have a token there: of N tokens,
    at most ``N / (t + 1)`` sequences have more than ``t``. No shape then depends on a length.

    Args:
        sizes: sequences at each step.
        lengths: of the sequences in order ``[M]``, where not all at a step need have a token there.
        order: sequences, the longest first ``[M]``.
        place: of each token, among those of all steps ``[N]``.
        source: the token at each place; N where there is none.
    """

    sizes: list[int]
    lengths: Tensor | None
    order: Tensor
    place: Tensor
    source: Tensor

    @classmethod
    def of(cls, cu_seqlens: Tensor, count: int, widest: int) -> Shrinking:
        """Of so many tokens, at most ``widest`` a sequence."""
        lengths = cu_seqlens.diff()
        order = lengths.argsort(descending=True, stable=True)
        known = cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling()
        if known:
            sizes = (len(lengths) - lengths.bincount().cumsum(0))[:-1].tolist()
        else:
            sizes = [min(len(lengths), count // (t + 1)) for t in range(min(widest, count))]
        rows, _ = segments(cu_seqlens, count)
        tokens = torch.arange(count, device=order.device)
        first = torch.tensor([0, *accumulate(sizes)], device=order.device)
        place = first[tokens - cu_seqlens[rows]] + order.argsort()[rows]
        source = torch.full((sum(sizes),), count, device=order.device).index_copy(0, place, tokens)
        return cls(sizes, None if known else lengths[order], order, place, source)

    def steps(self, x: Tensor) -> tuple[Tensor, ...]:
        """``[1, N, …]`` as one slice a step, of the sequences that have it; zeros for the others."""
        flat = x[0].flatten(1)
        rows = take_rows(torch.cat([flat, flat.new_zeros(1, flat.shape[1])]), self.source)
        return rows.view(-1, *x.shape[2:]).split(self.sizes)  # type: ignore[no-untyped-call,no-any-return]

    def tokens(self, steps: list[Tensor]) -> Tensor:
        """One slice a step as ``[1, N, …]``."""
        rows = torch.cat(steps)
        return take_rows(rows.flatten(1), self.place).view(1, -1, *rows.shape[1:])

    def going(self, t: int) -> Tensor | None:
        """Which of the sequences at a step have a token there; ``None`` for all."""
        return None if self.lengths is None else self.lengths[: self.sizes[t]] > t
