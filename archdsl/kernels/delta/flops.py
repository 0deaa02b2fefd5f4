"""Floating point operations and chunk length of the `delta` family, without importing torch."""

from archdsl.kernels.decay import flops as decay
from archdsl.kernels.decay.flops import pair_flops


def default_chunk(length: int, key_dim: int = 64, value_dim: int = 64, rank: int = 1) -> int:
    """Chunk length in micro steps for `length` tokens: a power of two from 16 to 64."""
    return decay.default_chunk(length * rank, key_dim, value_dim)


def flops(
    batch: int, length: int, heads: int, key_dim: int, value_dim: int, *,
    chunk: int | None = None, rank: int = 1, per_channel: bool = False,
    leaf: int | None = None, general: bool = False,
) -> int:  # fmt: skip
    """Operations (2 a multiply-add) of the chunked forward's matrix products, padding included.

    `rank` micro steps a token; `general` is the RWKV-7 form with its second write; `leaf` as in
    `archdsl.kernels.decay.flops.flops`.
    """
    size = chunk or default_chunk(length, key_dim, value_dim, rank)
    pairs = pair_flops(size, key_dim, leaf if per_channel else None)
    square, state = 2 * size * size * value_dim, 2 * size * key_dim * value_dim
    total = 2 * pairs + 2 * square + 3 * state + inverse_flops(size)
    if general:
        total += 2 * pairs + 2 * square + state
    return batch * heads * -(-length * rank // size) * total


def backward_flops(
    batch: int, length: int, heads: int, key_dim: int, value_dim: int, *,
    chunk: int | None = None, general: bool = False,
) -> int:  # fmt: skip
    """Operations of the backward's matrix products, from what the forward kept.

    Arguments as for `flops`, of a gate that does not close fast; `length` counts micro steps.
    """
    size = chunk or default_chunk(length, key_dim, value_dim)
    pairs = pair_flops(size, key_dim)
    square, state = 2 * size * size * value_dim, 2 * size * key_dim * value_dim
    total = 5 * pairs + 4 * square + 6 * state
    if general:
        total += 6 * pairs + 4 * square + 2 * state
    return batch * heads * -(-length // size) * total


def inverse_flops(chunk: int) -> int:
    """Operations of inverting one unit lower triangular [C, C] by doubling blocks of eight."""
    total, half = 0, 8
    while half < chunk:
        total += chunk // (2 * half) * 2 * 2 * half**3
        half *= 2
    return total


def step_flops(
    batch: int, heads: int, key_dim: int, value_dim: int, *, rank: int = 1, general: bool = False
) -> int:
    """Operations of one decoded token's matrix products: a read per micro step, the output."""
    del general
    return 2 * batch * heads * key_dim * value_dim * (rank + 1)
