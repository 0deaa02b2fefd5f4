"""What a part of a chunk is: its writes, the memory before them, and where in the chunk they stand."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from archdsl.kernels.learner import biases, memories
from archdsl.kernels.learner.memories import Norm
from archdsl.kernels.learner.rule import Rule

Weights = tuple[Tensor, ...]


class Streams(NamedTuple):
    """What comes with every write, lanes first: L = batch x heads, N writes.

    query, key [L, N, K], value [L, N, V]; rate [L, N] or [L, N, K]; log decay [L, N] or [L, N, K];
    the logarithm of the momentum, the weight in a window and a loss's threshold [L, N]. `present`
    [L, N] says which of them there are, where lanes have more or fewer: the others stand behind in
    their chunk, are zero, and change nothing.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    rate: Tensor
    decay: Tensor | None = None
    momentum: Tensor | None = None
    weight: Tensor | None = None
    threshold: Tensor | None = None
    present: Tensor | None = None

    def part(self, first: int, last: int) -> "Streams":
        """Some of the writes."""
        parts: list[Any] = [None if x is None else x[:, first:last] for x in self]
        return Streams(*parts)


class Memory(NamedTuple):
    """What is carried from write to write.

    `current` and `momentum` are what has accumulated, `start` what the gradients of the chunk that is
    under way see, `recent` the last window - 1 writes (keys, values, weights, thresholds), `sparse` the
    soft threshold so far [L].
    """

    current: Weights
    start: Weights
    momentum: Weights
    recent: tuple[Tensor, ...]
    sparse: Tensor


class Rules(NamedTuple):
    """The point, the norm of its memory, TTT's position steps [chunk], the loss's gradient."""

    rule: Rule
    norm: Norm
    share: Tensor | None
    gradient: biases.Bias


Offset = int | Tensor
"""Which number in its chunk a first write has: one for all lanes, or one each [L]."""


class Part(NamedTuple):
    """Writes of one chunk, the first of them number `offset`, and the memory before them."""

    rules: Rules
    x: Streams
    memory: Memory
    offset: Offset
    soft: Tensor

    def ended(self, ends: Weights, goes_on: Weights) -> Weights:
        """`ends` where the chunk is complete behind these writes, else `goes_on`."""
        count: Offset = self.x.key.shape[1] if self.x.present is None else self.x.present.sum(1)
        complete = self.offset + count == self.rules.rule.learn.chunk
        if isinstance(complete, bool):
            return ends if complete else goes_on
        return where_lanes(complete, ends, goes_on)

    @property
    def share(self) -> Tensor | None:
        """TTT's steps of these positions, [1, N] or a lane's [L, N]."""
        share = self.rules.share
        if share is None:
            return None
        place = torch.arange(self.x.key.shape[1], device=share.device)[None]
        place = place + (self.offset if isinstance(self.offset, int) else self.offset[:, None])
        return share[place.clamp(max=len(share) - 1)]


def where_lanes(lanes: Tensor, left: Weights, right: Weights) -> Weights:
    """The weights [L, …] of either, lane by lane."""
    pairs = zip(left, right, strict=True)
    return tuple(
        torch.where(memories.split(lanes, 0, (-1, *[1] * (a.dim() - 1))), a, b) for a, b in pairs
    )


def begun_where(rule: Rule, x: Streams, memory: Memory, offset: Offset) -> Memory:
    """The memory of the lanes whose chunk begins with these writes, and of the others."""
    if isinstance(offset, int) and (offset or x.present is None):
        return memory if offset else begun(rule, x, memory)
    assert x.present is not None, "lanes with an offset of their own say which writes there are"
    first, new = x.present[:, 0] & (torch.as_tensor(offset) == 0), begun(rule, x, memory)
    start = where_lanes(first, new.start, memory.start)
    return memory._replace(start=start, sparse=torch.where(first, new.sparse, memory.sparse))


def begun(rule: Rule, x: Streams, memory: Memory) -> Memory:
    """A chunk begins: its gradients see what there is, or that behind the first decay."""
    start = memory.current
    if rule.learn.decay_first and x.decay is not None:
        factors = factors_of(rule, x.decay[:, 0].exp(), rule.keep.decay == "channel")
        start = tuple(w * f for w, f in zip(start, factors, strict=True))
    return memory._replace(start=start, sparse=torch.zeros_like(memory.sparse))


def factors_of(rule: Rule, gate: Tensor, channelwise: bool) -> list[Tensor]:
    """A gate [L, …] or one a key channel [L, …, K], as a factor of each layer's weights.

    A key channel's stands on the inputs of the first layer and, where the values are as wide, on the
    outputs of the last one; other layers, and biases, take a head's mean.
    """
    shapes = rule.store.shapes
    if not channelwise:
        return [gate[..., None, None]] * len(shapes)
    mean = gate.mean(-1, keepdim=True)
    factors = [mean[..., None]] * len(shapes)
    inputs = torch.cat([gate, mean], -1) if rule.store.bias else gate
    factors[0] = inputs[..., None, :]
    if len(shapes) > 1 and rule.store.widths[-1] == rule.store.widths[0]:
        factors[-1] = gate[..., :, None]
    return factors
