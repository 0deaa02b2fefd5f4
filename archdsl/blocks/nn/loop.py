"""Modules of recurrent depth; equations are with the operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from math import ceil, sqrt
from random import Random
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.base import Context, Seeded, Site, State, caches, widened
from archdsl.blocks.nn.dense import draw_matrix, sinusoidal
from archdsl.blocks.nn.noise import truncated_normal
from archdsl.blocks.nn.structure import RegionModule
from archdsl.blocks.ops import loop as ops
from archdsl.blocks.times import share

Call = Literal["plain", "context", "state"]

OPEN = 1.0
"""Where the bias of the halting probability starts, as the Universal Transformer's code has it."""


class Loop(Site):
    """Layers run over and over; see ``ops.Loop``.

    ``times`` may be set to any number: it is how often the layers run in evaluation and decoding, and
    in training where the operation draws nothing. Set it before a state is made. Two more settings
    trade exactness for cost when decoding, and are off (``None``) unless set:

    Attributes:
        times: iterations.
        ring: states are kept for so many iterations, and iteration ``i`` reads and writes slot
            ``i mod ring``: it sees what the last one of its slot left behind at earlier tokens.
        exit: a token stops where the divergence in nats of its next-token distribution from the
            iteration's before falls below this (arXiv 2502.05171 §5). Iterations it leaves out take
            the keys and values of its deepest one, and keep other states. Only a loop of the model's
            own body, without ``halt``, can stop, one token at a time.
    """

    call: ClassVar[Call] = "state"
    mix: Tensor
    mix_bias: Tensor
    initial: Tensor
    halting: Tensor
    halting_bias: Tensor
    op: ops.Loop

    def __init__(self, op: ops.Loop, regions: Sequence[nn.Module]) -> None:
        super().__init__(op)
        self.body = nn.ModuleList(regions)
        self.times = op.times
        self.ring: int | None = None
        self.exit: float | None = None
        self.deviation, self.ponder = sqrt(op.variance), float(op.ponder)
        self.limit = 1 - float(op.epsilon)
        for name, shape in op.parameters().items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        if op.halt != "none":
            nn.init.constant_(self.halting_bias, OPEN)

    def draw(self, seeded: Seeded) -> None:
        """The join passes the state and the input on in equal parts, as any projection of both."""
        if self.op.inject in ("concat", "gate"):
            draw_matrix(self.mix, self.op.init, seeded("mix"))
        if self.op.start == "learned":
            with torch.no_grad():
                self.initial.normal_(std=self.deviation, generator=seeded("initial"))
        if self.op.halt != "none":
            draw_matrix(self.halting[None], "small", seeded("halting"))

    def init_state(self, batch: int, like: Tensor) -> State:
        """A fresh state a run, or for each run of a ring."""
        copies = [module for module in self.body if isinstance(module, RegionModule)]
        order = self.op.order * min(self.times, self.ring or self.times)
        states = [copies[copy].init_state(batch, like) for copy in order]
        return {str(run): state for run, state in enumerate(states) if state}

    def depth(self, context: Context) -> tuple[int, int]:
        """Iterations of one call, and how many of them, the first, carry no gradient."""
        times, limit = self.times, self.op.backprop
        if context.number is not None and (self.op.drawn or self.op.curriculum):
            grown = share(self.op.curve, self.op.curriculum, context.number)
            least = max(1, ceil(self.op.times * grown))
            limit = limit and min(limit, least)
            random = Random(f"{context.seed} {self.place.index} {context.number}")
            times = least if self.op.drawn is None else self.op.drawn.draw(random, grown)
        free = max(0, times - limit) if limit and torch.is_grad_enabled() else 0
        return times, free

    def forward(
        self, x: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` → the same, and a state a run."""
        readout, context.readout = context.readout, None
        times, free = self.depth(context)
        s = self._initial(x, context)
        kept: State = {}
        halting = Halting(self, x) if self.op.halt != "none" else None
        leaving = None
        if self.exit is not None and readout is not None and halting is None:
            leaving = Exit(self.exit, readout)
        for iteration in range(times):
            with torch.no_grad() if iteration < free else nullcontext():
                y = self._iterate(iteration, s, x, state, kept, context)
                s = y if halting is None else halting.update(s, y, iteration + 1 == times)
            if leaving is not None:
                s = leaving.update(self, iteration, s, state, kept)
                if leaving.all:
                    break
        if halting is not None:
            context.auxiliary.append(self.ponder * halting.cost)
            s = halting.output
        return s, kept if context.keep else None

    def run_of(self, iteration: int, place: int) -> str:
        """The key of the state of one run."""
        slot = iteration if self.ring is None else iteration % self.ring
        return str(slot * len(self.op.order) + place)

    def _iterate(
        self,
        iteration: int,
        s: Tensor,
        x: Tensor,
        state: State | None,
        kept: State,
        context: Context,
    ) -> Tensor:
        h = self._joined(s, x)
        if self.op.signal:
            h = h + self._signal(iteration, x, context)
        outer = context.iteration
        for place, copy in enumerate(self.op.order):
            if self.op.adapted:
                context.iteration = self.op.ordinal(iteration, place)
            run = self.run_of(iteration, place)
            before = None if state is None else state.get(run)
            h, after = self.body[copy](h, before, context)
            if after:
                kept[run] = after
        context.iteration = outer
        return h

    def _initial(self, x: Tensor, context: Context) -> Tensor:
        if self.op.start == "input":
            return x
        if self.op.start == "zeros":
            return torch.zeros_like(x)
        if self.op.start == "learned":
            return self.initial.to(x.dtype).expand(x.shape)
        number = 0 if context.number is None else context.number + 1
        seed = (context.seed * 1_000_003 + self.place.index) * 1_000_003 + number
        noise = truncated_normal(x.flatten(2), context.places(x), seed).reshape(x.shape)
        return (noise * self.deviation).to(x.dtype)

    def _joined(self, s: Tensor, x: Tensor) -> Tensor:
        if self.op.inject == "none":
            return s
        if self.op.inject == "add":
            return s + x
        both = torch.cat([s, x], -1)
        if self.op.inject == "concat":
            return F.linear(both, self.mix)
        gate = torch.sigmoid(F.linear(both, self.mix, self.mix_bias))
        return torch.lerp(x, s.to(x.dtype), gate.to(x.dtype))

    def _signal(self, iteration: int, x: Tensor, context: Context) -> Tensor:
        """Sines of the position and of the iteration, counted from 1 (arXiv 1807.03819 eq. 6-7)."""
        dtype = widened(x).dtype
        place = context.places(x).to(dtype)
        time = torch.full((1,), iteration + 1, device=x.device, dtype=dtype)
        wave = sinusoidal(place, self.op.channels) + sinusoidal(time, self.op.channels)
        return wave.to(x.dtype) if x.dim() == 3 else wave[:, None].to(x.dtype)


class Halting:
    """Adaptive computation time: what each position has summed up so far.

    A position that has halted keeps its state, of which later iterations still make keys and values.
    The weighted mean gives a position that never halts its rest at the last iteration; the
    interpolation leaves it as it is.
    """

    def __init__(self, loop: Loop, x: Tensor) -> None:
        self.loop, self.limit = loop, loop.limit
        zero = torch.zeros(x.shape[:2], device=x.device, dtype=widened(x).dtype)
        self.halted, self.rest, self.updates = zero, zero, zero
        self.output = torch.zeros_like(x)

    @property
    def cost(self) -> Tensor:
        """Mean number of updates and remainder, of which only the remainder has a gradient."""
        return (self.updates + self.rest).mean()

    def probability(self, s: Tensor) -> Tensor:
        """Of halting now, ``[B, T]``, from the state; streams count as their mean."""
        wide = widened(s if s.dim() == 3 else s.mean(2))
        weight = self.loop.halting.to(wide.dtype)
        return torch.sigmoid((wide * weight).sum(-1) + self.loop.halting_bias.to(wide.dtype))

    def update(self, s: Tensor, y: Tensor, last: bool) -> Tensor:
        """Weigh one iteration from ``s`` to ``y``; gives the next one's state."""
        p = self.probability(s)
        running = (self.halted < 1).to(p.dtype)
        newly = running * (self.halted + p > self.limit).to(p.dtype)
        if last and self.loop.op.halt == "mean":
            newly = running
        still = running - newly
        left = newly * (1 - self.halted)
        weight = p * still + left
        self.halted = self.halted + p * still + left
        self.rest, self.updates = self.rest + left, self.updates + running
        self._weigh(y, weight)
        moved = running.bool().reshape(running.shape + (1,) * (s.dim() - 2))
        return torch.where(moved, y, s)

    def _weigh(self, y: Tensor, weight: Tensor) -> None:
        share = weight.reshape(weight.shape + (1,) * (y.dim() - 2)).to(y.dtype)
        kept = self.output if self.loop.op.halt == "mean" else (1 - share) * self.output
        self.output = kept + share * y


class Exit:
    """Which sequences have stopped iterating at the token that is decoded.

    Args:
        threshold: in nats.
        readout: logits ``[B, 1, V]`` of a state ``[B, 1, D]``.
    """

    def __init__(self, threshold: float, readout: Callable[[Tensor], Tensor]) -> None:
        self.threshold, self.readout = threshold, readout
        self.gone: Tensor | None = None
        self.before: tuple[Tensor, Tensor] | None = None

    @property
    def all(self) -> bool:
        """Whether no sequence goes on."""
        return self.gone is not None and bool(self.gone.all())

    def update(
        self, loop: Loop, iteration: int, s: Tensor, state: State | None, kept: State
    ) -> Tensor:
        """Hold what has stopped, and see who stops now; gives the next iteration's state."""
        if self.before is not None and self.gone is not None:
            rows = self.gone.reshape(-1, *[1] * (s.dim() - 1))
            s = torch.where(rows, self.before[0], s)
            self._hold(loop, iteration, state, kept, self.gone)
        found = self.readout(s)[:, 0].float().log_softmax(-1)
        self.gone = (
            torch.zeros_like(found[:, 0], dtype=torch.bool) if self.gone is None else self.gone
        )
        if self.before is not None:
            moved = (found.exp() * (found - self.before[1])).sum(-1)
            self.gone = self.gone | (moved < self.threshold)
        self.before = s, found
        if self.all:
            for later in range(iteration + 1, loop.times):
                self._hold(loop, later, state, kept, None)
        return s

    def _hold(
        self, loop: Loop, iteration: int, state: State | None, kept: State, rows: Tensor | None
    ) -> None:
        """States of an iteration that some sequences (all, for ``None``) have left out."""
        for place in range(len(loop.op.order)):
            run, source = loop.run_of(iteration, place), loop.run_of(iteration - 1, place)
            if source in kept and (rows is not None or run not in kept):
                before = None if state is None else state.get(run)
                kept[run] = held(before, kept[source], kept.get(run), rows)


def held(before: Any, source: Any, after: Any, rows: Tensor | None) -> Any:
    """A state whose ``rows`` (all, for ``None``) did not take part in an iteration.

    Args:
        before: the state before the token.
        source: the iteration's before, behind the token: a cache takes its last entry from there.
        after: the iteration's own, behind the token, for the rows that took part.
        rows: which rows did not, ``[B]``.
    """
    if isinstance(source, dict):
        if caches(source):
            return {k: _blend(_grown(before, source, k), after and after[k], rows) for k in source}
        pairs = {k: (before and before.get(k), after and after.get(k)) for k in source}
        return {k: held(b, source[k], a, rows) for k, (b, a) in pairs.items()}
    return _blend(source if before is None else before, after, rows)


def _grown(before: Any, source: Any, name: str) -> Tensor:
    """A cache with the last entry of another, cut to its length."""
    last = source[name]
    whole = last if before is None else torch.cat([before[name], last[:, -1:]], 1)
    return whole[:, whole.shape[1] - last.shape[1] :]


def _blend(stopped: Any, after: Any, rows: Tensor | None) -> Any:
    if rows is None or after is None or not isinstance(after, Tensor):
        return stopped
    return torch.where(rows.reshape(-1, *[1] * (after.dim() - 1)), stopped, after)
