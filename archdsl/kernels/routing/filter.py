"""What each memory writes: a projection of its own, a convolution along the text, the rows that arrive.

A memory needs its projection of every token, since a token's neighbours in the text may go elsewhere, but
the activation and all behind it of its own tokens alone. Here one memory is done after the other, so that
no buffer is larger than the text; where that does not suit, the operations run one by one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from archdsl.kernels.routing.plan import Plan
from archdsl.kernels.shell.choice import choice
from archdsl.kernels.shell.convolution import activated, activation_backward, spans
from archdsl.kernels.shell.products import product


def filters(x: Tensor, weight: Tensor, taps: Tensor) -> bool:
    """Whether ``routed_filter`` has a form for these."""
    return choice(x, weight, taps) == "cpu"


def routed_filter(
    x: Tensor,
    weight: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    plan: Plan,
    function: str = "silu",
    heads: int = 0,
) -> Tensor:
    """``f(b + Σ_j w_j W_c x_{t-j})`` of the tokens t that each copy c takes: x [B, T, D] → [N, E].

    weight [C, E, D]; taps [E, K], the last one for the current token; bias [E]; with ``heads`` each of
    so many slices of the channels is then brought to unit length. Only on a CPU: the bounds are read.
    """
    y: Tensor = _Filter.apply(x, weight, taps, bias, plan, function, heads)  # type: ignore[no-untyped-call]
    return y


@torch.library.custom_op("archdsl::filter_text", mutates_args=())
def filter_op(x: Tensor, taps: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of whole sequences x [B, T, E] alone, as an operator, so that its FLOPs count."""
    y, by_tap = torch.empty_like(x), taps.t().flip(0).contiguous()
    for row, into in zip(x, y, strict=True):
        for start, stop in spans(into):
            torch.mul(row[start:stop], by_tap[0], out=into[start:stop])
            for back in range(1, len(by_tap)):
                first = max(start, back)
                into[first:stop].addcmul_(row[first - back : max(stop - back, 0)], by_tap[back])
            if bias is not None:
                into[start:stop] += bias
    return y


@register_flop_formula(torch.ops.archdsl.filter_text)
def _count(x: Any, taps: Any, *_: Any, **__: Any) -> int:
    return int(2 * x[0] * x[1] * x[2] * taps[1])


def filter_backward(grad: Tensor, x: Tensor, taps: Tensor, d_taps: Tensor) -> Tensor:
    """The gradient to x [B, T, E] from ``grad``; that to the taps [E, K] is added to ``d_taps``."""
    d_x, by_tap = torch.empty_like(x), taps.t().flip(0).contiguous()
    found = torch.zeros_like(by_tap)
    for row, u, into in zip(x, grad, d_x, strict=True):
        for start, stop in spans(into):
            torch.mul(u[start:stop], by_tap[0], out=into[start:stop])
            found[0] += (row[start:stop] * u[start:stop]).sum(0)
            for ahead in range(1, len(by_tap)):
                later = u[start + ahead : stop + ahead]
                seen = slice(start, start + len(later))
                into[seen].addcmul_(later, by_tap[ahead])
                found[ahead] += (row[seen] * later).sum(0)
    d_taps += found.flip(0).t()
    return d_x


def _bounds(plan: Plan) -> list[int]:
    """Offsets of the copies' rows [C + 1], those that were refused left out."""
    taken = int(plan.bounds[plan.copies * plan.sequences])
    return [*plan.groups.tolist()[:-1], taken]


class _Filter(torch.autograd.Function):
    """``routed_filter``; keeps projections, and what the activation was given."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        taps: Tensor,
        bias: Tensor | None,
        plan: Plan,
        function: str,
        heads: int,
    ) -> Tensor:
        bounds, width = _bounds(plan), weight.shape[1]
        taken, kept = x.new_empty(len(plan.token), width), []
        taken[bounds[-1] :] = 0
        for copy, (start, stop) in enumerate(pairwise(bounds)):
            projected = product(x.flatten(0, 1), weight[copy]).view(*x.shape[:2], width)
            filtered = filter_op(projected, taps, bias).flatten(0, 1)
            torch.index_select(filtered, 0, plan.token[start:stop], out=taken[start:stop])
            kept.append(projected)
        ctx.save_for_backward(x, weight, taps, plan.token, taken, *kept)
        ctx.bounds, ctx.function, ctx.heads, ctx.biased = bounds, function, heads, bias is not None
        return activated(taken, function, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, taps, token, taken, *kept = ctx.saved_tensors
        rows, (start, *ends) = x.flatten(0, 1), ctx.bounds
        d_taken = activation_backward(grad, taken, ctx.function, ctx.heads)
        d_x, d_weight, d_taps = torch.zeros_like(rows), torch.empty_like(weight), taps * 0
        arrived = torch.empty_like(kept[0])
        for copy, (stop, projected) in enumerate(zip(ends, kept, strict=True)):
            arrived.zero_()
            arrived.flatten(0, 1).index_copy_(0, token[start:stop], d_taken[start:stop])
            d_projected = filter_backward(arrived, projected, taps, d_taps).flatten(0, 1)
            d_weight[copy] = product(d_projected.t(), rows.t())
            d_x += product(d_projected, weight[copy].t())
            start = stop
        d_bias = d_taken.sum(0) if ctx.biased else None
        return d_x.view_as(x), d_weight, d_taps, d_bias, None, None, None
