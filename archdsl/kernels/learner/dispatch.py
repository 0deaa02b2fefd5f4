"""The public function of the learner family."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from archdsl.kernels.common import compute_dtype
from archdsl.kernels.learner import biases, chunked, closed, retentions
from archdsl.kernels.learner.chunked import Memory, Rules, Streams
from archdsl.kernels.learner.memories import Norm, split
from archdsl.kernels.learner.reference import reference
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


def choose(rule: Rule, length: int) -> tuple[str, str]:
    """The form that runs `length` tokens, and why."""
    if rule.learn.form == "closed":
        return "closed", "sums of products, and a linear system a token"
    how = "read through coefficients" if rule.dual else "every token's weights formed"
    return "chunked", f"gradients at the start of every {rule.learn.chunk} writes, {how}"


def learn(
    rule: Rule, q: Tensor, k: Tensor, v: Tensor, gates: Gates, learned: Learned, *,
    state: State | None = None, position: int = 0,
    bias: tuple[biases.Bias, biases.Bias] | None = None, backend: str = "chunked",
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Write and read a memory that learns: out [B, T, H, V], and its state.

    Args:
        rule: the point.
        q: [B, T, H, K]; with several writes a token, one for each write, of which the last is read.
        k: [B, T, H, K].
        v: [B, T, H, V].
        gates: the token's sizes and decays.
        learned: what the memory begins with, and its norm.
        state: what `state_shapes` names; a fresh start where not given.
        position: writes that came before, which tells where in its chunk the first one stands.
        bias: gradient and value of a loss that `biases` does not have.
        backend: `chunked`, or `reference` (a write at a time by autograd).
    """
    batch, _, heads, _ = k.shape
    dtype = compute_dtype(q, k, v)
    x = _streams(q, k, v, gates, dtype)
    if rule.learn.form == "closed":
        out, after = closed.run(rule, x, _closed_state(rule, state, x))
    else:
        gradient, value = bias or biases.pair(rule.loss)
        rules = Rules(rule, _norm(learned, batch, dtype), _share(learned, dtype), gradient)
        memory = _memory(rule, learned, state, x)
        offset = position % rule.learn.chunk
        if backend == "reference":
            out, found = reference(rules, x, memory, value, offset)
        else:
            out, found = chunked.run(rules, x, memory, offset)
        after = _named(rule, found)
    out = biases.read(rule.loss, out)
    return (
        split(out, 0, (batch, heads)).transpose(1, 2),
        {name: split(s, 0, (batch, heads)) for name, s in after.items()},
    )


def _lanes(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, T, H, …] → [B·H, T, …]."""
    return x.to(dtype).transpose(1, 2).flatten(0, 1)


def _streams(q: Tensor, k: Tensor, v: Tensor, gates: Gates, dtype: torch.dtype) -> Streams:
    decay = gates.decay
    if decay is not None and decay.dim() == 1:
        decay = decay.expand(*k.shape[:2], -1)
    gates = gates._replace(decay=decay)
    return Streams(*(None if x is None else _lanes(x, dtype) for x in (q, k, v, *gates)))  # type: ignore[arg-type]


def _norm(learned: Learned, batch: int, dtype: torch.dtype) -> Norm:
    def lanes(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(dtype).repeat(batch, 1)[:, None]

    return Norm(lanes(learned.gain), lanes(learned.offset))


def _share(learned: Learned, dtype: torch.dtype) -> Tensor | None:
    return None if learned.share is None else learned.share.to(dtype)


def _memory(rule: Rule, learned: Learned, state: State | None, x: Streams) -> Memory:
    """The memory before the first write, fresh where there is no state."""
    lanes, layers = x.key.shape[0], range(len(rule.store.shapes))
    heads = learned.start[0].shape[0]
    if state is None:
        first = (retentions.beginning(rule.keep, w.to(x.key.dtype)) for w in learned.start)
        current = tuple(w.repeat(lanes // heads, 1, 1) for w in first)
        zeros = tuple(torch.zeros_like(w) for w in current) if rule.learn.carries else ()
        return Memory(current, current, zeros, _empty(rule, x), x.key.new_zeros(lanes))
    flat = {name: s.to(x.key.dtype).flatten(0, 1) for name, s in state.items()}
    current = tuple(flat[f"memory_{layer}"] for layer in layers)
    begun = tuple(flat.get(f"start_{layer}", current[layer]) for layer in layers)
    momentum = tuple(flat[f"momentum_{layer}"] for layer in layers) if rule.learn.carries else ()
    recent = tuple(flat[name] for name in RECENT) if rule.learn.window > 1 else ()
    return Memory(current, begun, momentum, recent, flat.get("sparse", x.key.new_zeros(lanes)))


RECENT = ("recent_keys", "recent_values", "recent_weights", "recent_thresholds")


def _empty(rule: Rule, x: Streams) -> tuple[Tensor, ...]:
    """A window before the first write: nothing weighs anything."""
    window = rule.learn.window - 1
    if not window:
        return ()
    lanes, none = x.key.shape[0], x.key.new_zeros(x.key.shape[0], window)
    key, value = (s.new_zeros(lanes, window, s.shape[2]) for s in (x.key, x.value))
    return key, value, none, none


def _named(rule: Rule, memory: Memory) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    kinds = {"memory": memory.current, "start": memory.start, "momentum": memory.momentum}
    for kind, weights in kinds.items():
        found |= {f"{kind}_{layer}": w for layer, w in enumerate(weights)}
    found |= dict(zip(RECENT, memory.recent, strict=False)) | {"sparse": memory.sparse}
    return {name: found[name] for name in state_shapes(rule, 1)}


def _closed_state(rule: Rule, state: State | None, x: Streams) -> tuple[Tensor, Tensor]:
    key, value = rule.store.widths[0], rule.store.widths[-1]
    if state is None:
        lanes = x.key.shape[0]
        return x.key.new_zeros(lanes, key, key), x.key.new_zeros(lanes, value, key)
    keys, values = (state[name].to(x.key.dtype).flatten(0, 1) for name in ("keys", "values"))
    return keys, values
