"""Cumulative log decays inside chunks, and the decayed products of rows and columns they weight.

`pairs(rows, cols)[i, j] = sum_d rows[i, d] cols[j, d] exp(G_i - G_j)` for j <= i, with G the
cumulative log decay. Every family's intra-chunk matrix is one of these. Sums are kept in float64,
so that the small difference of two large cumulative decays (a gate that closed earlier in the
chunk) stays exact; in float32 where products are in bfloat16, whose rounding is coarser.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from archdsl.kernels.common import Window, divide, load, store

SPAN = {torch.float32: 40.0, torch.float64: 300.0}
"""Largest log decay over half a leaf for which the mid-row reference product cannot overflow."""

FLOOR = {torch.float32: -120.0, torch.float64: -800.0}
"""A log decay whose exponential is exactly zero; anything below, -inf included, means the same."""


class Gate(ABC):
    """Decay of L chunks from `log` [L, C, W]; W = 1 (per head) or the key width (per channel).

    Decays are summed in at least the precision of `log`, and so are their exponentials taken;
    `dtype` is that of the factors and products given.
    """

    def __init__(self, log: Tensor, dtype: torch.dtype) -> None:
        self.dtype = dtype
        floor = FLOOR[log.dtype]
        self.closed = log < floor if float(log.amin()) < floor else None
        self.log = log.clamp(min=floor)
        rounded = dtype != log.dtype  # then float32 sums are exact enough
        self.prefix = self.log.cumsum(1, dtype=log.dtype if rounded else torch.float64)

    def rows(self, shifted: bool) -> Tensor:
        """G_i as a row sees it, [L, C, W]; `shifted` leaves out the row's own decay."""
        return self.prefix - self.log if shifted else self.prefix

    def enter(self, shifted: bool = False) -> Tensor:
        """Decay from the chunk's start to each row, [L, C, W]."""
        return self._exp(self.rows(shifted))

    def leave(self) -> Tensor:
        """Decay from each row to the chunk's end, [L, C, W]."""
        return self._difference(self.prefix[:, -1:], self.prefix)

    def total(self) -> Tensor:
        """Decay over the whole chunk, shaped for a state: [L, W, 1]."""
        return self.prefix[:, -1:].to(self.log.dtype, copy=True).exp_().mT

    @abstractmethod
    def pairs(self, rows: Tensor, cols: Tensor, shifted: bool, diagonal: bool) -> Tensor:
        """The lower triangular decayed products [L, C, C]; strictly lower without `diagonal`."""

    @abstractmethod
    def pairs_backward(
        self, grad: Tensor, rows: Tensor, cols: Tensor, shifted: bool
    ) -> tuple[Tensor, Tensor]:
        """Gradients of `pairs` to its rows and columns below the diagonal, each [L, C, K].

        The diagonal takes no part in the gate's gradient, and is left to the caller. May
        overwrite `grad` below and above the diagonal.
        """

    def backward(
        self, rows: Tensor, shifted: Tensor | None, leaving: Tensor, through: Tensor
    ) -> Tensor:
        """Gradient to `log` [L, C, W].

        `rows` [L, C, K] is each row's gradient times itself less each column's, `shifted` the same
        of rows that leave out their own decay; `leaving` [L, C, K] is what each token's write to
        the next state contributes, `through` [L, K] what the old state does. Sums over the tokens
        that a decay separates, so that a closed gate's gradient is not a difference of large sums.
        """
        if shifted is not None:
            rows[:, :-1] += shifted[:, 1:]
        wide = self.log.dtype
        if self.log.shape[2] == 1:
            rows, leaving = (x.sum(2, keepdim=True, dtype=wide) for x in (rows, leaving))
            through = through.sum(1, keepdim=True)
        rows, leaving = rows.to(wide), leaving.to(wide)
        grad = rows.flip(1).cumsum(1).flip(1).add_(through.unsqueeze(1))
        grad[:, 1:] += leaving[:, :-1].cumsum(1)
        return grad if self.closed is None else grad.masked_fill_(self.closed, 0)

    def _exp(self, exponent: Tensor) -> Tensor:
        return exponent.to(self.log.dtype, copy=True).exp_().to(self.dtype)

    def _difference(self, left: Tensor, right: Tensor) -> Tensor:
        """exp(left - right), subtracted in the precision of the sums and rounded once."""
        shape = [max(pair) for pair in zip(left.shape, right.shape, strict=True)]
        out = torch.empty(shape, dtype=self.log.dtype, device=left.device)
        return torch.sub(left, right, out=out).exp_().to(self.dtype)


class HeadGate(Gate):
    """One decay per head and token: the pair weights are one [C, C] matrix."""

    def __init__(self, log: Tensor, dtype: torch.dtype) -> None:
        super().__init__(log, dtype)
        self._matrices: dict[bool, Tensor] = {}

    def _matrix(self, shifted: bool) -> Tensor:
        if shifted not in self._matrices:
            lanes, chunk, _ = self.log.shape
            matrix = self.log.new_empty((lanes, chunk, chunk))
            torch.sub(self.rows(shifted), self.prefix.mT, out=matrix)
            matrix = matrix.clamp_(max=0).exp_().tril_(-1 if shifted else 0)
            self._matrices[shifted] = matrix.to(self.dtype)
        return self._matrices[shifted]

    def _weigh(self, matrix: Tensor, shifted: bool, diagonal: bool) -> Tensor:
        weighted = matrix.mul_(self._matrix(shifted))
        return weighted if diagonal else weighted.tril_(-1)

    def pairs(self, rows: Tensor, cols: Tensor, shifted: bool, diagonal: bool) -> Tensor:
        """See `Gate.pairs`."""
        return self._weigh(torch.bmm(rows, cols.mT), shifted, diagonal)

    def pairs_backward(
        self, grad: Tensor, rows: Tensor, cols: Tensor, shifted: bool
    ) -> tuple[Tensor, Tensor]:
        """See `Gate.pairs_backward`."""
        weighted = self._weigh(grad, shifted, False)
        return torch.bmm(weighted, cols), torch.bmm(weighted.mT, rows)


class ChannelGate(Gate):
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
            rows = self.rows(shifted)
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

    def pairs(self, rows: Tensor, cols: Tensor, shifted: bool, diagonal: bool) -> Tensor:
        """See `Gate.pairs`."""
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

    def pairs_backward(
        self, grad: Tensor, rows: Tensor, cols: Tensor, shifted: bool
    ) -> tuple[Tensor, Tensor]:
        """See `Gate.pairs_backward`."""
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


def diagonal(grad: Tensor) -> Tensor:
    """The diagonal of [L, C, C] as [L, C, 1], a copy."""
    return grad.diagonal(dim1=1, dim2=2).unsqueeze(-1).clone()


def make_gate(log: Tensor, dtype: torch.dtype) -> Gate:
    """A gate over `log` [L, C, W]: per head for W = 1, per channel otherwise."""
    return HeadGate(log, dtype) if log.shape[2] == 1 else ChannelGate(log, dtype)


def load_gate(
    log_decay: Tensor | None,
    like: Tensor,
    window: Window,
    wide: torch.dtype,
    dtype: torch.dtype | None = None,
) -> Gate:
    """The gate of a window, from [B, T, H], [B, T, H, K] or None (no decay).

    Decays are kept in `wide`; factors and products are in `dtype`, the same unless given.
    """
    dtype = dtype or wide
    if log_decay is None:
        batch, _, heads, _ = like.shape
        lanes = window.chunks * batch * heads
        none = torch.zeros((lanes, window.chunk, 1), dtype=wide, device=like.device)
        return make_gate(none, dtype)
    log = log_decay.unsqueeze(-1) if log_decay.dim() == 3 else log_decay
    return make_gate(load(log, window, wide), dtype)


def store_gate(grad: Tensor, window: Window, value: Tensor) -> None:
    """Write a gate gradient [L, C, W] into [B, T, H] or [B, T, H, K]; empty `grad` takes none."""
    if grad.numel():
        store(grad.unsqueeze(-1) if grad.dim() == 3 else grad, window, value)
