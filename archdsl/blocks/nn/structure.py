"""Modules of operations with regions, and the region itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from archdsl.blocks.nn import forms, packed
from archdsl.blocks.nn.base import Context, Site, State
from archdsl.blocks.nn.dense import Norm
from archdsl.blocks.op import Routed
from archdsl.blocks.ops import structure as ops
from archdsl.kernels.shell.norm import add_norm

Call = Literal["plain", "context", "state"]


@dataclass(frozen=True)
class Step:
    """One operation of a region's program.

    Args:
        path: attributes that lead from the region to the module.
        name: the node's name, the key of its state.
        call: how the module is called.
        inputs: registers it reads.
        outputs: registers it writes.
        last: registers nobody reads behind it.
        routed: which rows it runs on, inside ``mom`` or ``moe``.
    """

    path: tuple[str, ...]
    name: str
    call: Call
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    last: tuple[int, ...]
    routed: Routed | None = None

    @property
    def sideways(self) -> int:
        """How many states it keeps side by side; 0 for an operation on plain text."""
        return 0 if self.routed is None or self.routed.form == "text" else self.routed.copies


class RegionModule(nn.Module):
    """A region of the graph as a module: its operations' modules by name, and the order they run in.

    The program is plain data, so the module can be copied, pickled, wrapped and compiled. The module
    of an operation with one region may be a subclass, and then holds the region's modules itself.
    """

    program: tuple[Step, ...] = ()
    result: int = 0
    """The register of the output."""

    def run(
        self,
        x: Tensor,
        state: State | None,
        context: Context,
        steps: int | None = None,
        done: int = 0,
    ) -> tuple[Tensor, State | None]:
        """The region's output for a stream; with ``steps`` only the first so many operations run.

        Where ``done`` is 1 the first operation has run already, and ``x`` is its output.
        """
        registers: dict[int, Tensor] = {self.program[0].outputs[0] if done else 0: x}
        kept: State = {}
        chosen = self.program[done:steps]
        for step in chosen:
            self._step(step, registers, state, kept, context)
        result = self.result if steps is None else chosen[-1].outputs[0] if chosen else 0
        return registers[result], kept if context.keep else None

    def forward(
        self, x: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """As :meth:`run`."""
        return self.run(x, state, context)

    def init_state(self, batch: int, like: Tensor) -> State:
        """Fresh states of the operations that have one, by their names."""
        found: State = {}
        for step in self.program:
            if step.call == "state":
                module = self.operation(step)
                fresh = partial(forms.fresh, module, step.sideways)
                found[step.name] = (fresh if step.sideways else module.init_state)(batch, like)
        return {name: state for name, state in found.items() if state}

    def operation(self, step: Step) -> Any:
        """The module of one step."""
        module: Any = self
        for attribute in step.path:
            module = getattr(module, attribute)
        return module

    def _step(
        self,
        step: Step,
        registers: dict[int, Tensor],
        state: State | None,
        kept: State,
        context: Context,
    ) -> None:
        module = self.operation(step)
        inputs = [registers[i] for i in step.inputs]
        if step.call == "plain":
            outputs = packed.plain(module, inputs, context)
        elif step.call == "context":
            outputs = forms.run_in_context(module, step, inputs, context)
        else:
            before = None if state is None else state.get(step.name)
            if step.sideways:
                outputs, after = forms.run_stateful(module, step, inputs, before, context)
            else:
                outputs, after = packed.call(module, inputs, before, context)
            if after:
                kept[step.name] = after
        if isinstance(outputs, Tensor):
            registers[step.outputs[0]] = outputs
        else:
            registers.update(zip(step.outputs, outputs, strict=True))
        for register in step.last:
            del registers[register]


class ResidualSum(RegionModule):
    """``x + scale · f(x)``; the branch's modules are its own."""

    call: ClassVar[Call] = "state"
    op: ops.ResidualSum
    factor: float
    scale: Tensor | None

    def __init__(self, op: ops.ResidualSum) -> None:
        super().__init__()
        learned = op.scale == "learned"
        vars(self).update(op=op, factor=1.0 if learned else float(op.scale))
        if learned:
            self.scale = nn.Parameter(torch.full((op.width,), op.start))
        else:
            vars(self).update(scale=None)

    def forward(  # type: ignore[override]
        self, x: Tensor, *pending: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor | tuple[Tensor, Tensor], State | None]:
        """``[B, T, D]`` → the same, and the branch's state."""
        if pending:
            norm: Norm = self.operation(self.program[0])
            x, normed = add_norm(x, pending[0], norm.weight, norm.op.eps, norm.backend)
            y, kept = self.run(normed, state, context, done=1)
        else:
            y, kept = self.run(x, state, context)
        if self.scale is not None:
            y = self.scale * y
        elif self.factor != 1:
            y = self.factor * y
        return ((x, y) if self.op.deferred else x + y), kept


class Layers(nn.ModuleList):
    """Copies of weights in a list; runs go through them in the operation's order."""

    call: ClassVar[Call] = "state"

    def __init__(self, op: ops.Layers, regions: Sequence[nn.Module]) -> None:
        super().__init__(regions)
        self.op = op

    def init_state(self, batch: int, like: Tensor) -> State:
        """A fresh state a run."""
        copies = [module for module in self if isinstance(module, RegionModule)]
        states = [copies[copy].init_state(batch, like) for copy in self.op.order]
        return {str(run): state for run, state in enumerate(states) if state}

    def forward(
        self, x: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` → the same, and a state a run."""
        kept: State = {}
        outer = context.iteration
        for run, copy in enumerate(self.op.order):
            if self.op.adapted:
                context.iteration = self.op.ordinal(0, run)
            before = None if state is None else state.get(str(run))
            x, after = self[copy](x, before, context)
            if after:
                kept[str(run)] = after
        context.iteration = outer
        return x, kept if context.keep else None


class Branches(Site):
    """Regions on one input, mixed."""

    call: ClassVar[Call] = "state"
    packs: ClassVar[bool] = True

    def __init__(self, op: ops.Branches, regions: Sequence[nn.Module]) -> None:
        super().__init__(op)
        self.mix = op.mix
        self.branches = nn.ModuleList(regions)
        self.weight = nn.Parameter(torch.zeros(op.branches)) if op.mix == "gate" else None

    def init_state(self, batch: int, like: Tensor) -> State:
        """A fresh state a branch."""
        regions = [module for module in self.branches if isinstance(module, RegionModule)]
        found = {str(i): region.init_state(batch, like) for i, region in enumerate(regions)}
        return {branch: state for branch, state in found.items() if state}

    def forward(
        self, x: Tensor, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D]`` → ``[B, T, D']``, and a state a branch."""
        outputs, kept = [], {}
        for index, branch in enumerate(self.branches):
            before = None if state is None else state.get(str(index))
            y, after = branch(x, before, context)
            outputs.append(y)
            if after:
                kept[str(index)] = after
        return self._mixed(outputs), kept if context.keep else None

    def _mixed(self, outputs: list[Tensor]) -> Tensor:
        if self.mix == "concat":
            return torch.cat(outputs, -1)
        if self.mix == "product":
            return reduce(torch.mul, outputs)
        stacked = torch.stack(outputs)
        if self.weight is not None:
            return (self.weight.softmax(0)[:, None, None, None] * stacked).sum(0)
        return stacked.sum(0) if self.mix == "sum" else stacked.mean(0)
