"""What a decay does to the operands of a window of chunks, behind one interface.

The families see *rows* (what reads: queries, erase keys), *columns* (what is written: keys) and states.
With G the cumulative log decay inside a chunk, rows and columns meet in the lower triangular
`pairs[i, j] = sum_d rows[i, d] cols[j, d] exp(G_i - G_j)`, rows read the chunk's start state with
exp(G_i), and columns are left in its end state with exp(G_C - G_j).

A gate that stays open (`FactoredGate`) splits exp(G_i - G_j) into exp(G_i) and exp(-G_j): rows and
columns are weighted once, and all that remains are products without a decay. Where exp(-G_j) could
overflow, `split` keeps every exponent small.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from archdsl.kernels.common import Window, gather, store
from archdsl.kernels.products import sum_product


@dataclass(eq=False)
class Operand:
    """Rows or columns of a window, and the gradients that reach them.

    `piece` [chunks, B, H, C, K] is what they were made of and `scaled` [L, C, K] what meets states;
    `raw` [L, C, K] is without the decay, for a gate that needs it. The gradient to `piece` is the
    operand's times `weight` [L, C, 1 or K]; to a rate inside the weight, times `unrated`.
    """

    piece: Tensor
    scaled: Tensor
    weight: Tensor | None = None
    unrated: Tensor | None = None
    raw: Tensor | None = None
    shifted: bool = False
    grad: Tensor | None = None
    leaving: Tensor | None = None
    own: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, a: Tensor, b: Tensor) -> None:
        """Add the product `a b` to the gradient."""
        self.grad = torch.bmm(a, b) if self.grad is None else self.grad.baddbmm_(a, b)

    def total(self) -> Tensor:
        """The whole gradient [L, C, K]."""
        assert self.grad is not None
        if self.leaving is not None:
            self.grad.add_(self.leaving)
        for own, other in self.own:
            self.grad.addcmul_(own, other)
        self.leaving, self.own = None, []
        return self.grad

    def weighted(self) -> Tensor:
        """The gradient to `piece`, [L, C, K]; takes the place of the operand's."""
        return self.total() if self.weight is None else self.total().mul_(self.weight)

    def store(self, target: Tensor, window: Window) -> None:
        """Write the gradient to `piece` into its window of `target` [B, T, H, K]."""
        store(target, window, self.total(), self.weight)

    def rate_gradient(self) -> Tensor:
        """The gradient to a rate of each token, [L, C, 1]."""
        found = gather(self.piece, self.scaled.dtype, self.total())
        found = found if self.unrated is None else found.mul_(self.unrated)
        return found.sum(2, keepdim=True)


class Gate(ABC):
    """The decay of L chunks; factors and products are in `dtype`, sums and states in `wide`."""

    dtype: torch.dtype
    wide: torch.dtype

    @abstractmethod
    def rows(self, piece: Tensor, shifted: bool = False, negative: bool = False) -> Operand:
        """Rows of `piece` [chunks, B, H, C, K]; `shifted` ones have not decayed by their own token."""

    @abstractmethod
    def columns(self, piece: Tensor, rate: Tensor | None = None) -> Operand:
        """Columns of `piece` [chunks, B, H, C, K], times a rate [L, C, 1]."""

    @abstractmethod
    def pairs(self, rows: Operand, cols: Operand, diagonal: bool, exact: bool = False) -> Tensor:
        """The decayed products [L, C, C], strictly lower without `diagonal`.

        `exact` ones are in the precision of the states.
        """

    @abstractmethod
    def pairs_backward(self, grad: Tensor, rows: Operand, cols: Operand, diagonal: bool) -> None:
        """Add the gradients of `pairs` to both; may overwrite `grad`."""

    @abstractmethod
    def write(
        self, start: Tensor, part: slice, out: Tensor, *writes: tuple[Tensor, Tensor]
    ) -> None:
        """Fill `out` [B H, K, V], the next chunk's start, from `start` and (columns, values) written."""

    @abstractmethod
    def retreat(self, flow: Tensor, part: slice, end: Tensor) -> Tensor:
        """The gradient to a start state from `flow` [B H, K, V], that to the next, but for what reads.

        Fills `end` with what the chunk's columns get; may return it.
        """

    @abstractmethod
    def read_backward(self, rows: Operand, grad: Tensor, starts: Tensor) -> None:
        """Add the gradient of `rows starts`, given that to the result [L, C, V]."""

    @abstractmethod
    def write_backward(self, cols: Operand, value: Tensor, ends: Tensor) -> None:
        """Add the gradient of writing `value` [L, C, V], given `ends` [L, K, V] of `retreat`."""

    @abstractmethod
    def backward(
        self, rows: list[Operand], cols: list[Operand], states: Tensor, ends: Tensor
    ) -> Tensor:
        """Gradient to the log decay [L, C, W], when all others have reached rows and columns.

        `states` [chunks + 1, B H, K, V] are those at the chunks' borders.
        """


class FactoredGate(Gate):
    """A decay whose cumulative factors exp(G), `factor` [L, C, W], can be divided by; None is no decay."""

    def __init__(self, factor: Tensor | None, wide: torch.dtype, dtype: torch.dtype) -> None:
        self.factor, self.wide, self.dtype = factor, wide, dtype
        self.end = None if factor is None else factor[:, -1:].mT.contiguous()

    def rows(self, piece: Tensor, shifted: bool = False, negative: bool = False) -> Operand:
        """See `Gate.rows`."""
        weight = self._before() if shifted else self.factor
        if negative:
            one = torch.ones(_rows_of(piece), dtype=self.wide, device=piece.device)
            weight = (one if weight is None else weight).neg()
        return Operand(piece, gather(piece, self.dtype, weight), weight, shifted=shifted)

    def _before(self) -> Tensor | None:
        """The factors up to the token before each."""
        if self.factor is None:
            return None
        before = torch.empty_like(self.factor)
        before[:, :1] = 1
        before[:, 1:] = self.factor[:, :-1]
        return before

    def columns(self, piece: Tensor, rate: Tensor | None = None) -> Operand:
        """See `Gate.columns`."""
        inverse = None if self.factor is None else self.factor.reciprocal()
        weight = inverse if rate is None else rate if inverse is None else inverse * rate
        return Operand(piece, gather(piece, self.dtype, weight), weight, inverse)

    def pairs(self, rows: Operand, cols: Operand, diagonal: bool, exact: bool = False) -> Tensor:
        """See `Gate.pairs`."""
        left, right = rows.scaled, cols.scaled
        if exact and self.dtype != self.wide:
            left, right = (gather(x.piece, self.wide, x.weight) for x in (rows, cols))
        return torch.bmm(left, right.mT).tril_(0 if diagonal else -1)

    def pairs_backward(self, grad: Tensor, rows: Operand, cols: Operand, diagonal: bool) -> None:
        """See `Gate.pairs_backward`."""
        if diagonal:
            meet(grad, rows, cols, rows.scaled, cols.scaled)
        grad.tril_(-1)
        rows.add(grad, cols.scaled)
        cols.add(grad.mT, rows.scaled)

    def write(
        self, start: Tensor, part: slice, out: Tensor, *writes: tuple[Tensor, Tensor]
    ) -> None:
        """See `Gate.write`."""
        for columns, values in writes:
            sum_product(start, columns.mT, values, out)
            start = out
        if self.end is not None:
            out.mul_(self.end[part])

    def retreat(self, flow: Tensor, part: slice, end: Tensor) -> Tensor:
        """See `Gate.retreat`."""
        if self.end is None:
            end.copy_(flow)
            return flow
        torch.mul(flow, self.end[part], out=end)
        return end if end.dtype == flow.dtype else flow * self.end[part]

    def read_backward(self, rows: Operand, grad: Tensor, starts: Tensor) -> None:
        """See `Gate.read_backward`."""
        rows.add(grad, starts.mT)

    def write_backward(self, cols: Operand, value: Tensor, ends: Tensor) -> None:
        """See `Gate.write_backward`."""
        cols.add(value, ends.mT)

    def backward(
        self, rows: list[Operand], cols: list[Operand], states: Tensor, ends: Tensor
    ) -> Tensor:
        """See `Gate.backward`: a token's decay multiplies what is read after it, not what is written.

        What is left at the end counts in the border state, all the rest once a token.
        """
        assert self.factor is not None
        assert self.end is not None
        early = [(x.scaled, x.grad) for x in rows if not x.shifted]
        late = [(x.scaled, x.grad) for x in rows if x.shifted]
        found = balance(early, [(x.scaled, x.grad) for x in cols], self.factor)
        if late:
            found[:, :-1] += balance(late, [], self.factor)[:, 1:]
        through = (states[1:].flatten(0, 1) * ends).sum(2, keepdim=True).div_(self.end)
        if found.shape[2] == 1:
            through = through.sum(1, keepdim=True)
        before = found.cumsum(1)
        last = before[:, -1:] + through.mT
        return torch.sub(last, before.sub_(found), out=found)


Weighed = Sequence[tuple[Tensor | None, Tensor | None]]
"""Operands [L, C, K] and their gradients."""


def balance(gained: Weighed, lost: Weighed, like: Tensor) -> Tensor:
    """What rows get less what columns get, each times itself, as a decay `like` [L, C, W].

    These cancel to a large part: they are neither rounded nor summed over channels before.
    """
    total: Tensor | None = None
    for sign, (x, grad) in [*((1, pair) for pair in gained), *((-1, pair) for pair in lost)]:
        assert x is not None
        assert grad is not None
        x, grad = x.to(like.dtype), grad.to(like.dtype)
        if total is None:
            total = x * grad if sign > 0 else (x * grad).neg_()
        else:
            total.addcmul_(x, grad, value=sign)
    if total is None:
        return torch.zeros_like(like)
    return total if like.shape[2] > 1 else total.sum(2, keepdim=True)


def meet(grad: Tensor, rows: Operand, cols: Operand, left: Tensor, right: Tensor) -> None:
    """The gradients through the diagonal of pairs, where no decay lies between row and column.

    They are kept apart: in the decay's gradient they would cancel, but for their rounding.
    """
    own = grad.diagonal(dim1=1, dim2=2).unsqueeze(-1).clone()
    rows.own.append((own, right))
    cols.own.append((own, left))


def _rows_of(piece: Tensor) -> tuple[int, int, int]:
    """The shape [L, C, 1] of one number a token of `piece` [chunks, B, H, C, K]."""
    return piece[..., 0].numel() // piece.shape[3], piece.shape[3], 1
