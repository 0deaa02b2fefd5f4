"""Inverses of unit lower triangular matrices: small blocks by elimination, then by doubling."""

import torch
from torch import Tensor

from archdsl.kernels.common import divide

BLOCK = 8
"""Rows eliminated one by one; smaller products cost more to call than to compute."""


def invert_unit_lower(strict: Tensor, out: Tensor) -> None:
    """Fill `out` with (I - N)^-1 for strictly lower triangular N [L, C, C], C a power of two.

    A block [[X, 0], [-N21, Y]] has the inverse [[X', 0], [Y' N21 X', Y']]. Every intermediate is
    itself a part of the inverse, so nothing can grow that the result does not contain; a Neumann
    product would cancel huge powers when keys repeat.
    """
    lanes, chunk, _ = strict.shape
    out.zero_().diagonal(dim1=1, dim2=2).fill_(1)
    half = min(BLOCK, chunk)
    _eliminate(_tiles(strict, half), _tiles(out, half))
    while half < chunk:
        source, target = _tiles(strict, 2 * half), _tiles(out, 2 * half)
        lower = source[:, :, half:, :half].reshape(-1, half, half)
        second = target[:, :, half:, half:].reshape(-1, half, half)
        first = target[:, :, :half, :half].reshape(-1, half, half)
        lower = torch.bmm(torch.bmm(second, lower), first)
        target[:, :, half:, :half] = lower.view(lanes, -1, half, half)
        half *= 2


def _eliminate(strict: Tensor, out: Tensor) -> None:
    """Turn `out`, the identity, into the inverse of each block [L, blocks, size, size]."""
    for row in range(strict.shape[2] - 1):
        below = out[:, :, row + 1 :, : row + 1]
        below.addcmul_(strict[:, :, row + 1 :, row, None], out[:, :, row, None, : row + 1])


def _tiles(matrix: Tensor, size: int) -> Tensor:
    """The diagonal blocks [L, C / size, size, size] of [L, C, C], as a view."""
    tiles = divide(divide(matrix, 2, -1, size), 1, -1, size)
    return tiles.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
