"""Tiled form of the diagonal recurrence in plain PyTorch, with a hand-written backward.

Time is cut into tiles that fit in cache. Within a tile, neighbouring tokens are combined into one,
(a, b) then (a', b') being (a' a, a' b + b'), the half as long recurrence is solved the same way, and
the tokens left out follow from their neighbours (Blelloch, CMU-CS-90-190): a few large operations
in place of one small one a token. The backward is the same recurrence in reverse:
g_t = dh_t + conj(a_{t+1}) g_{t+1}, db = g, da_t = g_t conj(h_{t-1}).
"""

import importlib
from typing import Any

import torch
from torch import Tensor

from archdsl.kernels.memory import fresh, fresh_like
from archdsl.kernels.scan.flops import BASE, default_tile


def recur(a: Tensor, b: Tensor, out: Tensor, start: Tensor, reverse: bool = False) -> Tensor:
    """Fill `out` [B, T, D] with h_t = a_t h_{t-1} + b_t (from the last token if `reverse`).

    `start` [B, D]; returns the state after the last token visited.
    """
    length = b.shape[1]
    size = default_tile(length, b.shape[2], b.shape[0])
    begins = range(0, length, size)
    for begin in reversed(begins) if reverse else begins:
        tile = slice(begin, begin + size)
        start = _solve(a[:, tile], b[:, tile], out[:, tile], start, reverse)
    return start


def _solve(a: Tensor, b: Tensor, out: Tensor, start: Tensor, reverse: bool) -> Tensor:
    """Fill `out` for one tile; returns the last state visited, a view of `out`."""
    length = b.shape[1]
    if length <= BASE:
        return _sweep(a, b, out, start, reverse)
    spare = length % 2
    early, late = slice(0, length - spare, 2), slice(1, length, 2)
    if reverse:
        early, late = slice(spare + 1, length, 2), slice(spare, length, 2)
    decay = a[:, late] * a[:, early]
    write = torch.addcmul(b[:, late], a[:, late], b[:, early])
    solved = out[:, late]
    state = _solve(decay, write, solved, start, reverse)
    _between(a[:, early], b[:, early], out[:, early], solved, start, reverse)
    if not spare:
        return state
    rest = 0 if reverse else -1
    return torch.addcmul(b[:, rest], a[:, rest], state, out=out[:, rest])


def _between(
    a: Tensor, b: Tensor, out: Tensor, solved: Tensor, start: Tensor, reverse: bool
) -> None:
    """The tokens left out by a halving, each from the solved token visited before it."""
    first, others, before = (-1, slice(0, -1), slice(1, None))
    if not reverse:
        first, others, before = (0, slice(1, None), slice(0, -1))
    torch.addcmul(b[:, first], a[:, first], start, out=out[:, first])
    torch.addcmul(b[:, others], a[:, others], solved[:, before], out=out[:, others])


def _sweep(a: Tensor, b: Tensor, out: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """One token after the other."""
    order = range(b.shape[1])
    for token in reversed(order) if reverse else order:
        state = torch.addcmul(b[:, token], a[:, token], state, out=out[:, token])
    return state


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
    return out, recur(a, b, out, start).clone()


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
    if out.shape[1] > 1:
        recur(factor[:, 1:], d_out[:, :-1], flow[:, :-1], flow[:, -1], reverse=True)
    d_a = fresh_like(flow)
    torch.mul(flow[:, 1:], out[:, :-1].conj(), out=d_a[:, 1:])
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
