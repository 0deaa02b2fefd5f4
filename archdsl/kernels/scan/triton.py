"""The diagonal recurrence in Triton: one sweep over time, tiles of tokens by associative scans.

A program owns a tile of channels of one row and carries its state from tile to tile in registers, so
every input is read once and every output written once: the least a memory-bound operation can move.
Complex numbers are pairs (PARTS 2). The backward is the same sweep from the last token:
g_t = dh_t + conj(a_{t+1}) g_{t+1}, db = g, da_t = g_t conj(h_{t-1}).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.triton_common import block, helper, kernel, on
from archdsl.kernels.triton_common import loop as range


@helper
def combine(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor) -> Any:
    """Apply h -> a h + b, then h -> c h + d."""
    return c * a, c * b + d


@helper
def combine_complex(
    a: tl.tensor, ai: tl.tensor, b: tl.tensor, bi: tl.tensor,
    c: tl.tensor, ci: tl.tensor, d: tl.tensor, di: tl.tensor,
) -> Any:  # fmt: skip
    """`combine` of complex numbers as pairs."""
    return c * a - ci * ai, c * ai + ci * a, c * b - ci * bi + d, c * bi + ci * b + di


@helper
def load_parts(
    x: tl.tensor, at: tl.tensor, mask: tl.tensor, other: tl.constexpr, PARTS: tl.constexpr
) -> Any:
    """Real and imaginary parts, `other` outside; of real numbers the same twice."""
    real = tl.load(x + at, mask=mask, other=other)
    imaginary = real
    if PARTS == 2:
        imaginary = tl.load(x + at + 1, mask=mask, other=0.0)
    return real, imaginary


@helper
def keep_parts(
    x: tl.tensor, at: tl.tensor, real: tl.tensor, imaginary: tl.tensor, mask: tl.tensor,
    PARTS: tl.constexpr,
) -> None:  # fmt: skip
    """Write what `load_parts` reads."""
    tl.store(x + at, real, mask=mask)
    if PARTS == 2:
        tl.store(x + at + 1, imaginary, mask=mask)


@helper
def times_conjugate(
    x: tl.tensor, xi: tl.tensor, y: tl.tensor, yi: tl.tensor, PARTS: tl.constexpr
) -> Any:
    """Parts of x conj(y)."""
    if PARTS == 2:
        real, imaginary = x * y + xi * yi, xi * y - x * yi
    else:
        real, imaginary = x * y, x * y
    return real, imaginary


@helper
def advance(
    factor: tl.tensor, factor_i: tl.tensor, write: tl.tensor, write_i: tl.tensor,
    carry: tl.tensor, carry_i: tl.tensor, BT: tl.constexpr, PARTS: tl.constexpr,
) -> Any:  # fmt: skip
    """States [BT, BD] of a tile behind a carried state [BD], and the last of them, in parts."""
    end = tl.arange(0, BT)[:, None] == BT - 1
    if PARTS == 1:
        factor, write = tl.associative_scan((factor, write), 0, combine)
        h = write + factor * carry[None, :]
        last = tl.sum(tl.where(end, h, 0.0), axis=0)
        h_i, last_i = h, last
    else:
        factor, factor_i, write, write_i = tl.associative_scan(
            (factor, factor_i, write, write_i), 0, combine_complex
        )
        h = write + factor * carry[None, :] - factor_i * carry_i[None, :]
        h_i = write_i + factor * carry_i[None, :] + factor_i * carry[None, :]
        last = tl.sum(tl.where(end, h, 0.0), axis=0)
        last_i = tl.sum(tl.where(end, h_i, 0.0), axis=0)
    return h, h_i, last, last_i


@helper
def lane(D: tl.constexpr, BD: tl.constexpr) -> Any:
    """A program's row, its channels [BD], and which of them there are."""
    channel = tl.program_id(1) * BD + tl.arange(0, BD)
    return tl.program_id(0).to(tl.int64), channel, channel < D


@kernel
def forward_kernel(
    a: tl.tensor, b: tl.tensor, start: tl.tensor, out: tl.tensor, last: tl.tensor,
    length: tl.tensor, D: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr, PARTS: tl.constexpr,
) -> None:  # fmt: skip
    """Fill h [B, T, D] and the last h [B, D] from a, b [B, T, D] and start [B, D]."""
    row, channel, inside = lane(D, BD)
    at = (row * D + channel) * PARTS
    carry, carry_i = load_parts(start, at, inside, 0.0, PARTS)
    for begin in range(0, length, BT):
        token = begin + tl.arange(0, BT)
        good = (token < length)[:, None] & inside[None, :]
        x = ((row * length + token)[:, None] * D + channel[None, :]) * PARTS
        factor, factor_i = load_parts(a, x, good, 1.0, PARTS)
        write, write_i = load_parts(b, x, good, 0.0, PARTS)
        h, h_i, carry, carry_i = advance(
            factor, factor_i, write, write_i, carry, carry_i, BT, PARTS
        )
        keep_parts(out, x, h, h_i, good, PARTS)
    keep_parts(last, at, carry, carry_i, inside, PARTS)


@kernel
def backward_kernel(
    a: tl.tensor, out: tl.tensor, start: tl.tensor, d_out: tl.tensor, d_last: tl.tensor,
    d_a: tl.tensor, d_b: tl.tensor, d_start: tl.tensor, length: tl.tensor,
    D: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr, PARTS: tl.constexpr,
) -> None:  # fmt: skip
    """Fill the gradients to a, b [B, T, D] and start [B, D]; tokens in reverse."""
    row, channel, inside = lane(D, BD)
    at = (row * D + channel) * PARTS
    step = D * PARTS
    carry, carry_i = load_parts(d_last, at, inside, 0.0, PARTS)
    origin, origin_i = load_parts(start, at, inside, 0.0, PARTS)
    for begin in range(0, length, BT):
        token = length - 1 - begin - tl.arange(0, BT)
        good = (token >= 0)[:, None] & inside[None, :]
        later = good & (token + 1 < length)[:, None]
        first = (token == 0)[:, None]
        x = ((row * length + token)[:, None] * D + channel[None, :]) * PARTS
        factor, factor_i = load_parts(a, x + step, later, 1.0, PARTS)
        write, write_i = load_parts(d_out, x, good, 0.0, PARTS)
        before, before_i = load_parts(out, x - step, good & (token > 0)[:, None], 0.0, PARTS)
        before = tl.where(first, origin[None, :], before)
        before_i = tl.where(first, origin_i[None, :], before_i)
        flow, flow_i, carry, carry_i = advance(
            factor, -factor_i, write, write_i, carry, carry_i, BT, PARTS
        )
        keep_parts(d_b, x, flow, flow_i, good, PARTS)
        flow, flow_i = times_conjugate(flow, flow_i, before, before_i, PARTS)
        keep_parts(d_a, x, flow, flow_i, good, PARTS)
    x = (row * length * D + channel) * PARTS
    factor, factor_i = load_parts(a, x, inside, 0.0, PARTS)
    carry, carry_i = times_conjugate(carry, carry_i, factor, factor_i, PARTS)
    keep_parts(d_start, at, carry, carry_i, inside, PARTS)


def tiles(width: int, is_complex: bool) -> dict[str, int]:
    """Tile sides and warps by the number of channels alone."""
    return {"BT": 32 if is_complex else 64, "BD": block(width, 32), "num_warps": 4}


def _real(*tensors: Tensor) -> list[Tensor]:
    """Contiguous real tensors; complex ones as pairs."""
    plain = [x.resolve_conj().contiguous() for x in tensors]
    return [torch.view_as_real(x) if x.is_complex() else x for x in plain]


def _constants(x: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """Grid and constants for tensors like `x` [B, T, D]."""
    chosen = tiles(x.shape[2], x.is_complex())
    grid = (x.shape[0], triton.cdiv(x.shape[2], chosen["BD"]))
    return grid, {"D": x.shape[2], "PARTS": 1 + x.is_complex(), **chosen}


def forward(a: Tensor, b: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return h [B, T, D] and the last h [B, D], from the arguments of `chunked.scan_op`."""
    with on(b.device):
        grid, constants = _constants(b)
        out = torch.empty(b.shape, dtype=b.dtype, device=b.device)
        last = torch.empty(start.shape, dtype=b.dtype, device=b.device)
        inputs = _real(a, b, start)
        forward_kernel[grid](*inputs, *_real(out, last), b.shape[1], **constants)
    return out, last


def backward(
    a: Tensor, out: Tensor, start: Tensor, d_out: Tensor, d_final: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to a, b and start."""
    with on(out.device):
        grid, constants = _constants(out)
        d_a = torch.empty(out.shape, dtype=out.dtype, device=out.device)
        d_b = torch.empty(out.shape, dtype=out.dtype, device=out.device)
        d_start = torch.empty(start.shape, dtype=out.dtype, device=out.device)
        inputs = _real(a, out, start, d_out, d_final)
        backward_kernel[grid](*inputs, *_real(d_a, d_b, d_start), out.shape[1], **constants)
    return d_a, d_b, d_start
