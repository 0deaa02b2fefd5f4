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

from archdsl.kernels.triton_common import INTERPRETED, block, helper, kernel, on

if INTERPRETED:
    from archdsl.kernels.triton_common import steps as range


@helper
def combine(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor) -> Any:
    """Apply h -> a h + b, then h -> c h + d."""
    return c * a, c * b + d


@helper
def combine_complex(
    a: tl.tensor,
    ai: tl.tensor,
    b: tl.tensor,
    bi: tl.tensor,
    c: tl.tensor,
    ci: tl.tensor,
    d: tl.tensor,
    di: tl.tensor,
) -> Any:
    """`combine` of complex numbers as pairs."""
    return c * a - ci * ai, c * ai + ci * a, c * b - ci * bi + d, c * bi + ci * b + di


@kernel
def forward_kernel(
    a: tl.tensor,
    b: tl.tensor,
    start: tl.tensor,
    out: tl.tensor,
    last: tl.tensor,
    length: tl.tensor,
    D: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    PARTS: tl.constexpr,
) -> None:
    """Fill h [B, T, D] and the last h [B, D] from a, b [B, T, D] and start [B, D]."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BD + tl.arange(0, BD)
    inside = channel < D
    end = tl.arange(0, BT)[:, None] == BT - 1
    at = (row * D + channel) * PARTS
    carry = tl.load(start + at, mask=inside, other=0.0)
    if PARTS == 2:
        carry_i = tl.load(start + at + 1, mask=inside, other=0.0)
    for begin in range(0, length, BT):
        token = begin + tl.arange(0, BT)
        good = (token < length)[:, None] & inside[None, :]
        x = ((row * length + token)[:, None] * D + channel[None, :]) * PARTS
        factor = tl.load(a + x, mask=good, other=1.0)
        write = tl.load(b + x, mask=good, other=0.0)
        if PARTS == 1:
            factor, write = tl.associative_scan((factor, write), 0, combine)
            h = write + factor * carry[None, :]
        else:
            factor_i = tl.load(a + x + 1, mask=good, other=0.0)
            write_i = tl.load(b + x + 1, mask=good, other=0.0)
            factor, factor_i, write, write_i = tl.associative_scan(
                (factor, factor_i, write, write_i), 0, combine_complex
            )
            h = write + factor * carry[None, :] - factor_i * carry_i[None, :]
            h_i = write_i + factor * carry_i[None, :] + factor_i * carry[None, :]
            tl.store(out + x + 1, h_i, mask=good)
            carry_i = tl.sum(tl.where(end, h_i, 0.0), axis=0)
        tl.store(out + x, h, mask=good)
        carry = tl.sum(tl.where(end, h, 0.0), axis=0)
    tl.store(last + at, carry, mask=inside)
    if PARTS == 2:
        tl.store(last + at + 1, carry_i, mask=inside)


@kernel
def backward_kernel(
    a: tl.tensor,
    out: tl.tensor,
    start: tl.tensor,
    d_out: tl.tensor,
    d_last: tl.tensor,
    d_a: tl.tensor,
    d_b: tl.tensor,
    d_start: tl.tensor,
    length: tl.tensor,
    D: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    PARTS: tl.constexpr,
) -> None:
    """Fill the gradients to a, b [B, T, D] and start [B, D]; tokens in reverse."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BD + tl.arange(0, BD)
    inside = channel < D
    end = tl.arange(0, BT)[:, None] == BT - 1
    at = (row * D + channel) * PARTS
    carry = tl.load(d_last + at, mask=inside, other=0.0)
    origin = tl.load(start + at, mask=inside, other=0.0)
    if PARTS == 2:
        carry_i = tl.load(d_last + at + 1, mask=inside, other=0.0)
        origin_i = tl.load(start + at + 1, mask=inside, other=0.0)
    for begin in range(0, length, BT):
        token = length - 1 - begin - tl.arange(0, BT)
        good = (token >= 0)[:, None] & inside[None, :]
        later = good & (token + 1 < length)[:, None]
        first = (token == 0)[:, None]
        x = ((row * length + token)[:, None] * D + channel[None, :]) * PARTS
        step = D * PARTS
        factor = tl.load(a + x + step, mask=later, other=1.0)
        write = tl.load(d_out + x, mask=good, other=0.0)
        before = tl.load(out + x - step, mask=good & (token > 0)[:, None], other=0.0)
        before = tl.where(first, origin[None, :], before)
        if PARTS == 1:
            factor, write = tl.associative_scan((factor, write), 0, combine)
            flow = write + factor * carry[None, :]
            tl.store(d_a + x, flow * before, mask=good)
        else:
            factor_i = -tl.load(a + x + step + 1, mask=later, other=0.0)
            write_i = tl.load(d_out + x + 1, mask=good, other=0.0)
            before_i = tl.load(out + x - step + 1, mask=good & (token > 0)[:, None], other=0.0)
            before_i = tl.where(first, origin_i[None, :], before_i)
            factor, factor_i, write, write_i = tl.associative_scan(
                (factor, factor_i, write, write_i), 0, combine_complex
            )
            flow = write + factor * carry[None, :] - factor_i * carry_i[None, :]
            flow_i = write_i + factor * carry_i[None, :] + factor_i * carry[None, :]
            tl.store(d_b + x + 1, flow_i, mask=good)
            tl.store(d_a + x, flow * before + flow_i * before_i, mask=good)
            tl.store(d_a + x + 1, flow_i * before - flow * before_i, mask=good)
            carry_i = tl.sum(tl.where(end, flow_i, 0.0), axis=0)
        tl.store(d_b + x, flow, mask=good)
        carry = tl.sum(tl.where(end, flow, 0.0), axis=0)
    x = (row * length * D + channel) * PARTS
    factor = tl.load(a + x, mask=inside, other=0.0)
    if PARTS == 1:
        tl.store(d_start + at, factor * carry, mask=inside)
    else:
        factor_i = -tl.load(a + x + 1, mask=inside, other=0.0)
        tl.store(d_start + at, factor * carry - factor_i * carry_i, mask=inside)
        tl.store(d_start + at + 1, factor * carry_i + factor_i * carry, mask=inside)


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
