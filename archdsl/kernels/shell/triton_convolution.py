"""Short convolution, activation and unit length in Triton: one kernel forward, two backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.shell.triton_norm import FUNCTIONS, opened, opened_backward
from archdsl.kernels.triton_common import kernel, on

EPSILON = 1e-6
ROWS = 32
"""Tokens of a tile."""

WIDTH = 128
"""Channels of a tile where no slice of them is normalised."""


@kernel
def forward_kernel(
    x: tl.tensor, weight: tl.tensor, bias: tl.tensor, c: tl.tensor, y: tl.tensor,
    length: tl.tensor, eps: tl.tensor, D: tl.constexpr, SLICE: tl.constexpr, BS: tl.constexpr,
    K: tl.constexpr, ROWS: tl.constexpr, BIASED: tl.constexpr, UNIT: tl.constexpr,
    FUNCTION: tl.constexpr,
) -> None:  # fmt: skip
    """Some tokens of one sequence and one slice of the channels; keeps what the activation takes."""
    token = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, BS)
    column = tl.program_id(2) * SLICE + lane
    wide = (lane < SLICE) & (column < D)
    inside = (token[:, None] < length) & wide[None, :]
    row = tl.program_id(0).to(tl.int64)
    source = x + (row * (length + K - 1) + token[:, None]) * D + column[None, :]
    total = tl.zeros([ROWS, BS], dtype=tl.float32)
    for tap in tl.static_range(K):
        value = tl.load(source + tap * D, mask=inside, other=0.0).to(tl.float32)
        total += value * tl.load(weight + column * K + tap, mask=wide, other=0.0).to(tl.float32)
    if BIASED:
        total += tl.load(bias + column, mask=wide, other=0.0).to(tl.float32)[None, :]
    place = (row * length + token[:, None]) * D + column[None, :]
    kept = total.to(c.dtype.element_ty)
    tl.store(c + place, kept, mask=inside)
    out = opened(kept.to(tl.float32), FUNCTION)
    if UNIT:
        out = tl.where(inside, out, 0.0)
        out *= (1.0 / tl.sqrt(tl.sum(out * out, axis=1) + eps))[:, None]
    tl.store(y + place, out.to(y.dtype.element_ty), mask=inside)


@kernel
def activation_kernel(
    grad: tl.tensor, c: tl.tensor, d_c: tl.tensor, tokens: tl.tensor, eps: tl.tensor,
    D: tl.constexpr, SLICE: tl.constexpr, BS: tl.constexpr, ROWS: tl.constexpr,
    UNIT: tl.constexpr, FUNCTION: tl.constexpr,
) -> None:  # fmt: skip
    """The gradient to what the activation takes."""
    token = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, BS)
    column = tl.program_id(1) * SLICE + lane
    wide = (lane < SLICE) & (column < D)
    inside = (token[:, None] < tokens) & wide[None, :]
    place = token[:, None] * D + column[None, :]
    u = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(c + place, mask=inside, other=0.0).to(tl.float32)
    if UNIT:
        out = tl.where(inside, opened(value, FUNCTION), 0.0)
        scale = (1.0 / tl.sqrt(tl.sum(out * out, axis=1) + eps))[:, None]
        out *= scale
        u = scale * (u - out * tl.sum(u * out, axis=1)[:, None])
    found = opened_backward(u, value, FUNCTION)
    tl.store(d_c + place, found.to(d_c.dtype.element_ty), mask=inside)


@kernel
def filter_kernel(
    d_c: tl.tensor, x: tl.tensor, weight: tl.tensor, d_x: tl.tensor, parts: tl.tensor,
    length: tl.tensor, D: tl.constexpr, BS: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients to some of a sequence's inputs, and their part of those to the taps."""
    token = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * BS + tl.arange(0, BS)
    wide = column < D
    row = tl.program_id(0).to(tl.int64)
    inside = (token[:, None] < length + K - 1) & wide[None, :]
    place = (row * (length + K - 1) + token[:, None]) * D + column[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros([ROWS, BS], dtype=tl.float32)
    part = parts + (row * tl.num_programs(1) + tl.program_id(1)) * K * D + column
    for tap in tl.static_range(K):
        out = token - tap
        good = ((out >= 0) & (out < length))[:, None] & wide[None, :]
        at = (row * length + out[:, None]) * D + column[None, :]
        u = tl.load(d_c + at, mask=good, other=0.0).to(tl.float32)
        total += u * tl.load(weight + column * K + tap, mask=wide, other=0.0).to(tl.float32)
        tl.store(part + tap * D, tl.sum(u * value, axis=0), mask=wide)
    tl.store(d_x + place, total.to(d_x.dtype.element_ty), mask=inside)


def slices(width: int, heads: int) -> dict[str, int]:
    """Channels of a tile: a head's, where its length is one, else a fixed number."""
    size = width // heads if heads else min(width, WIDTH)
    return {"SLICE": size, "BS": triton.next_power_of_2(size), "ROWS": ROWS, "num_warps": 4}


def filter_tile(width: int) -> dict[str, int]:
    """Channels and warps of `filter_kernel`, which holds two tiles at once."""
    return {"BS": min(WIDTH, triton.next_power_of_2(width)), "ROWS": ROWS, "num_warps": 8}


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, function: str, heads: int
) -> tuple[Tensor, Tensor]:
    """What the activation takes, and the output: x [B, T + K - 1, D] -> [B, T, D] twice."""
    x, weight = x.contiguous(), weight.contiguous()
    batch, long, width = x.shape
    length, shape = long - weight.shape[1] + 1, slices(width, heads)
    c, y = (x.new_empty(batch, length, width) for _ in range(2))
    grid = (batch, triton.cdiv(length, ROWS), triton.cdiv(width, shape["SLICE"]))
    with on(x.device):
        forward_kernel[grid](
            x, weight, weight if bias is None else bias, c, y, length, EPSILON, D=width,
            K=weight.shape[1], BIASED=bias is not None, UNIT=heads > 0,
            FUNCTION=FUNCTIONS[function], **shape,
        )  # fmt: skip
    return c, y


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, c: Tensor, function: str, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to x, the taps and the bias."""
    x, weight = x.contiguous(), weight.contiguous()
    batch, length, width = c.shape
    taps, shape, d_c = weight.shape[1], slices(width, heads), torch.empty_like(c)
    grid = (triton.cdiv(batch * length, ROWS), triton.cdiv(width, shape["SLICE"]))
    d_x, across = torch.empty_like(x), triton.cdiv(x.shape[1], ROWS)
    parts = torch.empty(batch * across, taps, width, dtype=torch.float32, device=x.device)
    tile = filter_tile(width)
    with on(x.device):
        activation_kernel[grid](
            grad.contiguous(), c, d_c, batch * length, EPSILON, D=width, UNIT=heads > 0,
            FUNCTION=FUNCTIONS[function], **shape,
        )  # fmt: skip
        filter_kernel[(batch, across, triton.cdiv(width, tile["BS"]))](
            d_c, x, weight, d_x, parts, length, D=width, K=taps, **tile
        )
    return d_x, parts.sum(0).t().to(weight.dtype), d_c.sum((0, 1)).to(weight.dtype)
