"""Operations and tile length of the `scan` family, without importing torch."""

TILE = 1 << 19
"""Elements of a tile: what fits in the third-level cache a few times over; smaller ones take more calls."""

BASE = 16
"""Tokens below which single steps are cheaper than another halving."""


def default_tile(length: int, width: int, batch: int = 1) -> int:
    """Tokens processed together; `batch * width` elements advance side by side."""
    return max(BASE, min(length, TILE // max(batch * width, 1)))


def flops(batch: int, length: int, width: int) -> int:
    """Operations of matrix products in a forward pass: none, every step is elementwise."""
    del batch, length, width
    return 0


def step_flops(batch: int, width: int) -> int:
    """Operations of matrix products of one decoded token: none."""
    del batch, width
    return 0


def elementwise(batch: int, length: int, width: int, *, is_complex: bool = False) -> int:
    """Multiply-adds of the recurrence, 2 operations each (8 for complex numbers)."""
    return batch * length * width * (8 if is_complex else 2)
