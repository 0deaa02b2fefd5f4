"""RMS norm with a gate or an addition in Triton: one pass over each row forward, one backward."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from archdsl.kernels.triton_common import helper, kernel, on

MODES = {"norm": 0, "add": 1, "gate": 2, "gate_first": 3}
FUNCTIONS = {"none": 0, "silu": 1, "sigmoid": 2}

TILE = 2048
"""Elements of a row tile."""

REPEATS = 8
"""Row tiles a backward program takes, so that partial sums for the gain are few."""


@helper
def opened(gate: tl.tensor, FUNCTION: tl.constexpr) -> Any:
    """The activation of a gate."""
    out = gate
    if FUNCTION == 1:
        out = gate * tl.sigmoid(gate)
    if FUNCTION == 2:
        out = tl.sigmoid(gate)
    return out


@helper
def opened_backward(grad: tl.tensor, gate: tl.tensor, FUNCTION: tl.constexpr) -> Any:
    """The gradient to a gate from the one to its activation."""
    out = grad
    share = tl.sigmoid(gate)
    if FUNCTION == 1:
        out = grad * share * (1.0 + gate * (1.0 - share))
    if FUNCTION == 2:
        out = grad * share * (1.0 - share)
    return out


@kernel
def forward_kernel(
    x: tl.tensor, other: tl.tensor, weight: tl.tensor, y: tl.tensor, total: tl.tensor,
    scales: tl.tensor, tokens: tl.tensor, eps: tl.tensor, S: tl.constexpr, BS: tl.constexpr,
    ROWS: tl.constexpr, MODE: tl.constexpr, FUNCTION: tl.constexpr,
) -> None:  # fmt: skip
    """Norm of some rows; MODE adds `other` before, or gates behind (2) or in front (3)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BS)
    inside = (row[:, None] < tokens) & (column[None, :] < S)
    place = row[:, None] * S + column[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    gate = value
    if MODE == 1:
        value += tl.load(other + place, mask=inside, other=0.0).to(tl.float32)
        value = value.to(total.dtype.element_ty)
        tl.store(total + place, value, mask=inside)
        value = value.to(tl.float32)
    if MODE >= 2:
        gate = opened(tl.load(other + place, mask=inside, other=0.0).to(tl.float32), FUNCTION)
    if MODE == 3:
        value *= gate
    scale = 1.0 / tl.sqrt(tl.sum(value * value, axis=1) / S + eps)
    gain = tl.load(weight + column, mask=column < S, other=0.0).to(tl.float32)
    out = value * scale[:, None] * gain[None, :]
    if MODE == 2:
        out *= gate
    tl.store(y + place, out.to(y.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale, mask=row < tokens)


@kernel
def backward_kernel(
    grad: tl.tensor, past: tl.tensor, x: tl.tensor, gates: tl.tensor, scales: tl.tensor,
    weight: tl.tensor, d_x: tl.tensor, d_gate: tl.tensor, parts: tl.tensor, tokens: tl.tensor,
    S: tl.constexpr, BS: tl.constexpr, ROWS: tl.constexpr, COUNT: tl.constexpr,
    MODE: tl.constexpr, FUNCTION: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients of some rows, and their part of the gain's; `past` is what the sum's readers give."""
    column = tl.arange(0, BS)
    gain = tl.load(weight + column, mask=column < S, other=0.0).to(tl.float32)[None, :]
    part = tl.zeros([BS], dtype=tl.float32)
    for turn in range(COUNT):
        row = (tl.program_id(0).to(tl.int64) * COUNT + turn) * ROWS + tl.arange(0, ROWS)
        inside = (row[:, None] < tokens) & (column[None, :] < S)
        place = row[:, None] * S + column[None, :]
        u = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(scales + row, mask=row < tokens, other=0.0)[:, None]
        raw, gate = value, value
        if MODE >= 2:
            raw = tl.load(gates + place, mask=inside, other=0.0).to(tl.float32)
            gate = opened(raw, FUNCTION)
        h = value * scale
        if MODE == 3:
            h *= gate
        if MODE == 2:
            to_gate = opened_backward(u * h * gain, raw, FUNCTION)
            tl.store(d_gate + place, to_gate.to(d_gate.dtype.element_ty), mask=inside)
            u *= gate
        part += tl.sum(u * h, axis=0)
        u *= gain
        found = scale * (u - h * (tl.sum(u * h, axis=1) / S)[:, None])
        if MODE == 3:
            to_gate = opened_backward(found * value, raw, FUNCTION)
            tl.store(d_gate + place, to_gate.to(d_gate.dtype.element_ty), mask=inside)
            found *= gate
        if MODE == 1:
            found += tl.load(past + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(d_x + place, found.to(d_x.dtype.element_ty), mask=inside)
    tl.store(parts + tl.program_id(0).to(tl.int64) * S + column, part, mask=column < S)


def tiles(size: int) -> dict[str, int]:
    """Tile sides and warps for rows of `size`."""
    block = triton.next_power_of_2(size)
    rows = max(1, TILE // block)
    return {"BS": block, "ROWS": rows, "num_warps": min(16, max(4, block * rows // 512))}


def mode_of(gated: bool, added: bool, gate_first: bool) -> int:
    """What stands around the norm."""
    if added:
        return MODES["add"]
    return MODES["norm" if not gated else "gate_first" if gate_first else "gate"]


def forward(
    x: Tensor, other: Tensor | None, total: Tensor | None, weight: Tensor, eps: float,
    function: str, gate_first: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The output and the rows' scales; `other` is a gate, or an addend where `total` is to be filled."""
    x, size = x.contiguous(), x.shape[1]
    other = x if other is None else other.contiguous()
    y, scales = torch.empty_like(x), torch.empty(len(x), 1, dtype=torch.float32, device=x.device)
    shape = tiles(size)
    mode = mode_of(other is not x, total is not None, gate_first)
    with on(x.device):
        forward_kernel[(triton.cdiv(len(x), shape["ROWS"]),)](
            x, other, weight.contiguous(), y, y if total is None else total, scales, len(x), eps,
            S=size, MODE=mode, FUNCTION=FUNCTIONS[function], **shape,
        )  # fmt: skip
    return y, scales


def backward(
    grad: Tensor, past: Tensor | None, x: Tensor, gate: Tensor | None, scales: Tensor,
    weight: Tensor, function: str, gate_first: bool,
) -> tuple[Tensor, Tensor | None, Tensor]:  # fmt: skip
    """Gradients to the rows, the gate and the gain; `past` is added to the first."""
    x, size = x.contiguous(), x.shape[1]
    shape = tiles(size)
    programs = triton.cdiv(len(x), shape["ROWS"] * REPEATS)
    d_x, d_gate = torch.empty_like(x), None if gate is None else torch.empty_like(x)
    parts = torch.empty(programs, size, dtype=torch.float32, device=x.device)
    mode = mode_of(gate is not None, past is not None, gate_first)
    with on(x.device):
        backward_kernel[(programs,)](
            grad.contiguous(), x if past is None else past.contiguous(), x,
            x if gate is None else gate.contiguous(), scales, weight.contiguous(), d_x,
            d_x if d_gate is None else d_gate, parts, len(x), S=size, COUNT=REPEATS, MODE=mode,
            FUNCTION=FUNCTIONS[function], **shape,
        )  # fmt: skip
    return d_x, d_gate, parts.sum(0).to(weight.dtype)
