"""What the Triton forms share: tiles, decay sums inside a chunk, launching. Imports triton.

Rules every kernel here keeps:

* Unpacked tensors are packed ones of equal lengths: tokens are numbered through the batch, and a
  program finds its chunk by arithmetic or in a table made on the device, without waiting for it.
* A decay is the exponential of a sum of log decays taken directly over the tokens between (a product
  with a matrix of zeros and ones), never a difference of cumulative sums: every exponent is <= 0,
  and a gate that closed earlier in the chunk costs no digits.
* Nothing computed is transposed. A transposed operand is loaded transposed and computed anew: a
  transposed accumulator that feeds a product gave wrong gradients on Hopper in several releases of
  Triton (fla #640, #984).
* Lengths and row counts are never specialised, so that no length compiles anything. Offsets are
  int64. No method is called on a loop index, which is a plain int under the interpreter.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

DYNAMIC = ["length", "tokens"]
"""Arguments whose value must never choose another binary."""

LEAST = 16
"""Smallest side of a matrix product in Triton."""

INTERPRETED = bool(getattr(triton.knobs.runtime, "interpret", False))
"""Whether kernels run in the interpreter, on CPU tensors."""

PLAIN = tl.constexpr(INTERPRETED)
"""Whether products take float32 only: the interpreter has no bfloat16 product."""


def kernel(function: Callable[..., Any]) -> Any:
    """A Triton kernel whose lengths are not specialised."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return triton.jit(function, do_not_specialize=[name for name in DYNAMIC if name in names])


def helper(function: Callable[..., Any]) -> Any:
    """A Triton function called from kernels."""
    return triton.jit(function)


def steps(first: Any, last: Any, step: int = 1) -> Any:
    """`range` for kernels in the interpreter, whose numbers NumPy 2.4 no longer converts itself."""
    begin, end = (x if isinstance(x, int) else x.handle.data.item() for x in (first, last))
    return range(begin, end, step)


loop: Any = steps if INTERPRETED else range
"""What kernels import as `range`, the one name that Triton compiles."""


@helper
def product(a: tl.tensor, b: tl.tensor, HALF: tl.constexpr) -> Any:
    """Multiply a @ b in float32: bfloat16 operands (2), tensor float (1), or near float32 (0)."""
    if HALF == 2:
        out = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    elif HALF == 1:
        out = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="tf32")
    else:
        out = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="tf32x3")
    return out


@helper
def thirds(x: tl.tensor) -> Any:
    """Three bfloat16 tensors that add up to x to float32 accuracy, the largest first."""
    high = x.to(tl.bfloat16)
    rest = x - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    return high, middle, (rest - middle.to(tl.float32)).to(tl.bfloat16)


@helper
def sums(mask: tl.tensor, x: tl.tensor) -> Any:
    """Sums of rows of x [L, D] chosen by mask [C, L], to float32 accuracy."""
    if PLAIN:
        return tl.dot(tl.where(mask, 1.0, 0.0), x)
    chosen = tl.where(mask, 1.0, 0.0).to(tl.bfloat16)
    high, middle, low = thirds(x)
    return tl.dot(chosen, high, acc=tl.dot(chosen, middle, acc=tl.dot(chosen, low)))


@helper
def sums_across(x: tl.tensor, mask: tl.tensor) -> Any:
    """Sums of columns of x [D, L] chosen by mask [L, C], as in `sums`."""
    if PLAIN:
        return tl.dot(x, tl.where(mask, 1.0, 0.0))
    chosen = tl.where(mask, 1.0, 0.0).to(tl.bfloat16)
    high, middle, low = thirds(x)
    return tl.dot(high, chosen, acc=tl.dot(middle, chosen, acc=tl.dot(low, chosen)))


@helper
def until(i: tl.tensor, j: tl.tensor, half: tl.tensor, SHIFTED: tl.constexpr) -> Any:
    """Whether j is in i's segment of `half` tokens and no later (earlier, if SHIFTED)."""
    near = (i // half) == (j // half)
    if SHIFTED:
        near = near & (j < i)
    else:
        near = near & (j <= i)
    return near


@helper
def beyond(i: tl.tensor, j: tl.tensor, half: tl.tensor) -> Any:
    """Whether j is in i's segment of `half` tokens and later."""
    return ((i // half) == (j // half)) & (j > i)


@helper
def facing(i: tl.tensor, j: tl.tensor, half: tl.tensor) -> Any:
    """Whether i is in the second and j in the first half of one block of 2 `half` tokens."""
    return ((i // half) == (j // half) + 1) & ((i // (2 * half)) == (j // (2 * half)))


@helper
def square(C: tl.constexpr) -> Any:
    """Numbers of rows [C, 1] and of columns [1, C]."""
    here = tl.arange(0, C)
    return here[:, None], here[None, :]


@helper
def spot(
    token: tl.tensor, good: tl.tensor, head: tl.tensor, column: tl.tensor,
    H: tl.constexpr, D: tl.constexpr,
) -> Any:  # fmt: skip
    """Offsets into [tokens, H, D] of tokens and columns as they broadcast, and which there are."""
    return (token * H + head) * D + column, good & (column < D)


@helper
def rows_of(
    x: tl.tensor, token: tl.tensor, good: tl.tensor, head: tl.tensor, column: tl.tensor,
    H: tl.constexpr, D: tl.constexpr,
) -> Any:  # fmt: skip
    """Tile [C, block] of x [tokens, H, D] in its own dtype, zeros outside."""
    offset, mask = spot(token[:, None], good[:, None], head, column[None, :], H, D)
    return tl.load(x + offset, mask=mask, other=0.0)


@helper
def across_of(
    x: tl.tensor, token: tl.tensor, good: tl.tensor, head: tl.tensor, column: tl.tensor,
    H: tl.constexpr, D: tl.constexpr,
) -> Any:  # fmt: skip
    """Tile [block, C] of x [tokens, H, D], loaded transposed."""
    offset, mask = spot(token[None, :], good[None, :], head, column[:, None], H, D)
    return tl.load(x + offset, mask=mask, other=0.0)


@helper
def keep_rows(
    x: tl.tensor, tile: tl.tensor, token: tl.tensor, good: tl.tensor, head: tl.tensor,
    column: tl.tensor, H: tl.constexpr, D: tl.constexpr,
) -> None:  # fmt: skip
    """Write a tile [C, block] into x [tokens, H, D]."""
    offset, mask = spot(token[:, None], good[:, None], head, column[None, :], H, D)
    tl.store(x + offset, tile.to(x.dtype.element_ty), mask=mask)


@helper
def state_spot(key: tl.tensor, value: tl.tensor, K: tl.constexpr, V: tl.constexpr) -> Any:
    """Offsets into a state [K, V] of keys and values as they broadcast, and which there are."""
    return key * V + value, (key < K) & (value < V)


@helper
def state_of(
    x: tl.tensor, place: tl.tensor, key: tl.tensor, value: tl.tensor,
    K: tl.constexpr, V: tl.constexpr,
) -> Any:  # fmt: skip
    """Tile [BK, BV] of a state in x [places, K, V], zeros outside."""
    offset, mask = state_spot(key[:, None], value[None, :], K, V)
    return tl.load(x + place * K * V + offset, mask=mask, other=0.0)


@helper
def state_across_of(
    x: tl.tensor, place: tl.tensor, key: tl.tensor, value: tl.tensor,
    K: tl.constexpr, V: tl.constexpr,
) -> Any:  # fmt: skip
    """Tile [BV, BK] of a state in x [places, K, V], loaded transposed."""
    offset, mask = state_spot(key[None, :], value[:, None], K, V)
    return tl.load(x + place * K * V + offset, mask=mask, other=0.0)


@helper
def keep_state(
    x: tl.tensor, tile: tl.tensor, place: tl.tensor, key: tl.tensor, value: tl.tensor,
    K: tl.constexpr, V: tl.constexpr,
) -> None:  # fmt: skip
    """Write a tile [BK, BV] of a state into x [places, K, V]."""
    offset, mask = state_spot(key[:, None], value[None, :], K, V)
    tl.store(x + place * K * V + offset, tile, mask=mask)


@helper
def floored(log: tl.tensor) -> Any:
    """Log decays in float32, no lower than where their exponential is exactly zero."""
    return tl.maximum(log.to(tl.float32), -120.0)


@helper
def log_of(
    log: tl.tensor, token: tl.tensor, good: tl.tensor, head: tl.tensor, H: tl.constexpr
) -> Any:
    """Log decays [C] of one head from [tokens, H], zero outside."""
    return floored(tl.load(log + token * H + head, mask=good, other=0.0))


@helper
def logs_of(
    log: tl.tensor, token: tl.tensor, good: tl.tensor, head: tl.tensor, key: tl.tensor,
    H: tl.constexpr, K: tl.constexpr, GATE: tl.constexpr,
) -> Any:  # fmt: skip
    """Log decays of a chunk's tokens: [C] per head (GATE 1), [C, BK] per channel."""
    if GATE == 1:
        out = log_of(log, token, good, head, H)
    else:
        out = floored(rows_of(log, token, good, head, key, H, K))
    return out


@helper
def logs_across_of(
    log: tl.tensor, token: tl.tensor, good: tl.tensor, head: tl.tensor, key: tl.tensor,
    H: tl.constexpr, K: tl.constexpr, GATE: tl.constexpr,
) -> Any:  # fmt: skip
    """The log decays of `logs_of`, loaded transposed: [C] or [BK, C]."""
    if GATE == 1:
        out = log_of(log, token, good, head, H)
    else:
        out = floored(across_of(log, token, good, head, key, H, K))
    return out


@helper
def decays(chosen: tl.tensor, logs: tl.tensor, GATE: tl.constexpr) -> Any:
    """Decay of each row over the tokens `chosen` [C, C] for it: [C, 1] or, per channel, [C, BK]."""
    if GATE == 1:
        out = tl.sum(tl.where(chosen, logs[None, :], 0.0), axis=1)[:, None]
    else:
        out = sums(chosen, logs)
    return tl.exp(out)


@helper
def decays_across(logs: tl.tensor, chosen: tl.tensor, GATE: tl.constexpr) -> Any:
    """Decay of each column over the tokens `chosen` [C, C] above it: [1, C] or [BK, C]."""
    if GATE == 1:
        out = tl.sum(tl.where(chosen, logs[:, None], 0.0), axis=0)[None, :]
    else:
        out = sums_across(logs, chosen)
    return tl.exp(out)


@helper
def total_decay(logs: tl.tensor, GATE: tl.constexpr) -> Any:
    """Decay over a whole chunk from `logs_across_of`, as a state takes it: a number or [BK, 1]."""
    if GATE == 1:
        out = tl.exp(tl.sum(logs, axis=0))
    else:
        out = tl.exp(tl.sum(logs, axis=1))[:, None]
    return out


@helper
def pair_decay(
    log: tl.tensor, token: tl.tensor, good: tl.tensor, head: tl.tensor,
    H: tl.constexpr, C: tl.constexpr, SHIFTED: tl.constexpr, ACROSS: tl.constexpr,
) -> Any:  # fmt: skip
    """Decay of every earlier token j seen from i, [C, C] at [i, j] ([j, i] if ACROSS), j <= i.

    SHIFTED rows leave out their own decay and see j < i only.
    """
    here = tl.arange(0, C)
    own = log_of(log, token - SHIFTED, good & (here >= SHIFTED), head, H)
    if ACROSS:
        col, row = square(C)
        between = tl.cumsum(tl.where(row > col + SHIFTED, own[None, :], 0.0), axis=1)
    else:
        row, col = square(C)
        between = tl.cumsum(tl.where(row > col + SHIFTED, own[:, None], 0.0), axis=0)
    return tl.exp(tl.where(row >= col + SHIFTED, between, float("-inf")))


@helper
def weighed(
    pairs: tl.tensor, log: tl.tensor, token: tl.tensor, good: tl.tensor, head: tl.tensor,
    H: tl.constexpr, C: tl.constexpr, GATE: tl.constexpr, SHIFTED: tl.constexpr,
    ACROSS: tl.constexpr,
) -> Any:  # fmt: skip
    """Products of rows and columns [C, C] as `pair_decay` weighs them; per channel they are already."""
    out = pairs
    if GATE == 1:
        out = pairs * pair_decay(log, token, good, head, H, C, SHIFTED, ACROSS)
    if GATE == 0:
        row, col = square(C)
        if ACROSS:
            out = tl.where(col >= row + SHIFTED, pairs, 0.0)
        else:
            out = tl.where(row >= col + SHIFTED, pairs, 0.0)
    return out


@helper
def channel_pairs(
    rows: tl.tensor, log: tl.tensor, cols: tl.tensor, across: tl.tensor,
    C: tl.constexpr, SHIFTED: tl.constexpr, HALF: tl.constexpr,
) -> Any:  # fmt: skip
    """Products of rows [C, K] and cols [K, C], decayed per channel between, for j < i: [C, C].

    Blocks double in size: rows of the second half and columns of the first refer to the border
    between them, so both exponents are <= 0. `log` [C, K] and `across` [K, C] hold the same decays.
    """
    i, j = square(C)
    out = tl.zeros([C, C], dtype=tl.float32)
    half = 1
    while half < C:
        left = rows * tl.exp(sums(until(i, j, half, SHIFTED), log))
        right = cols * tl.exp(sums_across(across, beyond(j, i, half)))
        out += tl.where(facing(i, j, half), product(left, right, HALF), 0.0)
        half = half * 2
    return out


@helper
def channel_pairs_across(
    cols: tl.tensor, log: tl.tensor, rows: tl.tensor, across: tl.tensor,
    C: tl.constexpr, SHIFTED: tl.constexpr, HALF: tl.constexpr,
) -> Any:  # fmt: skip
    """The transpose of `channel_pairs`, from cols [C, K] and rows [K, C]."""
    j, i = square(C)
    out = tl.zeros([C, C], dtype=tl.float32)
    half = 1
    while half < C:
        left = cols * tl.exp(sums(beyond(j, i, half), log))
        right = rows * tl.exp(sums_across(across, until(i, j, half, SHIFTED)))
        out += tl.where(facing(i, j, half), product(left, right, HALF), 0.0)
        half = half * 2
    return out


@helper
def channel_pairs_backward(
    grad: tl.tensor, grad_across: tl.tensor, rows: tl.tensor, cols: tl.tensor, log: tl.tensor,
    C: tl.constexpr, SHIFTED: tl.constexpr, HALF: tl.constexpr,
) -> Any:  # fmt: skip
    """Gradients of `channel_pairs` to rows, cols and log [C, K], from its gradient and the transpose.

    A decay's gradient sums the pairs it lies between and no others, so that a closed gate's is not a
    difference of large sums: of every block, rows no earlier than it or columns before it.
    """
    i, j = square(C)
    d_rows = tl.zeros_like(rows)
    d_cols = tl.zeros_like(rows)
    d_log = tl.zeros_like(rows)
    half = 1
    while half < C:
        left = tl.exp(sums(until(i, j, half, SHIFTED), log))
        right = tl.exp(sums(beyond(i, j, half), log))
        weight = tl.where(facing(i, j, half), grad, 0.0)
        to_rows = left * product(weight, cols * right, HALF)
        weight = tl.where(facing(j, i, half), grad_across, 0.0)
        to_cols = right * product(weight, rows * left, HALF)
        later = ((i // half) % 2 == 1) & (j >= i + SHIFTED)
        earlier = ((i // half) % 2 == 0) & (j < i)
        near = ((i // half) == (j // half)) & (later | earlier)
        d_log += sums(near, rows * to_rows + cols * to_cols)
        d_rows += to_rows
        d_cols += to_cols
        half = half * 2
    return d_rows, d_cols, d_log


@helper
def chunk_and_head() -> Any:
    """The chunk and head of a program."""
    return tl.program_id(0).to(tl.int64), tl.program_id(1)


@helper
def row_and_head(H: tl.constexpr) -> Any:
    """The row and head of a program that sweeps a row's chunks."""
    program = tl.program_id(0).to(tl.int64)
    return program // H, program % H


@helper
def chunk_tokens(
    chunk: tl.tensor, owner: tl.tensor, bounds: tl.tensor, slots: tl.tensor, length: tl.tensor,
    C: tl.constexpr, PACKED: tl.constexpr,
) -> Any:  # fmt: skip
    """The tokens [C] of a chunk, and which of them there are: none where there is no such chunk."""
    if PACKED:
        row = tl.load(owner + chunk)
        start = tl.load(bounds + row) + (chunk - tl.load(slots + row)) * C
        stop = tl.load(bounds + row + 1)
    else:
        per = (length + C - 1) // C
        row = chunk // per
        start = row * length + (chunk - row * per) * C
        stop = (row + 1) * length
    token = start + tl.arange(0, C)
    return token, token < stop


@helper
def row_place(
    row: tl.tensor, bounds: tl.tensor, slots: tl.tensor, length: tl.tensor,
    C: tl.constexpr, PACKED: tl.constexpr,
) -> Any:  # fmt: skip
    """A sequence's first token, end, first chunk and number of chunks."""
    if PACKED:
        start, stop = tl.load(bounds + row), tl.load(bounds + row + 1)
        slot, count = tl.load(slots + row), (stop - start + C - 1) // C
    else:
        start, stop = row * length, (row + 1) * length
        count = (length + C - 1) // C
        slot = row * count
    return start, stop, slot, count


class Places(NamedTuple):
    """Where chunks are: tables (int64; placeholders if unpacked), rows, chunks at most, length."""

    owner: Tensor
    bounds: Tensor
    slots: Tensor
    rows: int
    chunks: int
    length: int
    packed: bool


def places(cu_seqlens: Tensor | None, batch: int, length: int, chunk: int, like: Tensor) -> Places:
    """The chunk tables of a call, made on the device; the count of chunks is an upper bound."""
    if cu_seqlens is None:
        none = torch.zeros(1, dtype=torch.int64, device=like.device)
        return Places(none, none, none, batch, batch * -(-length // chunk), length, False)
    bounds = cu_seqlens.to(device=like.device, dtype=torch.int64).contiguous()
    ends = ((bounds[1:] - bounds[:-1] + chunk - 1) // chunk).cumsum(0)
    slots = torch.cat([ends.new_zeros(1), ends])
    rows = bounds.shape[0] - 1
    chunks = -(-length // chunk) + rows
    owner = torch.searchsorted(ends, torch.arange(chunks, device=like.device), right=True)
    return Places(owner.clamp_(max=rows - 1), bounds, slots, rows, chunks, length, True)


def chunk_size(asked: int, dtype: torch.dtype, per_channel: bool) -> int:
    """The chunk length used where `asked` (a power of two) was proposed: 16 to 64.

    At most 32 where a tile's work would not fit in registers: float32, and decays per channel.
    """
    return max(LEAST, min(asked, 32 if per_channel or half(dtype) == 0 else 64))


def block(width: int, most: int) -> int:
    """Tile side over `width` channels: a power of two from 16 to `most`."""
    return max(LEAST, min(most, 1 << (width - 1).bit_length()))


def half(dtype: torch.dtype) -> int:
    """How products of inputs of this dtype are computed: see `product`."""
    return 0 if INTERPRETED else {torch.bfloat16: 2, torch.float16: 1}.get(dtype, 0)


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Launch on this device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
