"""Sequences packed in one row, for operations that do not know of them: each sequence by itself.

An operation that looks along time and takes ``context.cu_seqlens`` itself says so by ``packs``. Any other
gets the sequences as the rows of a padded batch, where it is causal and no state is asked for, since then
no token sees the padding behind it; and else one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from archdsl.kernels.common import segments

if TYPE_CHECKING:
    from archdsl.blocks.nn.base import Context, State

Outputs = Tensor | tuple[Tensor, ...]


def check(tokens: Tensor, cu_seqlens: Tensor) -> None:
    """Complain about offsets that do not cut the tokens ``[1, T]`` into sequences.

    Raises:
        ValueError: one sentence about what is wrong.
    """
    if tokens.shape[0] != 1:
        raise ValueError(f"packed sequences stand in one row, and these tokens have {len(tokens)}")
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError("`cu_seqlens` is a one-dimensional int32 or int64 tensor of offsets")
    bounds, length = cu_seqlens.tolist(), tokens.shape[1]
    if not bounds or bounds[0] != 0 or bounds[-1] != length or sorted(bounds) != bounds:
        raise ValueError(f"`cu_seqlens` rises from 0 to the {length} tokens, and is {bounds}")


def call(
    module: Any, inputs: Sequence[Tensor], state: State | None, context: Context
) -> tuple[Outputs, State | None]:
    """A stateful module on a plain batch, or on packed sequences."""
    if context.cu_seqlens is None or _packs(module):
        outputs, after = module(*inputs, state=state, context=context)
        return outputs, after
    inner = replace(context, cu_seqlens=None, position=0)
    if module.op.causal and state is None and not context.keep:
        outputs, _ = padded(
            lambda *x: module(*x, state=None, context=inner), inputs, context.cu_seqlens
        )
        return outputs, None
    return _one_by_one(module, inputs, state, inner, context.cu_seqlens)


def _packs(module: Any) -> bool:
    """Whether it takes packed sequences, or only hands the context on to the modules inside."""
    return getattr(module, "packs", True) or next(module.children(), None) is not None


def plain(module: Any, inputs: Sequence[Tensor], context: Context) -> Outputs:
    """A module without a state; one that sees a whole sequence at once gets each by itself."""
    bounds = context.cu_seqlens
    if bounds is None or getattr(getattr(module, "op", None), "causal", True):
        found: Outputs = module(*inputs)
        return found
    spans = pairwise(bounds.tolist())
    parts = [module(*(x[:, a:b] for x in inputs)) for a, b in spans if b > a]
    return torch.cat(parts, 1)


def padded(
    run: Callable[..., tuple[Outputs, Any]], inputs: Sequence[Tensor], cu_seqlens: Tensor
) -> tuple[Outputs, Any]:
    """``run`` on the sequences as a batch with zeros behind the short ones."""
    length = inputs[0].shape[1]
    rows, _ = segments(cu_seqlens, length)
    known = not torch.compiler.is_compiling()  # a compiled graph cannot wait for the lengths
    widest = int((cu_seqlens[1:] - cu_seqlens[:-1]).max()) if known else length
    place = rows * widest + torch.arange(length, device=rows.device) - cu_seqlens[rows]
    count = len(cu_seqlens) - 1

    def apart(x: Tensor) -> Tensor:
        empty = x.new_zeros(count * widest, *x.shape[2:])
        return empty.index_copy(0, place, x[0]).view(count, widest, *x.shape[2:])

    def together(y: Tensor) -> Tensor:
        return y.flatten(0, 1).index_select(0, place)[None]

    outputs, after = run(*map(apart, inputs))
    if isinstance(outputs, Tensor):
        return together(outputs), after
    return tuple(map(together, outputs)), after


def _one_by_one(
    module: Any, inputs: Sequence[Tensor], state: State | None, context: Context, bounds: Tensor
) -> tuple[Outputs, State | None]:
    outputs: list[Outputs] = []
    states: list[State] = []
    for row, (start, stop) in enumerate(pairwise(bounds.tolist())):
        before = None if state is None else {k: v[row : row + 1] for k, v in state.items()}
        if stop == start:
            states.append(before or module.init_state(1, inputs[0]))
            continue
        part = [x[:, start:stop] for x in inputs]
        y, after = module(*part, state=before, context=context)
        outputs.append(y)
        states.append(after or {})
    return _joined(outputs), _stacked(states) if context.keep else None


def _joined(outputs: list[Outputs]) -> Outputs:
    if isinstance(outputs[0], Tensor):
        return torch.cat([y for y in outputs if isinstance(y, Tensor)], 1)
    return tuple(torch.cat(parts, 1) for parts in zip(*outputs, strict=True))


def _stacked(states: list[State]) -> State | None:
    if not states or not states[0]:
        return None
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}
