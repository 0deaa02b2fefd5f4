"""Modules that route: the router, the containers, and the operations between the forms of rows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.nn.base import Context, Seeded, Site, State, exactly, widened
from archdsl.blocks.nn.convolution import Convolution
from archdsl.blocks.nn.dense import draw_matrix
from archdsl.blocks.nn.forms import Rows, on_every
from archdsl.blocks.nn.start import first_bias
from archdsl.blocks.nn.structure import RegionModule
from archdsl.blocks.ops import routing as ops
from archdsl.kernels.common import segments
from archdsl.kernels.routing import (
    Plan,
    choose_top,
    combine_rows,
    filters,
    gather_rows,
    grouped_linear,
    idle_decay,
    rank_in_member,
    refuse,
    route,
    routed_filter,
    take_rows,
)
from archdsl.kernels.shell.products import linear

Call = Literal["plain", "context", "state"]


def rows_of(context: Context) -> Rows:
    """The routing of the region that is running."""
    assert context.rows is not None, "this operation stands inside `mom` or `moe`"
    return context.rows


class Reroute(Site):
    """See ``ops.Reroute``."""

    call: ClassVar[Call] = "context"

    def __init__(self, op: ops.Reroute) -> None:
        super().__init__(op)
        self.way = (op.source, op.target)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Rows in one form → the same in another."""
        rows = rows_of(context)
        plan, flat = rows.plan, rows.flat(x)
        if self.way == ("text", "packed"):
            return rows.packed(gather_rows(flat, plan.token, plan.inverse))
        if self.way == ("every", "packed"):
            return rows.packed(take_rows(flat, rows.index))
        if self.way == ("text", "every"):
            return x.repeat_interleave(plan.copies, 1)
        return rows.text(combine_rows(flat, plan.weights, plan.inverse, plan.token))


class IdleDecay(Site):
    """See ``ops.IdleDecay``; the memory behind it takes what is left from the routing."""

    call: ClassVar[Call] = "context"

    def forward(self, log_decay: Tensor, context: Context) -> Tensor:
        """``[B, T·copies, W]`` → routed rows."""
        rows = rows_of(context)
        since, left = idle_decay(rows.apart(log_decay), rows.plan, rows.cu_seqlens)
        rows.left.append(left)
        return rows.packed(since)


class CopiedLinear(Site):
    """See ``ops.CopiedLinear``."""

    call: ClassVar[Call] = "context"
    op: ops.CopiedLinear

    def __init__(self, op: ops.CopiedLinear) -> None:
        super().__init__(op)
        shapes = op.parameters()
        self.weight = nn.Parameter(torch.empty(shapes["weight"]))
        start = first_bias(op).expand(shapes["bias"]).clone() if op.bias else None
        self.bias = None if start is None else nn.Parameter(start)

    def draw(self, seeded: Seeded) -> None:
        """Each copy as a projection of its own."""
        for index, weight in enumerate(self.weight):
            draw_matrix(weight, self.op.init, seeded(f"weight.{index}"))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Text or every row → every row; packed rows → packed rows."""
        rows = rows_of(context)
        if self.op.source == "packed":
            return rows.packed(self._packed(rows.flat(x), rows.plan))
        return rows.every(self._every(rows.flat(x)))

    def _every(self, x: Tensor) -> Tensor:
        """``[R, D]``, or ``[R·copies, D]``, → ``[R·copies, E]``."""
        if self.op.source == "text":
            y = linear(x, self.weight.flatten(0, 1)).view(len(x), self.op.copies, self.op.width_out)
        else:
            rows = x.view(len(x) // self.op.copies, self.op.copies, x.shape[-1]).transpose(0, 1)
            y = torch.bmm(rows, self.weight.transpose(1, 2)).transpose(0, 1)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.reshape(-1, self.op.width_out)

    def _packed(self, x: Tensor, plan: Plan) -> Tensor:
        y = grouped_linear(x, self.weight, plan.groups)
        return y if self.bias is None else y + self.bias.to(y.dtype)[plan.copy]


class RoutedFilter(Convolution):
    """See ``ops.RoutedFilter``. It has the taps; the projection's module stands beside it."""

    routes: ClassVar[bool] = True

    def __init__(self, op: ops.RoutedFilter) -> None:
        super().__init__(op.filter)
        self.names = op.names
        self.projection = (CopiedLinear(op.linear),)  # in a tuple: its holder registers it

    def attach(self, holder: nn.Module, name: str) -> None:
        """Give the projection to the holder, under its own name."""
        holder.add_module(self.names[0], self.projection[0])

    def forward(  # type: ignore[override]
        self, x: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` → routed rows, and the last projections within reach, a memory."""
        (project,), rows, op = self.projection, rows_of(context), self.op
        plain = state is None and not context.keep and rows.cu_seqlens is None and not rows.single
        fused = self.short and self.backend != "plain"
        if plain and fused and filters(x, project.weight, self.weight):
            how = (rows.plan, op.activation, op.unit_heads)
            return rows.packed(routed_filter(x, project.weight, self.weight, self.bias, *how)), None
        every = project(x, context)
        y, after = on_every(partial(super().forward), [every], state, context, rows)
        return rows.packed(take_rows(rows.flat(y), rows.index)), after


class GRU(nn.Module):
    """The weights of a GRU of ``rank`` numbers, its product with the state inside the reset gate."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.empty(3 * rank, rank))
        self.state = nn.Parameter(torch.empty(3 * rank, rank))
        self.input_bias = nn.Parameter(torch.zeros(3 * rank))
        self.state_bias = nn.Parameter(torch.zeros(3 * rank))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """``[…, rank]`` twice → the new state (arXiv 2408.06793 eq. 4-7)."""
        given = F.linear(x, self.input.to(x.dtype), self.input_bias.to(x.dtype))
        held = F.linear(h, self.state.to(x.dtype), self.state_bias.to(x.dtype))
        reset_x, update_x, new_x = given.chunk(3, -1)
        reset_h, update_h, new_h = held.chunk(3, -1)
        update = torch.sigmoid(update_x + update_h)
        new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
        return (1 - update) * new + update * h


class Router(Site):
    """See ``ops.Router``. All recurrent routers of a rank share the first one's GRU."""

    call: ClassVar[Call] = "context"
    op: ops.Router

    def __init__(self, op: ops.Router) -> None:
        super().__init__(op)
        shapes = op.parameters()
        self.weight = nn.Parameter(torch.empty(shapes["weight"]))
        self.source: tuple[Router, ...] = ()
        self.gru: GRU | None = None
        if op.form == "recurrent":
            self.down = nn.Parameter(torch.empty(shapes["down"]))
            self.gru = GRU(op.rank)

    def share(self, first: Router) -> None:
        """Use the GRU of another from now on; held in a tuple, so that it is not a submodule."""
        self.source, self.gru = (first,), None

    def draw(self, seeded: Seeded) -> None:
        """Variance one over the inputs."""
        draw_matrix(self.weight, "fan_in", seeded("weight"))
        if self.op.form == "recurrent":
            draw_matrix(self.down, "fan_in", seeded("down"))
        if self.gru is not None:
            draw_matrix(self.gru.input, "fan_in", seeded("gru.input"))
            draw_matrix(self.gru.state, "fan_in", seeded("gru.state"))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """``[B, T, D]`` → ``[B, T, choices]``."""
        with exactly(x):
            wide = widened(x)
            if self.op.form == "recurrent":
                wide = self._carried(wide, context)
            return F.linear(wide, self.weight.to(wide.dtype))

    def _carried(self, x: Tensor, context: Context) -> Tensor:
        """The state that goes from router to router, one a token."""
        gru = self.source[0].gru if self.source else self.gru
        assert gru is not None, "a recurrent router has a GRU or shares one"
        inner = F.linear(x, self.down.to(x.dtype))
        key = f"router of {self.op.rank}"
        before = context.carried.get(key)
        context.carried[key] = gru(inner, torch.zeros_like(inner) if before is None else before)
        return context.carried[key]


class _Routing(RegionModule):
    """What both containers share."""

    call: ClassVar[Call] = "state"

    def __init__(self, op: ops.Routing) -> None:
        super().__init__()
        self.op = op
        self.balance, self.z_loss = float(op.balance), float(op.z_loss)
        self.scale, self.bias_step = float(op.scale), float(op.balance_bias)
        if op.balance_bias:
            self.balance_bias = nn.Parameter(torch.zeros(op.choices))

    def planned(self, logits: Tensor, context: Context) -> Plan:
        """Where each token goes: its top choices, and all shared copies."""
        op, flat = self.op, logits.flatten(0, 1)
        flat, gates = flat[:, : op.choices], flat[:, op.choices :]
        chosen = choose_top(self._wanted(flat.detach()), op.top)
        weights = self._weights(flat, chosen) * self.scale
        if op.shared:
            last = torch.arange(op.choices, op.copies, device=flat.device)
            chosen = torch.cat([chosen, last.expand(len(flat), -1)], 1)
            open_ = gates.sigmoid() if op.gated else weights.new_ones(len(flat), op.shared)
            weights = torch.cat([weights, open_], 1)
        sequence, count = sequences(logits, context)
        return route(chosen, weights, sequence, op.copies, count)

    def _wanted(self, logits: Tensor) -> Tensor:
        """What the largest are chosen of: the logits themselves, or biased scores."""
        if not self.op.balance_bias:
            return logits
        return self._scores(logits) + self.balance_bias.detach().to(logits.dtype)

    def _scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.op.score == "sigmoid" else logits.softmax(-1)

    def _weights(self, logits: Tensor, chosen: Tensor) -> Tensor:
        if self.op.mixing == "renormalised" and self.op.score == "softmax":
            return logits.gather(1, chosen).softmax(-1)
        scores = self._scores(logits).gather(1, chosen)
        if self.op.mixing == "renormalised":
            return scores / (scores.sum(-1, keepdim=True) + 1e-20)
        return scores

    def penalise(self, logits: Tensor, plan: Plan, context: Context) -> None:
        """Add the balance loss, the router's z-loss and what moves the bias to the call's."""
        flat = logits.flatten(0, 1)[:, : self.op.choices]
        if context.keep or not len(flat):
            return
        load = plan.groups.diff()[: self.op.choices].to(flat.dtype)
        if self.balance:
            scores = self._scores(flat)
            if self.op.score == "sigmoid":
                scores = scores / scores.sum(-1, keepdim=True)
            share = (load / (len(flat) * self.op.top) * scores.mean(0)).sum() * self.op.choices
            context.auxiliary.append(self.balance * share)
        if self.z_loss:
            context.auxiliary.append(self.z_loss * flat.logsumexp(-1).square().mean())
        if self.op.balance_bias:
            over = self.bias_step * (load - load.mean()).sign()
            pull = (self.balance_bias.to(flat.dtype) * over).sum()
            context.auxiliary.append(pull - pull.detach())  # a gradient and no loss


def sequences(like: Tensor, context: Context) -> tuple[Tensor, int]:
    """The sequence of each token ``[B·T]``, and how many there are."""
    batch, length = like.shape[:2]
    if context.cu_seqlens is None:
        index = torch.arange(batch, device=like.device)
        return index.repeat_interleave(length, output_size=batch * length), batch
    return segments(context.cu_seqlens, length)[0], context.cu_seqlens.shape[0] - 1


class MixtureOfMemories(_Routing):
    """See ``ops.MixtureOfMemories``; the region's modules are its own."""

    op: ops.MixtureOfMemories

    def __init__(self, op: ops.MixtureOfMemories) -> None:
        super().__init__(op)
        self.share = None if op.capacity is None else float(op.capacity) * op.top / op.choices

    def init_state(self, batch: int, like: Tensor) -> State:
        """The region's, and with a capacity how many tokens have asked for each memory."""
        asked = torch.zeros(batch, self.op.choices, dtype=torch.int64, device=like.device)
        own = {} if self.op.capacity is None else {"asked": asked}
        return super().init_state(batch, like) | own

    def forward(  # type: ignore[override]
        self, x: Tensor, logits: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` and logits ``[B, T, choices]`` → ``[B, T, D']``, and the memories."""
        plan = self.planned(logits, context)
        self.penalise(logits, plan, context)
        asked: State = {}
        if self.share is not None:
            plan, asked = self._limited(plan, self.share, state, x.shape[1], context)
        rows = Rows(plan, x.shape[0], x.shape[1], context.cu_seqlens)
        y, after = self.run(x, state, replace(context, rows=rows))
        return y, None if after is None else after | asked

    def _limited(
        self, plan: Plan, share: float, state: State | None, length: int, context: Context
    ) -> tuple[Plan, State]:
        """The plan without what is above a memory's share of tokens, and how many have asked by now."""
        op = self.op
        before = torch.zeros(
            plan.copies, plan.sequences, dtype=torch.int64, device=plan.token.device
        )
        if state is not None:
            before[: op.choices] = state["asked"].T
        earlier = rank_in_member(plan) + before.flatten()[plan.member]
        place = plan.token % length + context.position
        if context.cu_seqlens is not None:
            place = place - context.cu_seqlens[plan.member % plan.sequences]
        allowed = (earlier < (place + 1) * share) | (plan.copy >= op.choices)
        asked = before.flatten() + plan.bounds.diff()
        kept = asked.view_as(before)[: op.choices].T.contiguous()
        return refuse(plan, allowed), {"asked": kept}


class MixtureOfExperts(_Routing):
    """See ``ops.MixtureOfExperts``; the region's modules are its own, and know packed rows alone."""

    def forward(  # type: ignore[override]
        self, x: Tensor, logits: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` and logits ``[B, T, choices]`` → ``[B, T, D']``."""
        plan = self.planned(logits, replace(context, cu_seqlens=None))
        self.penalise(logits, plan, context)
        rows = Rows(plan, x.shape[0], x.shape[1], None)
        sent = rows.packed(gather_rows(rows.flat(x), plan.token, plan.inverse))
        y, _ = self.run(sent, None, replace(context, rows=rows, cu_seqlens=None))
        combined = combine_rows(rows.flat(y), plan.weights, plan.inverse, plan.token)
        return rows.text(combined), None
