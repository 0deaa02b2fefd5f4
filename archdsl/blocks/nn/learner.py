"""Modules of memories that learn at test time: they shape tensors and call the learner family."""

from __future__ import annotations

from functools import reduce
from itertools import combinations_with_replacement
from math import factorial, prod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from archdsl.blocks.nn.base import Context, Seeded, Site, State, exactly, heads_apart, widened
from archdsl.blocks.nn.memory import retention_decay
from archdsl.blocks.nn.objective import objective
from archdsl.blocks.ops import learner as ops
from archdsl.kernels.learner.dispatch import learn
from archdsl.kernels.learner.lanes import Gates, Learned, decayed
from archdsl.kernels.learner.memories import split
from archdsl.kernels.learner.packed import learn_packed


class LearnerMemory(Site):
    """See ``ops.LearnerMemory``.

    Inner layers begin with variance one over their inputs. So does the last one where a norm follows it;
    else it begins small, with a standard deviation of 0.02, so that what is read begins near the input.
    """

    call: ClassVar[Literal["plain", "context", "state"]] = "state"
    packs: ClassVar[bool] = True
    bucketed: ClassVar[bool] = False
    sparing: ClassVar[bool] = True
    op: ops.LearnerMemory

    def __init__(self, op: ops.LearnerMemory) -> None:
        super().__init__(op)
        self.ports = op.ports
        for name, shape in op.parameters().items():
            fill = 1.0 if name == "gain" else 0.0
            self.register_parameter(name, nn.Parameter(torch.full(shape, fill)))

    def draw(self, seeded: Seeded) -> None:
        """Draw the weights a sequence begins with; slots are directions."""
        store = self.op.rule.store
        if not store.learned:
            return
        last = len(store.shapes) - 1
        with torch.no_grad():
            for layer, (_, into) in enumerate(store.shapes):
                small = layer == last and store.norm == "none" and store.form == "layers"
                weight = self.get_parameter(f"start_{layer}")
                std = 0.02 if small else into**-0.5
                weight.normal_(std=std, generator=seeded(f"start_{layer}"))
                if store.bias:  # not zero: a norm of nothing has an endless slope
                    weight[..., -1] *= 0.02 / std

    def learned(self, like: Tensor) -> Learned:
        """The parameters as the kernels take them."""
        shapes = self.op.rule.store.shapes
        found = dict(self.named_parameters())
        start = [
            found[f"start_{i}"] if f"start_{i}" in found else like.new_zeros(self.op.heads, *shape)
            for i, shape in enumerate(shapes)
        ]
        return Learned(start, found.get("gain"), found.get("offset"), self._share(found))

    def _share(self, found: dict[str, nn.Parameter]) -> Tensor | None:
        """TTT's step a position: ``max(0, 1/t + learned)``."""
        if "position" not in found:
            return None
        learned = widened(found["position"])
        places = torch.arange(1, len(learned) + 1, device=learned.device, dtype=learned.dtype)
        return (1 / places + learned).clamp(min=0)

    def init_state(self, batch: int, like: Tensor) -> State:
        """The learned beginning, where there is one."""
        state = super().init_state(batch, like)
        names = [name for name in state if name.startswith(("memory_", "start_"))]
        beginning = self._beginning(like)
        for name in names if self.op.rule.learn.form != "closed" else ():
            weight = beginning[int(name.rpartition("_")[2])]
            state[name] = weight.to(state[name].dtype).expand_as(state[name]).clone()
        return state

    def _beginning(self, like: Tensor) -> list[Tensor]:
        from archdsl.kernels.learner.retentions import beginning

        keep = self.op.rule.keep
        return [beginning(keep, widened(w)) for w in self.learned(like).start]

    def forward(
        self, *inputs: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """The operation's ports → ``[B, T, H·V]``, and the memory."""
        given = dict(zip(self.ports, inputs, strict=True))
        rule, writes = self.op.rule, self.op.rule.learn.writes
        q, k, v = self._query(given["query"]), self._wide(given["key"]), self._wide(given["value"])
        with exactly(inputs[0]):
            gates, learned = self._gates(given), self.learned(widened(inputs[0]))
            if context.cu_seqlens is None and not self.op.counted:
                place, loss = context.position * writes, objective(rule.loss)
                out, after = learn(
                    rule, q, k, v, gates, learned, state=state, position=place, bias=loss
                )
            else:
                out, after = self._packed((q, k, v), gates, learned, state, context)
        read = out[:, writes - 1 :: writes] * self.op.factor
        return read.flatten(-2).to(given["value"].dtype), after if context.keep else None

    def _packed(
        self,
        streams: tuple[Tensor, Tensor, Tensor],
        gates: Gates,
        learned: Learned,
        state: State | None,
        context: Context,
    ) -> tuple[Tensor, State]:
        """Sequences in one row, or a batch of them that have come differently far."""
        (batch, length), rows = streams[0].shape[:2], context.rows
        rule, bounds = self.op.rule, context.cu_seqlens
        if bounds is None:
            bounds = torch.arange(batch + 1, device=learned.start[0].device) * length
        else:
            bounds = bounds * rule.learn.writes
        q, k, v = map(_in_one_row, streams)
        gates = Gates(
            _in_one_row(gates.rate), *(None if x is None else _in_one_row(x) for x in gates[1:])
        )
        out, after = learn_packed(
            rule, q, k, v, gates, learned, bounds,
            state=state, written=None if state is None else state.get("writes"),
            widest=None if rows is None else rows.length * rule.learn.writes,
            bias=objective(rule.loss),
        )  # fmt: skip
        if self.op.counted:
            after["writes"] = bounds.diff() + (0 if state is None else state["writes"])
        return out.view(batch, length, *out.shape[2:]), after

    def faded(self, state: State, log: Tensor) -> State:
        """The memory behind decays ``[B, H]`` or ``[B, H·K]`` of tokens that went elsewhere."""
        per_channel = self.op.rule.keep.decay == "channel"
        gate = heads_apart(log.exp(), self.op.heads) if per_channel else log.exp()
        faded = dict(state)
        for name, factor in decayed(self.op.rule, gate.flatten(0, 1)).items():
            leaf = state[name]
            faded[name] = leaf * split(factor.to(leaf.dtype), 0, leaf.shape[:2])
        return faded

    def _wide(self, x: Tensor) -> Tensor:
        """``[B, T, writes·H·D]`` → ``[B, T·writes, H, D]``."""
        writes, heads = self.op.rule.learn.writes, self.op.heads
        width = x.shape[2] // (writes * heads)
        return x.reshape(x.shape[0], x.shape[1] * writes, heads, width)

    def _query(self, query: Tensor) -> Tensor:
        return heads_apart(query, self.op.heads).repeat_interleave(self.op.rule.learn.writes, 1)

    def _gates(self, given: dict[str, Tensor]) -> Gates:
        rule = self.op.rule

        def small(name: str) -> Tensor | None:
            return self._wide(given[name])[..., 0] if name in given else None

        rate = self._wide(given["rate"])
        return Gates(
            rate if rule.learn.rate == "channel" else rate[..., 0],
            self._decay(given),
            small("momentum"),
            small("weight"),
            small("threshold"),
        )

    def _decay(self, given: dict[str, Tensor]) -> Tensor | None:
        """A decay acts before a token's first write."""
        per, writes = self.op.rule.keep.decay, self.op.rule.learn.writes
        if per == "none":
            return None
        if per == "constant":
            log = retention_decay(self.op.heads, given["key"])
            log = log.expand(*given["key"].shape[:2], -1)
        else:
            log = given["decay"]
            log = log if per == "head" else heads_apart(log, self.op.heads)
        if writes == 1:
            return log
        spread = log.new_zeros(log.shape[0], log.shape[1], writes, *log.shape[2:])
        return torch.cat([log[:, :, None], spread[:, :, 1:]], 2).flatten(1, 2)


def _in_one_row(x: Tensor) -> Tensor:
    """``[B, T, …]`` as ``[1, B·T, …]``."""
    return x.flatten(0, 1)[None]


def monomials(channels: int, power: int) -> tuple[list[tuple[int, ...]], list[float]]:
    """The factors of every monomial of a degree, and how often it occurs in ``(Σ x)^power``."""
    places = list(combinations_with_replacement(range(channels), power))
    often = [factorial(power) / prod(factorial(p.count(i)) for i in set(p)) for p in places]
    return places, often


class PolynomialFeatures(Site):
    """See ``ops.PolynomialFeatures``."""

    def __init__(self, op: ops.PolynomialFeatures) -> None:
        super().__init__(op)
        self.heads, self.degree = op.heads, op.degree
        self.channels = op.width // op.heads
        self.monomials = [monomials(self.channels, power) for power in range(op.degree + 1)]
        self.weight = nn.Parameter(
            torch.tensor([factorial(power) ** -0.5 for power in range(op.degree + 1)])
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, H·D]`` → ``[B, T, H·F]``, monomials by degree."""
        slices = widened(heads_apart(x, self.heads))
        weight = widened(self.weight)
        weight = weight * torch.rsqrt(weight.square().sum() + 1e-12)
        parts = [self._power(slices, power) * weight[power] for power in range(self.degree + 1)]
        return torch.cat(parts, -1).flatten(-2).to(x.dtype)

    def _power(self, x: Tensor, power: int) -> Tensor:
        """Monomials of one degree, each by the square root of how often it occurs in ``(Σ x)^power``."""
        if power == 0:
            return torch.ones_like(x[..., :1])
        places, often = self.monomials[power]
        index = torch.tensor(places, device=x.device)
        product = reduce(torch.mul, (x[..., index[:, i]] for i in range(power)))
        return product * torch.tensor(often, device=x.device, dtype=x.dtype).sqrt()
