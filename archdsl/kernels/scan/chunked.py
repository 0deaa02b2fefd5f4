"""Block-parallel form of the diagonal recurrence in plain PyTorch, with a hand-written backward.

Time is cut into n blocks that advance together. A first sweep finds each block's decay and its end
from a zero start; carries then pass along the blocks; a second sweep runs the recurrence from the
true starts. With enough elements beside time, n is 1 and only the last sweep remains. The backward
is the same recurrence in reverse: g_t = dh_t + conj(a_{t+1}) g_{t+1}, db = g, da_t = g_t
conj(h_{t-1}).
"""

from typing import Any

import torch
from torch import Tensor

from archdsl.kernels.common import divide
from archdsl.kernels.scan.flops import default_blocks


def recur(a: Tensor, b: Tensor, out: Tensor, start: Tensor, reverse: bool = False) -> Tensor:
    """Fill `out` [B, T, D] with h_t = a_t h_{t-1} + b_t (from the last token if `reverse`).

    `start` [B, D]; returns the state after the last token visited.
    """
    length = b.shape[1]
    blocks = default_blocks(length, b.shape[2], b.shape[0])
    size = length // blocks
    rest = length - blocks * size
    main = slice(rest, None) if reverse else slice(0, length - rest)
    views = [_columns(x[:, main], blocks, reverse) for x in (a, b, out)]
    state = _blocks(views[0], views[1], views[2], start, reverse)
    if not rest:
        return state
    tail = slice(0, rest) if reverse else slice(length - rest, None)
    views = [_columns(x[:, tail], 1, reverse) for x in (a, b, out)]
    return _sweep(views[0], views[1], views[2], state.unsqueeze(1))[:, 0]


def _columns(x: Tensor, blocks: int, reverse: bool) -> list[Tensor]:
    """Views [B, blocks, D] of the tokens at each position of their block, in visiting order."""
    columns = list(divide(x, 1, blocks, -1).unbind(2))
    return columns[::-1] if reverse else columns


def _blocks(
    a: list[Tensor], b: list[Tensor], out: list[Tensor], start: Tensor, reverse: bool
) -> Tensor:
    """Run all blocks; returns the state after the last one."""
    if b[0].shape[1] == 1:
        return _sweep(a, b, out, start.unsqueeze(1))[:, 0]
    ends, total = b[0].clone(), a[0].clone()
    for decay, write in zip(a[1:], b[1:], strict=True):
        torch.addcmul(write, decay, ends, out=ends)
        total.mul_(decay)
    starts = torch.empty_like(ends)
    order = range(ends.shape[1])
    for block in reversed(order) if reverse else order:
        starts[:, block] = start
        start = torch.addcmul(ends[:, block], total[:, block], start)
    _sweep(a, b, out, starts)
    return start


def _sweep(a: list[Tensor], b: list[Tensor], out: list[Tensor], state: Tensor) -> Tensor:
    for decay, write, target in zip(a, b, out, strict=True):
        state = torch.addcmul(write, decay, state, out=target)
    return state


@torch.library.custom_op("archdsl::scan", mutates_args=())
def scan_op(a: Tensor, b: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Fill h [B, T, D] and the last h [B, D] from a, b [B, T, D] and start [B, D] of one dtype."""
    out = torch.empty(b.shape, dtype=b.dtype, device=b.device)
    return out, recur(a, b, out, start).clone()


@scan_op.register_fake
def _(a: Tensor, b: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    return b.new_empty(b.shape), start.new_empty(start.shape)


@torch.library.custom_op("archdsl::scan_backward", mutates_args=())
def scan_backward_op(
    a: Tensor, out: Tensor, start: Tensor, d_out: Tensor, d_final: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `scan_op` to a, b and start."""
    factor = a.conj().resolve_conj()
    flow = torch.empty(out.shape, dtype=out.dtype, device=out.device)
    torch.add(d_out[:, -1], d_final, out=flow[:, -1])
    if out.shape[1] > 1:
        recur(factor[:, 1:], d_out[:, :-1], flow[:, :-1], flow[:, -1], reverse=True)
    d_a = torch.empty_like(flow)
    torch.mul(flow[:, 1:], out[:, :-1].conj(), out=d_a[:, 1:])
    torch.mul(flow[:, 0], start.conj(), out=d_a[:, 0])
    return d_a, flow, flow[:, 0] * factor[:, 0]


@scan_backward_op.register_fake
def _(
    a: Tensor, out: Tensor, start: Tensor, d_out: Tensor, d_final: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return out.new_empty(out.shape), out.new_empty(out.shape), start.new_empty(start.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs[0], inputs[2], output[0])


def _differentiate(
    ctx: Any, d_out: Tensor | None, d_final: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    a, start, out = ctx.saved_tensors
    d_out = torch.zeros_like(out) if d_out is None else d_out
    d_final = torch.zeros_like(start) if d_final is None else d_final
    grads: tuple[Tensor, Tensor, Tensor] = scan_backward_op(a, out, start, d_out, d_final)
    return grads


scan_op.register_autograd(_differentiate, setup_context=_save)
