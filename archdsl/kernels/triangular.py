"""Inverses of unit lower triangular matrices by doubling their diagonal blocks."""

import torch
from torch import Tensor

from archdsl.kernels.common import divide


def invert_unit_lower(strict: Tensor) -> Tensor:
    """(I + A)^-1 for strictly lower triangular A [L, C, C], C a power of two.

    A block [[X, 0], [A21, Y]] has the inverse [[X', 0], [-Y' A21 X', Y']]. Every intermediate is
    itself a part of the inverse, so nothing can grow that the result does not contain; a Neumann
    product would cancel huge powers when keys repeat.
    """
    lanes, chunk, _ = strict.shape
    out = torch.zeros_like(strict)
    out.diagonal(dim1=1, dim2=2).fill_(1)
    half = 1
    while half < chunk:
        source, target = _tiles(strict, 2 * half), _tiles(out, 2 * half)
        lower = source[:, :, half:, :half].reshape(-1, half, half)
        if half > 1:
            second = target[:, :, half:, half:].reshape(-1, half, half)
            first = target[:, :, :half, :half].reshape(-1, half, half)
            lower = torch.bmm(torch.bmm(second, lower), first)
        torch.neg(lower.view(lanes, -1, half, half), out=target[:, :, half:, :half])
        half *= 2
    return out


def _tiles(matrix: Tensor, size: int) -> Tensor:
    """The diagonal blocks [L, C / size, size, size] of [L, C, C], as a view."""
    tiles = divide(divide(matrix, 2, -1, size), 1, -1, size)
    return tiles.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
