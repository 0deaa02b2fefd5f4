"""Tiled form of the diagonal recurrence in plain PyTorch, with a hand-written backward.

Time is cut into tiles that fit in cache. Within a tile, neighbouring tokens are combined into one,
(a, b) then (a', b') being (a' a, a' b + b'), the half as long recurrence is solved the same way, and
the tokens left out follow from their neighbours (Blelloch, CMU-CS-90-190): a few large operations
in place of one small one a token. The backward is the same recurrence in reverse:
g_t = dh_t + conj(a_{t+1}) g_{t+1}, db = g, da_t = g_t conj(h_{t-1}).
"""

import importlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from archdsl.kernels.memory import fresh, fresh_like
from archdsl.kernels.scan.flops import BASE, default_tile


def recur(
    a: Tensor, b: Tensor, out: Tensor, before: Tensor, reverse: bool = False
) -> Iterator[slice]:
    """Fill `out` [B, T, D] with h_t = a_t h_{t-1} + b_t (from the last token if `reverse`).

    `before` [B, T, D] is h_{t-1} at every token: the memory of `out` one token earlier, so that only
    the first token visited finds there what was written before. Yields the tokens that are done.
    """
    length = b.shape[1]
    size = default_tile(length, b.shape[2], b.shape[0])
    begins = range(0, length, size)
    for begin in reversed(begins) if reverse else begins:
        tile = slice(begin, begin + size)
        _solve(a[:, tile], b[:, tile], out[:, tile], before[:, tile], reverse)
        yield tile


def _solve(a: Tensor, b: Tensor, out: Tensor, before: Tensor, reverse: bool) -> None:
    """Fill `out` for one tile: all tokens in pairs, then the first of each pair, and an odd one."""
    length = b.shape[1]
    if length <= BASE:
        _sweep(a, b, out, before, reverse)
        return
    odd = length % 2
    first = (1 - odd) if reverse else 0
    late, early = slice(1 - first, length, 2), slice(first, length, 2)
    paired = slice(2 - first, length, 2) if reverse else slice(0, length - 1, 2)
    decay = a[:, late] * a[:, paired]
    write = torch.addcmul(b[:, late], a[:, late], b[:, paired])
    _solve(decay, write, out[:, late], before[:, paired], reverse)
    torch.addcmul(b[:, early], a[:, early], before[:, early], out=out[:, early])


def _sweep(a: Tensor, b: Tensor, out: Tensor, before: Tensor, reverse: bool) -> None:
    """One token after the other."""
    steps = list(zip(a.unbind(1), b.unbind(1), before.unbind(1), out.unbind(1), strict=True))
    for decay, write, state, target in reversed(steps) if reverse else steps:
        torch.addcmul(write, decay, state, out=target)


@torch.library.custom_op("archdsl::scan", mutates_args=())
def scan_op(a: Tensor, b: Tensor, start: Tensor, fused: bool = False) -> tuple[Tensor, Tensor]:
    """Fill h [B, T, D] and the last h [B, D] from a, b [B, T, D] and start [B, D] of one dtype.

    `fused` runs it in Triton.
    """
    if fused:
        gpu = importlib.import_module("archdsl.kernels.scan.triton")
        found = gpu.forward(a, b, start)
        return found[0], found[1]
    out = fresh(b.new_empty(b.shape))
    if not out.shape[1]:
        return out, start.clone()
    torch.addcmul(b[:, 0], a[:, 0], start, out=out[:, 0])
    for _ in recur(a[:, 1:], b[:, 1:], out[:, 1:], out[:, :-1]):
        pass
    return out, out[:, -1].clone()


@scan_op.register_fake
def _(a: Tensor, b: Tensor, start: Tensor, fused: bool = False) -> tuple[Tensor, Tensor]:
    return b.new_empty(b.shape), start.new_empty(start.shape)


@torch.library.custom_op("archdsl::scan_backward", mutates_args=())
def scan_backward_op(
    a: Tensor, out: Tensor, start: Tensor, d_out: Tensor, d_final: Tensor, fused: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `scan_op` to a, b and start."""
    if fused:
        gpu = importlib.import_module("archdsl.kernels.scan.triton")
        found = gpu.backward(a, out, start, d_out, d_final)
        return found[0], found[1], found[2]
    factor = a.conj().resolve_conj()
    flow = fresh_like(out)
    if not out.shape[1]:
        return flow, torch.empty_like(flow), d_final.clone()
    torch.add(d_out[:, -1], d_final, out=flow[:, -1])
    d_a, kept = fresh_like(flow), out.conj()
    gates, arriving = factor[:, 1:], d_out[:, :-1]
    for done in recur(gates, arriving, flow[:, :-1], flow[:, 1:], reverse=True):
        torch.mul(flow[:, 1:][:, done], kept[:, :-1][:, done], out=d_a[:, 1:][:, done])
    torch.mul(flow[:, 0], start.conj(), out=d_a[:, 0])
    return d_a, flow, flow[:, 0] * factor[:, 0]


@scan_backward_op.register_fake
def _(
    a: Tensor, out: Tensor, start: Tensor, d_out: Tensor, d_final: Tensor, fused: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    return out.new_empty(out.shape), out.new_empty(out.shape), start.new_empty(start.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.fused = inputs[3]
    ctx.save_for_backward(inputs[0], inputs[2], output[0])


def _differentiate(
    ctx: Any, d_out: Tensor | None, d_final: Tensor | None
) -> tuple[Tensor | None, ...]:
    a, start, out = ctx.saved_tensors
    d_out = torch.zeros_like(out) if d_out is None else d_out
    d_final = torch.zeros_like(start) if d_final is None else d_final
    grads: tuple[Tensor, ...] = scan_backward_op(a, out, start, d_out, d_final, ctx.fused)
    return *grads, None


scan_op.register_autograd(_differentiate, setup_context=_save)
