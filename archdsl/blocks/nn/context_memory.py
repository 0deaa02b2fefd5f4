"""The module of memory as context: see ``ops.context_memory``."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.base import Context, Seeded, Site, State, exactly, heads_apart, unit, widened
from archdsl.blocks.ops import context_memory as ops
from archdsl.kernels.learner import biases, chunked, memories
from archdsl.kernels.learner.parts import Memory, Rules, Streams

Cache = tuple[Tensor, Tensor]
"""Keys and values ``[B, 2, segment, D]`` of the segment so far: of the context, of the tokens."""


class ContextMemory(Site):
    """See ``ops.ContextMemory``. Momentum and decay start at 0.88 and 0.98."""

    call: ClassVar[Literal["plain", "context", "state"]] = "state"
    packs: ClassVar[bool] = False
    op: ops.ContextMemory

    def __init__(self, op: ops.ContextMemory) -> None:
        super().__init__(op)
        fills = {"gain": 1.0, "momentum_bias": 2.0, "decay_bias": 4.0}
        for name, shape in op.parameters().items():
            self.register_parameter(name, nn.Parameter(torch.full(shape, fills.get(name, 0.0))))

    def draw(self, seeded: Seeded) -> None:
        """Variance one over the inputs; the memory's last layer small."""
        last = f"start_{len(self.op.rule.store.shapes) - 1}"
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() > 1:
                    std = 0.02 if name == last else parameter.shape[-1] ** -0.5
                    parameter.normal_(std=std, generator=seeded(name))

    def init_state(self, batch: int, like: Tensor) -> State:
        """The learned beginning."""
        state = super().init_state(batch, like)
        for layer in range(len(self.op.rule.store.shapes)):
            for kind in ("memory", "start"):
                name = f"{kind}_{layer}"
                if name in state:
                    start = self.held(f"start_{layer}").to(state[name].dtype)
                    state[name] = start.expand_as(state[name]).clone()
        return state

    def forward(
        self, x: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` → the same, and the state."""
        state = self.init_state(x.shape[0], x) if state is None else state
        chunk, offset = self.op.rule.learn.chunk, context.position % self.op.rule.learn.chunk
        memory, cache = self._memory(state), (state["segment_keys"], state["segment_values"])
        rows, first = [], 0
        while first < x.shape[1]:
            last = min(x.shape[1], first + chunk - offset)
            row, memory, cache = self._part(x[:, first:last], memory, cache, offset)
            rows.append(row)
            first, offset = last, 0
        return torch.cat(rows, 1), self._state(memory, cache, x) if context.keep else None

    def _part(
        self, x: Tensor, memory: Memory, cache: Cache, offset: int
    ) -> tuple[Tensor, Memory, Cache]:
        """Tokens of one segment from a place on."""
        batch, rule = x.shape[0], self.op.rule
        if offset == 0:
            memory = memory._replace(start=memory.current)
            cache = (torch.zeros_like(cache[0]), torch.zeros_like(cache[1]))
        recall = unit(self._apart(self._to("recall", x)))
        with exactly(x):
            h, _ = memories.through(
                rule.store, memories.Norm(), recall, memories.plain(memory.start)
            )
        h = self._together(h, batch).to(x.dtype)
        y, cache = self._attended(x, h, cache, offset)
        streams = self._streams(y, self._to("read", y))
        rules = Rules(rule, memories.Norm(), None, biases.gradients(rule.loss))
        with exactly(x):
            read, memory = chunked.part(rules, streams, memory, offset)
        heads = memories.split(read, 0, (batch, self.op.heads)).transpose(1, 2)
        normal = F.rms_norm(heads, (heads.shape[-1],), eps=1e-6).flatten(-2)
        return y * (normal * widened(self.held("gain"))).to(y.dtype), memory, cache

    def _streams(self, y: Tensor, query: Tensor) -> Streams:
        """What the memory learns from ``y``."""
        key, value = self._to("learn_key", y), self._to("learn_value", y)
        largest = self.op.rule.learn.largest
        return Streams(
            query=unit(self._apart(query)),
            key=unit(self._apart(key)),
            value=self._apart(value),
            rate=self._lanes(torch.sigmoid(self._gate("rate", y)) * largest),
            decay=self._lanes(F.logsigmoid(self._gate("decay", y))),
            momentum=self._lanes(F.logsigmoid(self._gate("momentum", y))),
        )

    def _attended(self, x: Tensor, h: Tensor, cache: Cache, offset: int) -> tuple[Tensor, Cache]:
        """``mix`` of attention over the learned tokens, the context and the tokens so far."""
        count = x.shape[1]
        both = torch.stack([h, x], 1)
        keys, values = (
            torch.cat([old[:, :, :offset], self._to(name, both)], 2)
            for name, old in zip(("key", "value"), cache, strict=True)
        )
        fresh = (self._padded(keys), self._padded(values))
        learned = self.held("persistent").to(x.dtype)
        k, v = (
            torch.cat([self._to(name, learned).expand(len(x), -1, -1), *seen.unbind(1)], 1)
            for name, seen in (("key", keys), ("value", values))
        )
        q = self._heads(self._to("query", x))
        scores = q @ self._heads(k).mT * q.shape[-1] ** -0.5
        scores = scores.masked_fill(self._hidden(count, offset, x), float("-inf"))
        mixed = scores.softmax(-1) @ self._heads(v)
        return self._to("mix", mixed.transpose(1, 2).flatten(-2)), fresh

    def _hidden(self, count: int, offset: int, like: Tensor) -> Tensor:
        """Which of the learned tokens, the context and the tokens each token does not see."""
        seen = offset + count
        rows = torch.arange(offset, seen, device=like.device)[:, None]
        later = torch.arange(seen, device=like.device) > rows
        none = later.new_zeros(count, self.op.persistent)
        return torch.cat([none, later, later], 1)

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, self.op.rule.learn.chunk - x.shape[2]))

    def _to(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.held(name))

    def _gate(self, name: str, y: Tensor) -> Tensor:
        return widened(F.linear(y, self.held(name), self.held(f"{name}_bias")))

    def _heads(self, x: Tensor) -> Tensor:
        """``[B, T, D]`` → ``[B, H, T, D/H]``."""
        return heads_apart(x, self.op.heads).transpose(1, 2)

    def _apart(self, x: Tensor) -> Tensor:
        return widened(self._heads(x)).flatten(0, 1)

    def _together(self, x: Tensor, batch: int) -> Tensor:
        return memories.split(x, 0, (batch, self.op.heads)).transpose(1, 2).flatten(-2)

    def _lanes(self, gate: Tensor) -> Tensor:
        return gate.transpose(1, 2).flatten(0, 1)

    def _memory(self, state: State) -> Memory:
        layers = range(len(self.op.rule.store.shapes))
        flat = {n: s.flatten(0, 1) for n, s in state.items() if not n.startswith("segment")}
        current = tuple(flat[f"memory_{i}"] for i in layers)
        start = tuple(flat.get(f"start_{i}", current[i]) for i in layers)
        momentum = tuple(flat[f"momentum_{i}"] for i in layers)
        return Memory(current, start, momentum, (), current[0].new_zeros(len(current[0])))

    def _state(self, memory: Memory, cache: Cache, x: Tensor) -> State:
        kinds = {"memory": memory.current, "start": memory.start, "momentum": memory.momentum}
        lanes = (x.shape[0], self.op.heads)
        found = {
            f"{kind}_{i}": memories.split(w, 0, lanes)
            for kind, ws in kinds.items()
            for i, w in enumerate(ws)
        }
        kept = {name: s for name, s in found.items() if name in self.op.state(0)}
        return kept | {"segment_keys": cache[0], "segment_values": cache[1]}
