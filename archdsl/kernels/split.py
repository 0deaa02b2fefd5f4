"""Gates that may close within a chunk: decayed products whose exponents stay small.

`products(rows, cols)[i, j] = sum_d rows[i, d] cols[j, d] exp(G_i - G_j)` for j <= i, with G the
cumulative log decay. Sums are kept in float64, so that the small difference of two large cumulative
decays (a gate that closed earlier in the chunk) stays exact; in float32 where products are in
bfloat16, whose rounding is coarser.
"""

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from archdsl.kernels.common import divide, gather
from archdsl.kernels.gates import Gate, Operand, balance, meet
from archdsl.kernels.products import sum_product

SPAN = {torch.float32: 40.0, torch.float64: 300.0}
"""Largest log decay over half a leaf for which the mid-row reference product cannot overflow."""

FLOOR = {torch.float32: -120.0, torch.float64: -800.0}
"""A log decay whose exponential is exactly zero; anything below, -inf included, means the same."""


class SplitGate(Gate):
    """Decay of L chunks from `log` [L, C, W]; W = 1 (per head) or the key width (per channel).

    Decays are summed in at least the precision of `log`, and so are their exponentials taken.
    Gradients through the products leave out the diagonal, which takes no part in the decay's, and
    those through the end state are kept apart: a closed gate's is then no difference of large sums.
    """

    def __init__(self, log: Tensor, dtype: torch.dtype) -> None:
        self.dtype, self.wide = dtype, log.dtype
        floor = FLOOR[log.dtype]
        self.closed = log < floor if float(log.amin()) < floor else None
        self.log = log.clamp(min=floor)
        rounded = dtype != log.dtype  # then float32 sums are exact enough
        self.prefix = self.log.cumsum(1, dtype=log.dtype if rounded else torch.float64)
        self.end = self.prefix[:, -1:].to(log.dtype, copy=True).exp_().mT
        self.enter = {shifted: self._exp(self.cumulative(shifted)) for shifted in (False, True)}
        self.leave = self._difference(self.prefix[:, -1:], self.prefix)

    def cumulative(self, shifted: bool) -> Tensor:
        """G_i as a row sees it, [L, C, W]; `shifted` leaves out the row's own decay."""
        return self.prefix - self.log if shifted else self.prefix

    @abstractmethod
    def products(self, rows: Tensor, cols: Tensor, shifted: bool, diagonal: bool) -> Tensor:
        """The lower triangular decayed products [L, C, C]; strictly lower without `diagonal`."""

    @abstractmethod
    def products_backward(
        self, grad: Tensor, rows: Tensor, cols: Tensor, shifted: bool
    ) -> tuple[Tensor, Tensor]:
        """Gradients of `products` to its rows and columns below the diagonal, each [L, C, K].

        May overwrite `grad` below and above the diagonal.
        """

    def rows(self, piece: Tensor, shifted: bool = False, negative: bool = False) -> Operand:
        """See `Gate.rows`."""
        raw = gather(piece, self.dtype)
        raw = raw.neg_() if negative else raw
        weight = torch.full_like(self.log[:, :, :1], -1) if negative else None
        scaled = raw * self.enter[shifted]
        return Operand(piece, scaled, weight, raw=raw, shifted=shifted)

    def columns(self, piece: Tensor, rate: Tensor | None = None) -> Operand:
        """See `Gate.columns`."""
        raw = gather(piece, self.dtype, rate)
        return Operand(piece, raw * self.leave, rate, raw=raw)

    def pairs(self, rows: Operand, cols: Operand, diagonal: bool, exact: bool = False) -> Tensor:
        """See `Gate.pairs`."""
        assert rows.raw is not None
        assert cols.raw is not None
        dtype = self.wide if exact else self.dtype
        left, right = rows.raw.to(dtype), cols.raw.to(dtype)
        return self.products(left, right, rows.shifted, diagonal)

    def pairs_backward(self, grad: Tensor, rows: Operand, cols: Operand, diagonal: bool) -> None:
        """See `Gate.pairs_backward`."""
        assert rows.raw is not None
        assert cols.raw is not None
        if diagonal:
            meet(grad, rows, cols, rows.raw, cols.raw)
        d_rows, d_cols = self.products_backward(grad, rows.raw, cols.raw, rows.shifted)
        rows.grad, cols.grad = _plus(rows.grad, d_rows), _plus(cols.grad, d_cols)

    def write(
        self, start: Tensor, part: slice, out: Tensor, *writes: tuple[Tensor, Tensor]
    ) -> None:
        """See `Gate.write`."""
        torch.mul(start, self.end[part], out=out)
        for columns, values in writes:
            sum_product(out, columns.mT, values, out)

    def retreat(self, flow: Tensor, part: slice, end: Tensor) -> Tensor:
        """See `Gate.retreat`."""
        end.copy_(flow)
        return flow * self.end[part]

    def read_backward(self, rows: Operand, grad: Tensor, starts: Tensor) -> None:
        """See `Gate.read_backward`."""
        assert rows.grad is not None
        rows.grad.addcmul_(torch.bmm(grad, starts.mT), self.enter[rows.shifted])

    def write_backward(self, cols: Operand, value: Tensor, ends: Tensor) -> None:
        """See `Gate.write_backward`."""
        cols.leaving = torch.bmm(value, ends.mT).mul_(self.leave)

    def backward(
        self, rows: list[Operand], cols: list[Operand], states: Tensor, ends: Tensor
    ) -> Tensor:
        """See `Gate.backward`: sums over the tokens that a decay separates."""
        found = self.gained(rows, cols)
        through = self.end.mT * (states[:-1].flatten(0, 1) * ends).sum(2).unsqueeze(1)
        if self.log.shape[2] == 1:
            through = through.sum(2, keepdim=True)
        grad = found.flip(1).cumsum(1).flip(1).to(self.wide).add_(through)
        leaving = balance([(x.raw, x.leaving) for x in cols], [], self.log)
        grad[:, 1:] += leaving[:, :-1].cumsum(1)
        return grad if self.closed is None else grad.masked_fill_(self.closed, 0)

    def gained(self, rows: list[Operand], cols: list[Operand]) -> Tensor:
        """What every row gets and every column loses, [L, C, W]: summed after a token, its decay's."""
        early = [(x.raw, x.grad) for x in rows if not x.shifted]
        late = [(x.raw, x.grad) for x in rows if x.shifted]
        found = balance(early, [(x.raw, x.grad) for x in cols], self.log)
        found[:, :-1] += balance(late, [], self.log)[:, 1:]
        return found

    def _exp(self, exponent: Tensor) -> Tensor:
        return exponent.to(self.wide, copy=True).exp_().to(self.dtype)

    def _difference(self, left: Tensor, right: Tensor) -> Tensor:
        """exp(left - right), subtracted in the precision of the sums and rounded once."""
        shape = [max(pair) for pair in zip(left.shape, right.shape, strict=True)]
        out = torch.empty(shape, dtype=self.wide, device=left.device)
        return torch.sub(left, right, out=out).exp_().to(self.dtype)


def _plus(total: Tensor | None, part: Tensor) -> Tensor:
    """`total + part`, in place."""
    return part if total is None else total.add_(part)


class HeadGate(SplitGate):
    """One decay per head and token: the pair weights are one [C, C] matrix."""

    def __init__(self, log: Tensor, dtype: torch.dtype) -> None:
        super().__init__(log, dtype)
        self._matrices: dict[bool, Tensor] = {}
        self._gained = torch.zeros_like(log, dtype=torch.float64)

    def _matrix(self, shifted: bool) -> Tensor:
        if shifted not in self._matrices:
            lanes, chunk, _ = self.log.shape
            matrix = self.log.new_empty((lanes, chunk, chunk))
            torch.sub(self.cumulative(shifted), self.prefix.mT, out=matrix)
            matrix = matrix.clamp_(max=0).exp_().tril_(-1 if shifted else 0)
            self._matrices[shifted] = matrix.to(self.dtype)
        return self._matrices[shifted]

    def _weigh(self, matrix: Tensor, shifted: bool, diagonal: bool) -> Tensor:
        weighted = matrix.mul_(self._matrix(shifted))
        return weighted if diagonal else weighted.tril_(-1)

    def products(self, rows: Tensor, cols: Tensor, shifted: bool, diagonal: bool) -> Tensor:
        """See `SplitGate.products`."""
        return self._weigh(torch.bmm(rows, cols.mT), shifted, diagonal)

    def products_backward(
        self, grad: Tensor, rows: Tensor, cols: Tensor, shifted: bool
    ) -> tuple[Tensor, Tensor]:
        """See `SplitGate.products_backward`."""
        weighted = self._weigh(grad, shifted, False)
        return torch.bmm(weighted, cols), torch.bmm(weighted.mT, rows)

    def pairs_backward(self, grad: Tensor, rows: Operand, cols: Operand, diagonal: bool) -> None:
        """See `Gate.pairs_backward`: what a pair gives its row and its column cancels to the last bit."""
        super().pairs_backward(grad, rows, cols, diagonal)
        assert rows.raw is not None
        assert cols.raw is not None
        met = grad.mul_(torch.bmm(rows.raw, cols.raw.mT))
        self._gain(met.sum(2, keepdim=True, dtype=torch.float64), rows.shifted)
        self._gained.sub_(met.sum(1, dtype=torch.float64).unsqueeze(2))

    def read_backward(self, rows: Operand, grad: Tensor, starts: Tensor) -> None:
        """See `Gate.read_backward`."""
        assert rows.grad is not None
        found = torch.bmm(grad, starts.mT).mul_(self.enter[rows.shifted])
        rows.grad.add_(found)
        self._gain(balance([(rows.raw, found)], [], self.log), rows.shifted)

    def _gain(self, found: Tensor, shifted: bool) -> None:
        """Count what rows get, [L, C, 1], in the token whose decay is the last they saw."""
        if shifted:
            self._gained[:, :-1] += found[:, 1:]
        else:
            self._gained += found

    def gained(self, rows: list[Operand], cols: list[Operand]) -> Tensor:
        """See `SplitGate.gained`."""
        return self._gained


class ChannelGate(SplitGate):
    """One decay per key channel: products are split so that no exponent can overflow.

    Inside a leaf both factors refer to its middle row, which is safe because the leaf is chosen so
    short that half of it decays by less than `SPAN`. Above, blocks double in size: rows of the
    second half and columns of the first refer to the boundary between them, so both exponents are
    <= 0. A gate that never closes fast is one leaf, one product per chunk.
    """

    def __init__(self, log: Tensor, dtype: torch.dtype, leaf: int | None = None) -> None:
        super().__init__(log, dtype)
        self._factors: dict[bool, list[tuple[int, Tensor, Tensor]]] = {}
        self.leaf = self._measure() if leaf is None else leaf

    @property
    def _single(self) -> bool:
        """Whether a chunk is one leaf, and so one product."""
        return 1 < self.leaf == self.log.shape[1]

    def _measure(self) -> int:
        size = self.log.shape[1]
        while size > 1:
            ends = self.prefix[:, size // 2 - 1 :: size // 2]
            first = float(ends[:, 0].amin())
            if min(first, float(ends.diff(dim=1).amin())) >= -SPAN[self.log.dtype]:
                return size
            size //= 2
        return 1

    def _levels(self, shifted: bool, diagonal: bool) -> list[tuple[int, Tensor, Tensor]]:
        """(half, row factor, column factor [L, blocks, half, K]); half 0 marks the leaves.

        A leaf of one token has nothing but its diagonal.
        """
        if shifted not in self._factors:
            rows = self.cumulative(shifted)
            self._factors[shifted] = [self._leaves(rows), *self._halves(rows)]
        levels = self._factors[shifted]
        return levels if self.leaf > 1 or diagonal else levels[1:]

    def _leaves(self, rows: Tensor) -> tuple[int, Tensor, Tensor]:
        lanes, chunk, width = self.log.shape
        shape = (lanes, chunk // self.leaf, self.leaf, width)
        row, col = rows.view(shape), self.prefix.view(shape)
        middle = col[:, :, max(self.leaf // 2 - 1, 0)].unsqueeze(2)
        return 0, self._difference(row, middle), self._difference(middle, col)

    def _halves(self, rows: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        lanes, chunk, width = self.log.shape
        half = self.leaf
        while half < chunk:
            shape = (lanes, chunk // (2 * half), 2 * half, width)
            row, col = rows.view(shape), self.prefix.view(shape)
            border = col[:, :, half - 1 : half]
            row_factor = self._difference(row[:, :, half:], border)
            yield half, row_factor, self._difference(border, col[:, :, :half])
            half *= 2

    def products(self, rows: Tensor, cols: Tensor, shifted: bool, diagonal: bool) -> Tensor:
        """See `SplitGate.products`."""
        lanes, chunk, _ = rows.shape
        out = None if self._single else rows.new_zeros((lanes, chunk, chunk))
        for half, row_factor, col_factor in self._levels(shifted, diagonal):
            left = (_second(rows, half, self.leaf) * row_factor).flatten(0, 1)
            right = (_first(cols, half, self.leaf) * col_factor).flatten(0, 1)
            block = divide(torch.bmm(left, right.mT), 0, lanes, -1)
            if half == 0:
                block = block.tril_(0 if diagonal else -1)
            if out is None:
                return block.flatten(1, 2)
            _blocks(out, half, self.leaf).copy_(block)
        assert out is not None
        return out

    def products_backward(
        self, grad: Tensor, rows: Tensor, cols: Tensor, shifted: bool
    ) -> tuple[Tensor, Tensor]:
        """See `SplitGate.products_backward`."""
        fresh = torch.empty_like if self._single else torch.zeros_like
        d_rows, d_cols = fresh(rows), fresh(cols)
        lanes = rows.shape[0]
        for half, row_factor, col_factor in self._levels(shifted, False):
            block = _blocks(grad, half, self.leaf)
            if half == 0:
                block = block.tril(-1)
            weight = block.reshape(-1, *block.shape[2:])
            left = (_second(rows, half, self.leaf) * row_factor).flatten(0, 1)
            right = (_first(cols, half, self.leaf) * col_factor).flatten(0, 1)
            to_left = divide(torch.bmm(weight, right), 0, lanes, -1)
            to_right = divide(torch.bmm(weight.mT, left), 0, lanes, -1)
            if self._single:
                torch.mul(to_left, row_factor, out=_second(d_rows, half, self.leaf))
                torch.mul(to_right, col_factor, out=_first(d_cols, half, self.leaf))
                break
            _second(d_rows, half, self.leaf).addcmul_(to_left, row_factor)
            _first(d_cols, half, self.leaf).addcmul_(to_right, col_factor)
        return d_rows, d_cols


def _second(x: Tensor, half: int, leaf: int) -> Tensor:
    """Second halves of the blocks of [L, C, K], [L, blocks, half, K]; whole leaves for half 0."""
    return divide(x, 1, -1, leaf) if half == 0 else divide(x, 1, -1, 2 * half)[:, :, half:]


def _first(x: Tensor, half: int, leaf: int) -> Tensor:
    """First halves of the blocks of [L, C, K], [L, blocks, half, K]; whole leaves for half 0."""
    return divide(x, 1, -1, leaf) if half == 0 else divide(x, 1, -1, 2 * half)[:, :, :half]


def _blocks(matrix: Tensor, half: int, leaf: int) -> Tensor:
    """The leaf blocks, or the lower left quarter of each larger block, of [L, C, C]."""
    size = leaf if half == 0 else 2 * half
    tiles = divide(divide(matrix, 2, -1, size), 1, -1, size)
    diagonal = tiles.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    return diagonal if half == 0 else diagonal[:, :, half:, :half]


def split_gate(log: Tensor, dtype: torch.dtype) -> SplitGate:
    """A gate over `log` [L, C, W]: per head for W = 1, per channel otherwise."""
    return HeadGate(log, dtype) if log.shape[2] == 1 else ChannelGate(log, dtype)
