"""The tensors of a call as lanes, batch x heads first, and a memory by the names of its state."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from archdsl.kernels.learner import retentions
from archdsl.kernels.learner.memories import Norm
from archdsl.kernels.learner.parts import Memory, Streams, factors_of
from archdsl.kernels.learner.rule import Rule
from archdsl.kernels.learner.states import state_shapes

State = Mapping[str, Tensor]


class Gates(NamedTuple):
    """What the token says besides query, key and value.

    rate [B, T, H] or [B, T, H, K]; log decay [H], [B, T, H] or [B, T, H, K]; the logarithm of the
    momentum, the weight in a window and the loss's threshold [B, T, H].
    """

    rate: Tensor
    decay: Tensor | None = None
    momentum: Tensor | None = None
    weight: Tensor | None = None
    threshold: Tensor | None = None


class Learned(NamedTuple):
    """Parameters of a memory.

    Weights it begins with [H, out, in] a layer, its norm's gain and offset [H, D], TTT's position steps
    [chunk].
    """

    start: Sequence[Tensor]
    gain: Tensor | None = None
    offset: Tensor | None = None
    share: Tensor | None = None


def lanes_of(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, T, H, …] → [B·H, T, …]."""
    return x.to(dtype).transpose(1, 2).flatten(0, 1)


def streams_of(q: Tensor, k: Tensor, v: Tensor, gates: Gates, dtype: torch.dtype) -> Streams:
    """All that comes with writes [B, T, H, …] as lanes."""
    decay = gates.decay
    if decay is not None and decay.dim() == 1:
        decay = decay.expand(*k.shape[:2], -1)
    gates = gates._replace(decay=decay)
    return Streams(*(None if x is None else lanes_of(x, dtype) for x in (q, k, v, *gates)))  # type: ignore[arg-type]


def norm_of(learned: Learned, batch: int, dtype: torch.dtype) -> Norm:
    """The norm of every lane's memory."""

    def lanes(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(dtype).repeat(batch, 1)[:, None]

    return Norm(lanes(learned.gain), lanes(learned.offset))


def share_of(learned: Learned, dtype: torch.dtype) -> Tensor | None:
    """TTT's position steps."""
    return None if learned.share is None else learned.share.to(dtype)


def memory_of(
    rule: Rule, learned: Learned, state: State | None, batch: int, dtype: torch.dtype
) -> Memory:
    """The memory before the first write, fresh where there is no state."""
    heads, layers = learned.start[0].shape[0], range(len(rule.store.shapes))
    none = learned.start[0].new_zeros(batch * heads, dtype=dtype)
    if state is None:
        first = (retentions.beginning(rule.keep, w.to(dtype)) for w in learned.start)
        current = tuple(w.repeat(batch, 1, 1) for w in first)
        zeros = tuple(torch.zeros_like(w) for w in current) if rule.learn.carries else ()
        return Memory(current, current, zeros, _empty(rule, none), none)
    flat = {name: s.to(dtype).flatten(0, 1) for name, s in state.items() if s.dim() > 1}
    current = tuple(flat[f"memory_{layer}"] for layer in layers)
    begun = tuple(flat.get(f"start_{layer}", current[layer]) for layer in layers)
    momentum = tuple(flat[f"momentum_{layer}"] for layer in layers) if rule.learn.carries else ()
    recent = tuple(flat[name] for name in RECENT) if rule.learn.window > 1 else ()
    return Memory(current, begun, momentum, recent, flat.get("sparse", none))


RECENT = ("recent_keys", "recent_values", "recent_weights", "recent_thresholds")


def _empty(rule: Rule, none: Tensor) -> tuple[Tensor, ...]:
    """A window before the first write: nothing weighs anything."""
    window, widths = rule.learn.window - 1, rule.store.widths
    if not window:
        return ()
    nothing = none.new_zeros(len(none), window)
    key, value = (none.new_zeros(len(none), window, width) for width in (widths[0], widths[-1]))
    return key, value, nothing, nothing


def named(rule: Rule, memory: Memory) -> dict[str, Tensor]:
    """A memory by the names of its state, lanes first."""
    found: dict[str, Tensor] = {}
    kinds = {"memory": memory.current, "start": memory.start, "momentum": memory.momentum}
    for kind, weights in kinds.items():
        found |= {f"{kind}_{layer}": w for layer, w in enumerate(weights)}
    found |= dict(zip(RECENT, memory.recent, strict=False)) | {"sparse": memory.sparse}
    return {name: found[name] for name in state_shapes(rule, 1)}


def sums_of(rule: Rule, state: State | None, lanes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of the closed form before the first write, by the dtype and device of `like`."""
    key, value = rule.store.widths[0], rule.store.widths[-1]
    if state is None:
        return like.new_zeros(lanes, key, key), like.new_zeros(lanes, value, key)
    keys, values = (state[name].to(like.dtype).flatten(0, 1) for name in ("keys", "values"))
    return keys, values


def decayed(rule: Rule, gate: Tensor) -> dict[str, Tensor]:
    """What a decay [L], or [L, K] a key channel, multiplies of a state, by name."""
    if rule.learn.form == "closed":
        return dict.fromkeys(("keys", "values"), gate[:, None, None])
    factors = factors_of(rule, gate, rule.keep.decay == "channel")
    return {f"memory_{layer}": factor for layer, factor in enumerate(factors)}
