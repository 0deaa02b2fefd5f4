"""Operations and block count of the `scan` family, without importing torch."""

LANES = 32768
"""Elements one step should touch: enough to share among threads, few enough to stay in cache."""

MIN_BLOCK = 16
"""Shortest run of tokens worth a block of its own."""


def default_blocks(length: int, width: int, batch: int = 1) -> int:
    """Parallel blocks to cut `length` tokens into; `batch * width` elements advance together."""
    wanted = -(-LANES // max(batch * width, 1))
    return max(1, min(wanted, length // MIN_BLOCK, int(length**0.5)))


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
