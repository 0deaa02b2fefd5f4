"""How an operation's module runs inside a routed region: on other rows, with a state a memory.

A state is kept as ``[B, copies, …]``, the batch first as everywhere; modules see ``[copies·B, …]``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from archdsl.blocks.nn import packed
from archdsl.kernels.common import buckets
from archdsl.kernels.routing import Place, Plan, join_rows, spread_rows

if TYPE_CHECKING:
    from archdsl.blocks.nn.base import Context, State
    from archdsl.blocks.nn.structure import Step


CHUNK = 64
"""Tokens by which members are told long or short, as kernels have them at most in a chunk."""


@dataclass(frozen=True)
class Rows:
    """A plan and the shape ``[B, T]`` of the text it is of.

    Args:
        plan: where tokens go.
        batch: B.
        length: T.
        cu_seqlens: offsets of packed sequences in the text, if it is packed.
        left: the log decay ``[copies·S, W]`` of the memory that runs next, behind its last token.
    """

    plan: Plan
    batch: int
    length: int
    cu_seqlens: Tensor | None
    left: list[Tensor] = field(default_factory=list)

    @property
    def single(self) -> bool:
        """Whether this is one token of each sequence: routed rows are then a batch of their own."""
        return self.length == 1

    def flat(self, x: Tensor) -> Tensor:
        """Any form as rows ``[…, D]``."""
        return x.reshape(-1, x.shape[-1])

    def packed(self, rows: Tensor) -> Tensor:
        """Routed rows as a sequence ``[1, N, D]``, or as a batch of tokens ``[N, 1, D]``."""
        return rows[:, None] if self.single else rows[None]

    def text(self, rows: Tensor) -> Tensor:
        """Rows of tokens as ``[B, T, D]``."""
        return rows.view(self.batch, self.length, rows.shape[-1])

    def every(self, rows: Tensor) -> Tensor:
        """Rows of tokens and copies as ``[B, T·copies, D]``."""
        return rows.view(self.batch, self.length * self.plan.copies, rows.shape[-1])

    def apart(self, x: Tensor) -> Tensor:
        """``[B, T·copies, D]`` → ``[copies·B, T, D]``."""
        wide = x.view(self.batch, self.length, self.plan.copies, x.shape[-1])
        return wide.permute(2, 0, 1, 3).flatten(0, 1)

    def together(self, x: Tensor) -> Tensor:
        """``[copies·B, T, D]`` → ``[B, T·copies, D]``."""
        wide = x.reshape(self.plan.copies, self.batch, self.length, x.shape[-1])
        return wide.permute(1, 2, 0, 3).flatten(1, 2)

    @property
    def index(self) -> Tensor:
        """Where each routed row stands among those of ``every`` copy and token: ``[N]``."""
        return self.plan.token * self.plan.copies + self.plan.copy

    @property
    def every_bounds(self) -> Tensor | None:
        """Offsets of the sequences of ``every`` copy, laid end to end; ``None`` for a plain batch."""
        if self.cu_seqlens is None:
            return None
        ends = [self.cu_seqlens[1:] + c * self.length for c in range(self.plan.copies)]
        return torch.cat([self.cu_seqlens[:1], *ends])


def run_in_context(module: Any, step: Step, inputs: list[Tensor], context: Context) -> Any:
    """A module that takes the context; one that turns by position knows tokens, not their copies."""
    rows = context.rows
    if (
        rows is None
        or step.routed is None
        or step.routed.form != "every"
        or not getattr(module, "places", False)
    ):
        return module(*inputs, context=context)
    return rows.together(module(*map(rows.apart, inputs), context=context))


def run_stateful(
    module: Any, step: Step, inputs: list[Tensor], state: State | None, context: Context
) -> tuple[Any, State | None]:
    """A stateful module on rows that are not text."""
    assert step.routed is not None, f"{step.name} stands in no routed region"
    rows = context.rows
    assert rows is not None, f"{step.name} is not called inside a routed region"
    if getattr(module, "routes", False):
        found: tuple[Any, State | None] = module(*inputs, state=state, context=context)
        return found
    if step.routed.form == "every":
        return on_every(module, inputs, state, context, rows)
    if rows.single:
        return _on_tokens(module, inputs, state, context, rows)
    return _on_packed(module, inputs, state, context, rows)


def fresh(module: Any, copies: int, batch: int, like: Tensor) -> State:
    """A fresh state of a module that keeps one for each of so many memories."""
    found: State = apart(module.init_state(batch * copies, like), copies)
    return found


def on_every(
    module: Any, inputs: list[Tensor], state: State | None, context: Context, rows: Rows
) -> tuple[Any, State | None]:
    """A convolution on the text, once for each memory: as more channels of the same taps."""
    copies = rows.plan.copies
    if rows.cu_seqlens is not None:
        inner = replace(context, cu_seqlens=rows.every_bounds)
        parts = [rows.apart(x).reshape(1, -1, x.shape[-1]) for x in inputs]
        y, after = packed.call(module, parts, _side(state), inner)
        assert isinstance(y, Tensor)
        return rows.together(y), apart(after, copies)
    (x,) = inputs
    wide = x.view(rows.batch, rows.length, -1 if x.numel() else copies * x.shape[-1])
    before = None if state is None else _map(state, lambda leaf: leaf.transpose(1, 2).flatten(2))
    y, after = module(wide, state=before, context=context, copies=copies)
    if after is not None:
        each = inputs[0].shape[-1]
        after = _map(after, lambda leaf: leaf.view(*leaf.shape[:2], copies, each).transpose(1, 2))
    return y.reshape(x.shape), after


def _on_packed(
    module: Any, inputs: list[Tensor], state: State | None, context: Context, rows: Rows
) -> tuple[Any, State | None]:
    """All memories of all sequences as one packed sequence."""
    plan = rows.plan
    if not inputs[0].shape[1]:  # no sequences: as a batch of none, which every module takes
        inner = replace(context, cu_seqlens=None)
        outputs, after = module(*(x.transpose(0, 1) for x in inputs), state=None, context=inner)
        return _each(outputs, lambda y: y.transpose(0, 1)), apart(
            _faded(module, after, rows), plan.copies
        )
    if state is None and not context.keep and _bucketed(module, inputs[0]):
        _faded(module, None, rows)
        return _by_length(module, inputs, context, plan), None
    count = plan.copies * plan.sequences
    spare = 0 if module.sparing else plan.members - count
    inner = replace(context, cu_seqlens=plan.bounds[: count + spare + 1])
    before = _side(state)
    if before is None and context.keep:
        before = module.init_state(count, inputs[0])
    if before is not None and spare:
        before = _map(before, lambda leaf: torch.cat([leaf, torch.zeros_like(leaf[:1])]))
    outputs, after = packed.call(module, inputs, before, inner)
    if after is not None and spare:
        after = _map(after, lambda leaf: leaf[:-spare])
    return outputs, apart(_faded(module, after, rows), plan.copies)


def _bucketed(module: Any, like: Tensor) -> bool:
    """Whether members are to run as batches of similar length.

    On a CPU, where lengths are known without waiting, a packed operator computes the same batches, but
    throws away what its backward needs, and computes it again.
    """
    eager = like.device.type == "cpu" and not torch.compiler.is_compiling()
    return bool(module.packs and module.bucketed) and eager and torch.is_grad_enabled()


def _by_length(module: Any, inputs: list[Tensor], context: Context, plan: Plan) -> Tensor:
    """Members of similar length as a batch, zeros behind the short ones: nothing sees those."""
    inner = replace(context, cu_seqlens=None)
    places = [Place.of(bucket, len(plan.token)) for bucket in buckets(plan.bounds, CHUNK)]
    batches = zip(*(spread_rows(x[0], places) for x in inputs), strict=True)
    outputs = [module(*batch, state=None, context=inner)[0] for batch in batches]
    return join_rows(outputs, places)[None]


def _on_tokens(
    module: Any, inputs: list[Tensor], state: State | None, context: Context, rows: Rows
) -> tuple[Any, State | None]:
    """One token a sequence: only the states it goes to are read and written."""
    plan = rows.plan
    inner = replace(context, cu_seqlens=None)
    whole = _side(state) or module.init_state(plan.copies * plan.sequences, inputs[0])
    kept = plan.member < plan.copies * plan.sequences
    index = plan.member.clamp(max=plan.copies * plan.sequences - 1)
    before = _map(whole, lambda leaf: leaf.index_select(0, index))
    outputs, after = module(*inputs, state=before, context=inner)
    if after is None:
        _faded(module, after, rows)
        return outputs, None

    def put(name: str, leaf: Tensor) -> Tensor:
        return _written(whole[name], after[name], index, kept if plan.refusing else None)

    written = {name: put(name, leaf) for name, leaf in after.items()}
    return outputs, apart(_faded(module, written, rows), plan.copies)


def _faded(module: Any, state: State | None, rows: Rows) -> State | None:
    """Memories behind the decays of the tokens that went elsewhere after their last one."""
    fades = getattr(module, "faded", None)
    if not rows.left or (state is not None and "memory" not in state and fades is None):
        return state
    left = rows.left.pop()
    if state is None:
        return None
    if fades is not None:
        found: State = fades(state, left)
        return found
    if state["memory"].dim() == left.dim():
        return {"memory": state["memory"] * left.exp().to(state["memory"].dtype)}
    heads = state["memory"].shape[1]
    log = left.view(len(left), heads, left.shape[-1] // heads)
    if "maximum" in state:
        return {**state, "maximum": state["maximum"] + log[..., 0].to(state["maximum"].dtype)}
    factor = log.exp()
    kept = {"memory": state["memory"] * factor[..., None].to(state["memory"].dtype)}
    if "normaliser" in state:
        kept["normaliser"] = state["normaliser"] * factor.to(state["normaliser"].dtype)
    return kept


def _written(whole: Tensor, rows: Tensor, index: Tensor, kept: Tensor | None) -> Tensor:
    """A state in which rows took the place of those at ``index``, refused ones apart."""
    rows = rows.to(whole.dtype)
    if kept is None:
        return whole.index_copy(0, index, rows)
    wide = torch.cat([whole, torch.zeros_like(whole[:1])])
    place = torch.where(kept, index, whole.shape[0])
    return wide.index_copy(0, place, rows)[:-1]


def apart(state: State | None, copies: int) -> Any:
    """``[copies·B, …]`` → ``[B, copies, …]``."""
    if state is None:
        return None
    return _map(
        state,
        lambda leaf: leaf.view(copies, len(leaf) // copies, *leaf.shape[1:]).transpose(0, 1),
    )


def _side(state: State | None) -> State | None:
    """``[B, copies, …]`` → ``[copies·B, …]``."""
    return None if state is None else _map(state, lambda leaf: leaf.transpose(0, 1).flatten(0, 1))


def _map(state: State, change: Callable[[Tensor], Tensor]) -> State:
    return {name: change(leaf) for name, leaf in state.items()}


def _each(outputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return change(outputs) if isinstance(outputs, Tensor) else tuple(map(change, outputs))
