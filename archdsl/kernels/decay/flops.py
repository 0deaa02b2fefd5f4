"""Floating point operations and chunk length of the `decay` family, without importing torch."""

MAX_CHUNK = 64
MIN_CHUNK = 16


def default_chunk(length: int, key_dim: int = 64, value_dim: int = 64) -> int:
    """Chunk length for `length` tokens: a power of two from 16 to 64, no longer than needed."""
    del key_dim, value_dim
    chunk = MIN_CHUNK
    while chunk < min(length, MAX_CHUNK):
        chunk *= 2
    return chunk


def flops(
    batch: int, length: int, heads: int, key_dim: int, value_dim: int, *,
    chunk: int | None = None, per_channel: bool = False, leaf: int | None = None,
    normalised: bool = False,
) -> int:  # fmt: skip
    """Operations (2 a multiply-add) of the chunked forward's matrix products, padding included.

    A per-channel gate that closes fast splits chunks into leaves of `leaf` tokens; None means one
    leaf. A normalised form carries its normaliser as one more value channel.
    """
    size = chunk or default_chunk(length, key_dim, value_dim)
    values = value_dim + normalised
    pairs = pair_flops(size, key_dim, leaf if per_channel else None)
    intra = pairs + 2 * size * size * values
    inter = 2 * 2 * size * key_dim * values
    return batch * heads * -(-length // size) * (intra + inter)


def backward_flops(
    batch: int, length: int, heads: int, key_dim: int, value_dim: int, *, chunk: int | None = None
) -> int:
    """Operations of the backward's matrix products, from the states the forward kept.

    Arguments as for `flops`, of a gate that does not close fast.
    """
    size = chunk or default_chunk(length, key_dim, value_dim)
    pairs = pair_flops(size, key_dim)
    square, state = 2 * size * size * value_dim, 2 * size * key_dim * value_dim
    return batch * heads * -(-length // size) * (3 * pairs + 2 * square + 4 * state)


def pair_flops(chunk: int, key_dim: int, leaf: int | None = None) -> int:
    """Operations of one chunk's [C, C] matrix of decayed products over K channels."""
    half = leaf or chunk
    total = 2 * chunk * half * key_dim
    while half < chunk:
        total += chunk * half * key_dim
        half *= 2
    return total


def step_flops(
    batch: int, heads: int, key_dim: int, value_dim: int, *, normalised: bool = False
) -> int:
    """Operations of the matrix products of one decoded token."""
    return 2 * batch * heads * key_dim * (value_dim + normalised)
