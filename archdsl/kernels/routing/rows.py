"""Rows to where a plan sends them and back, as registered operators.

Each backward is a gather or a copy, never an addition of colliding rows, so it is as fast as the
forward and gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from archdsl.kernels.common import Bucket


def _summed(rows: Tensor, inverse: Tensor, weights: Tensor | None) -> Tensor:
    """The sum over each token's places [R, D] of routed rows [N, D]; weights [R, K]."""
    total = rows.index_select(0, inverse[:, 0])
    if weights is not None:
        total *= weights[:, :1]
    for place in range(1, inverse.shape[1]):
        part = rows.index_select(0, inverse[:, place])
        if weights is None:
            total += part
        else:
            total.addcmul_(part, weights[:, place : place + 1])
    return total


@torch.library.custom_op("archdsl::gather_rows", mutates_args=())
def gather_op(x: Tensor, token: Tensor, inverse: Tensor) -> Tensor:
    """Each token's row at every place it goes: x [R, D], token [N] → [N, D]."""
    return x.index_select(0, token)


@gather_op.register_fake
def _(x: Tensor, token: Tensor, inverse: Tensor) -> Tensor:
    return x.new_empty(token.shape[0], x.shape[1])


@torch.library.custom_op("archdsl::combine_rows", mutates_args=())
def combine_op(rows: Tensor, weights: Tensor | None, inverse: Tensor, token: Tensor) -> Tensor:
    """The (weighted) sum over places: rows [N, D], weights and inverse [R, K] → [R, D]."""
    return _summed(rows, inverse, None if weights is None else weights.to(rows.dtype))


@combine_op.register_fake
def _(rows: Tensor, weights: Tensor | None, inverse: Tensor, token: Tensor) -> Tensor:
    return rows.new_empty(inverse.shape[0], rows.shape[1])


@torch.library.custom_op("archdsl::combine_rows_backward", mutates_args=())
def combine_backward_op(
    grad: Tensor, rows: Tensor, weights: Tensor, inverse: Tensor, token: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of ``combine_op`` to the rows and the weights."""
    by_row = torch.empty(rows.shape[0], dtype=rows.dtype, device=rows.device)
    by_row[inverse.flatten()] = weights.to(rows.dtype).flatten()
    arrived = grad.index_select(0, token)
    d_row = (arrived * rows).sum(-1, dtype=weights.dtype)
    return arrived.mul_(by_row[:, None]), d_row[inverse]


@combine_backward_op.register_fake
def _(
    grad: Tensor, rows: Tensor, weights: Tensor, inverse: Tensor, token: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(rows), torch.empty_like(weights)


@torch.library.custom_op("archdsl::take_rows", mutates_args=())
def take_op(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x [M, D] by an index [N] → [N, D]."""
    return x.index_select(0, index)


@take_op.register_fake
def _(x: Tensor, index: Tensor) -> Tensor:
    return x.new_empty(index.shape[0], x.shape[1])


@torch.library.custom_op("archdsl::put_rows", mutates_args=())
def put_op(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """Rows [N, D] at an index [N] without repetitions, zeros elsewhere → [count, D]."""
    return rows.new_zeros(count, rows.shape[1]).index_copy_(0, index, rows)


@put_op.register_fake
def _(rows: Tensor, index: Tensor, count: int) -> Tensor:
    return rows.new_empty(count, rows.shape[1])


def _save_gather(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1], inputs[2])


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    token, inverse = ctx.saved_tensors
    return combine_op(grad, None, inverse, token), None, None


def _save_combine(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _combine_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    rows, weights, inverse, token = ctx.saved_tensors
    if weights is None:
        return gather_op(grad, token, inverse), None, None, None
    d_rows, d_weights = combine_backward_op(grad, rows, weights, inverse, token)
    return d_rows, d_weights, None, None


def _save_take(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.count = inputs[0].shape[0]


def _take_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (index,) = ctx.saved_tensors
    return put_op(grad, index, ctx.count), None


def _save_put(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _put_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (index,) = ctx.saved_tensors
    return take_op(grad, index), None, None


gather_op.register_autograd(_gather_backward, setup_context=_save_gather)
combine_op.register_autograd(_combine_backward, setup_context=_save_combine)
take_op.register_autograd(_take_backward, setup_context=_save_take)
put_op.register_autograd(_put_backward, setup_context=_save_put)


def gather_rows(x: Tensor, token: Tensor, inverse: Tensor) -> Tensor:
    """Each token's row to every place it goes: x [R, D] → [N, D], for a plan's token and inverse."""
    found: Tensor = gather_op(x, token, inverse)
    return found


def combine_rows(rows: Tensor, weights: Tensor, inverse: Tensor, token: Tensor) -> Tensor:
    """The weighted sum over each token's places: rows [N, D], weights [R, K] → [R, D]."""
    found: Tensor = combine_op(rows, weights, inverse, token)
    return found


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x [M, D] by an index [N] without repetitions → [N, D]."""
    found: Tensor = take_op(x, index)
    return found


@dataclass(frozen=True)
class Place:
    """Where a padded batch ``[n, T]`` of members stands among N packed rows.

    Args:
        shape: n and T.
        source: the row of each position ``[n T]``, any row where there is padding.
        target: the same, N where there is padding.
        padding: positions of padding.
    """

    shape: tuple[int, int]
    source: Tensor
    target: Tensor
    padding: Tensor

    @classmethod
    def of(cls, bucket: Bucket, rows: int) -> Place:
        """The place of some of the members of so many rows."""
        source, padding = bucket.index.flatten(), bucket.padding.flatten()
        target = source.masked_fill(padding, rows)
        shape = (bucket.index.shape[0], bucket.index.shape[1])
        return cls(shape, source, target, padding.nonzero()[:, 0])


def _spread(rows: Tensor, places: Sequence[Place]) -> tuple[Tensor, ...]:
    """Rows [N, D] as padded batches [n, T, D], zeros behind the short members."""
    found = (rows.index_select(0, p.source).index_fill_(0, p.padding, 0) for p in places)
    return tuple(x.view(*p.shape, -1) for x, p in zip(found, places, strict=True))


def _join(parts: Sequence[Tensor], places: Sequence[Place]) -> Tensor:
    """What ``_spread`` gave as rows; padding goes to one more row, which nobody reads."""
    count = sum(len(p.target) - len(p.padding) for p in places)
    rows = parts[0].new_empty(count + 1, parts[0].shape[-1])
    for part, place in zip(parts, places, strict=True):
        rows.index_copy_(0, place.target, part.flatten(0, 1))
    return rows[:count]


class _Spread(torch.autograd.Function):
    """Packed rows to the padded batches that together hold each of them once."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Sequence[Place]) -> tuple[Tensor, ...]:
        ctx.places = places
        return _spread(rows, places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _join(grads, ctx.places), None


class _Join(torch.autograd.Function):
    """Padded batches back to packed rows."""

    @staticmethod
    def forward(ctx: Any, places: Sequence[Place], *parts: Tensor) -> Tensor:
        ctx.places = places
        return _join(parts, places)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_spread(grad, ctx.places)


def spread_rows(rows: Tensor, places: Sequence[Place]) -> tuple[Tensor, ...]:
    """Packed rows [N, D] to padded batches [n, T, D] that together hold each of them once."""
    found: tuple[Tensor, ...] = _Spread.apply(rows, places)  # type: ignore[no-untyped-call]
    return found


def join_rows(parts: Sequence[Tensor], places: Sequence[Place]) -> Tensor:
    """Padded batches [n, T, D] back to packed rows [N, D]; what stands in padding is dropped."""
    found: Tensor = _Join.apply(places, *parts)  # type: ignore[no-untyped-call]
    return found
