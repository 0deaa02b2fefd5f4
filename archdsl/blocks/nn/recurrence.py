"""The steps of a cell forwards and backwards, without a graph of their operations.

Autograd would keep a node for every operation of every step. Here the forward pass writes each register
into one buffer with time first, and the backward pass runs the instructions in reverse. All that does not
wait for the gradient of the next step is done for all of time at once: the slopes of elementwise
functions before the steps, the gradients of weights behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from archdsl.blocks.cell_steps import Elementwise, Instruction, Products, Program, outputs
from archdsl.blocks.nn.functions import FUNCTIONS

Slope = Tensor | int
"""The derivative of a function in one input for all of time; a number where it is one everywhere."""

Line = Callable[[int], object]
"""What is done at step ``t``."""


@dataclass(frozen=True)
class Given:
    """What the steps of a cell are given.

    Args:
        x: the cell's input ``[B, T, D_in]``.
        states: before the first step ``[B, D]``.
        known: ``[B, T, D]`` each.
        weights: ``[D, D]`` each, in the order of the program's products.
        given: ``[D, D_in]`` each, of the input, in the order of the program's sums.
        biases: ``[D]`` each, in that order.
    """

    x: Tensor
    states: Sequence[Tensor]
    known: Sequence[Tensor]
    weights: Sequence[Tensor]
    given: Sequence[Tensor]
    biases: Sequence[Tensor]

    @classmethod
    def of(cls, program: Program, tensors: Sequence[Tensor]) -> Given:
        """From all of them in one row."""
        (x,), *others = _cut(program, tensors)
        return cls(x, *others)

    @property
    def tensors(self) -> list[Tensor]:
        """All in one row."""
        return [self.x, *self.states, *self.known, *self.weights, *self.given, *self.biases]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Steps, sequences and channels."""
        return self.x.shape[1], *self.states[0].shape

    @property
    def rows(self) -> Tensor:
        """The input with time first ``[T · B, D_in]``."""
        return self.x.transpose(0, 1).reshape(-1, self.x.shape[-1])


def _cut(program: Program, row: Sequence[Any]) -> list[list[Any]]:
    """What :attr:`Given.tensors` says in one row, apart: the input, then each of its lists."""
    lists = program.states, program.known, program.weights, program.given, program.biases
    rest = iter(row)
    return [[next(rest) for _ in range(size)] for size in (1, *map(len, lists))]


def recurrence(program: Program, given: Given) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run the steps of a cell.

    Args:
        program: the step.
        given: what it takes.

    Returns:
        the output ``[B, T, D]``, and the states behind the last step ``[B, D]``.
    """
    output, *after = _Recurrence.apply(  # type: ignore[no-untyped-call]
        program, torch.is_grad_enabled(), *given.tensors
    )
    return output, tuple(after)


class _Recurrence(torch.autograd.Function):
    """See :func:`recurrence`."""

    @staticmethod
    def forward(ctx: Any, program: Program, kept: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = Given.of(program, tensors)
        forward = _Forward(program, given, kept and any(ctx.needs_input_grad))
        values = forward.run()
        ctx.program = program
        ctx.save_for_backward(given.x, *given.given, *forward.matrices, *forward.buffers)
        ctx.set_materialize_grads(False)
        output = values[program.output].transpose(0, 1).contiguous()
        return output, *(values[end][-1].clone() for end in program.ends)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        program: Program = ctx.program
        x, *rest = ctx.saved_tensors
        given, rest = rest[: len(program.given)], rest[len(program.given) :]
        matrices, buffers = rest[: len(program.products)], rest[len(program.products) :]
        reverse = _Reverse(program, buffers)
        reverse.run(matrices, gradients)
        (of_x,), _, _, *wanted = _cut(program, ctx.needs_input_grad[2:])
        return (
            None, None, reverse.x(given) if of_x else None, *reverse.states(), *reverse.known(),
            *reverse.weights(wanted[0]), *reverse.given(x, wanted[1]), *reverse.biases(wanted[2]),
        )  # fmt: skip


def _laid(program: Program, buffers: Sequence[Tensor]) -> dict[int, Tensor]:
    """Each register for all of time ``[T, B, D]`` as it lies in the buffers.

    First all sums side by side ``[T, B, n · D]``. Then a buffer a state, ``[T + 1, B, D]``: before every
    step, and behind the last. Then one for each known value that is read, and one for each other register;
    ``[B, D]`` where no step's value is kept.
    """
    rest = iter(buffers)
    sums, whole = program.sums, next(rest)
    parts = whole.chunk(len(sums), -1) if sums else ()
    found = {each.output: part for each, part in zip(sums, parts, strict=True)}
    for state, end in enumerate(program.ends):
        whole = next(rest)
        found[state], found[end] = whole[:-1], whole[1:]
    return found | dict(zip((*program.operands, *program.others), rest, strict=True))


def _stacked(weights: Sequence[Tensor]) -> Tensor:
    """Weights ``[D, …]`` one above the other."""
    return weights[0] if len(weights) == 1 else torch.cat(list(weights))


def _columns(sums: Tensor, first: int, end: int, width: int) -> Tensor:
    """Some of the sums side by side ``[…, n · D]``."""
    whole = end * width - first * width == sums.shape[-1]
    return sums if whole else sums[..., first * width : end * width]


class _Moments(dict[int, Sequence[Tensor]]):
    """Registers at each step; a number, or what is not kept, is the same tensor at every one."""

    def __init__(self, values: Mapping[int, Tensor], steps: int) -> None:
        super().__init__()
        self.whole, self.steps = values, steps

    def __missing__(self, register: int) -> Sequence[Tensor]:
        self[register] = found = _moments(self.whole[register], self.steps)
        return found


def _moments(value: Tensor, steps: int) -> Sequence[Tensor]:
    """A value at each step."""
    return value.unbind(0) if value.dim() == 3 else [value] * steps


def _together(each: Products, moments: _Moments, sums: Tensor) -> Sequence[Tensor]:
    """The sums of an instruction side by side at each step."""
    if len(each.outputs) == 1:
        return moments[each.outputs[0]]
    width = moments.whole[each.outputs[0]].shape[-1]
    return _columns(sums, each.first, each.first + len(each.outputs), width).unbind(0)


class _Forward:
    """The buffers of a call, and what fills them.

    Args:
        program: the step.
        given: what it takes.
        kept: whether values are wanted afterwards; else a step writes over those of the one before.
    """

    def __init__(self, program: Program, given: Given, kept: bool) -> None:
        self.program, self.given, self.kept = program, given, kept
        self.steps, *self.shape = given.shape
        self.like = given.states[0]
        left = iter(given.weights)
        self.matrices = [_stacked([next(left) for _ in p.weights]) for p in program.products]
        first = len(given.states)
        self.sums = self._started()
        self.buffers = [
            self.sums, *map(self._begun, given.states),
            *(given.known[register - first].transpose(0, 1) for register in program.operands),
            *map(self._empty, program.others),
        ]  # fmt: skip

    def run(self) -> dict[int, Tensor]:
        """Every register for all of time."""
        values = _laid(self.program, self.buffers)
        numbers = {r: self.like.new_tensor(number) for r, number in self.program.constants}
        moments = _Moments(values | numbers, self.steps)
        matrices = iter(self.matrices)
        lines = [
            _function(each, moments)
            if isinstance(each, Elementwise)
            else self._product(each, moments, next(matrices))
            for each in self.program.instructions
        ]
        for t in range(self.steps):
            for line in lines:
                line(t)
        return values

    def _begun(self, state: Tensor) -> Tensor:
        buffer = state.new_empty(self.steps + 1, *state.shape)
        buffer[0] = state
        return buffer

    def _started(self) -> Tensor:
        """What is known of all sums for all of time: the input's products, biases, and the rest."""
        sums, width = self.program.sums, self.shape[-1]
        buffer = self.like.new_empty(self.steps, *self.shape[:-1], len(sums) * width)
        if sums:
            self._fill(buffer.flatten(0, 1), width)
        for place, each in enumerate(sums):
            if each.known is not None:
                part = _columns(buffer, place, place + 1, width)
                part += self.given.known[each.known].transpose(0, 1)
        return buffer

    def _fill(self, buffer: Tensor, width: int) -> None:
        """The biases, and the products of the input, in one for each run of sums."""
        rows, biases, matrices = self.given.rows, self._biases(), iter(self.given.given)
        for met, first, end in self.program.runs:
            part = _columns(buffer, first, end, width)
            bias = _columns(biases, first, end, width)
            if met:
                matrix = _stacked([next(matrices) for _ in range(first, end)])
                torch.addmm(bias, rows, matrix.t(), out=part)
            else:
                part.copy_(bias)

    def _biases(self) -> Tensor:
        """The biases of all sums side by side ``[n · D]``; zero where there is none."""
        left = iter(self.given.biases)
        parts = [
            self.like.new_zeros(self.shape[-1]) if each.bias is None else next(left)
            for each in self.program.sums
        ]
        return torch.cat(parts)

    def _product(self, each: Products, moments: _Moments, matrix: Tensor) -> Line:
        """One register times the matrices one above the other, added to their sums.

        Not by ``addmm_``, whose FLOPs PyTorch's counter does not count.
        """
        output, argument = _together(each, moments, self.sums), moments[each.argument]
        turned = matrix.t()
        return lambda t: torch.addmm(output[t], argument[t], turned, out=output[t])

    def _empty(self, register: int) -> Tensor:
        like = self.like
        kept = self.kept or register == self.program.output
        return like.new_empty(self.steps, *like.shape) if kept else torch.empty_like(like)


def _function(each: Elementwise, moments: Mapping[int, Sequence[Tensor]]) -> Line:
    """One elementwise function into its register."""
    write, output = WRITTEN.get(each.function) or _copied(each.function), moments[each.output]
    first, *others = (moments[register] for register in each.inputs)
    match others:
        case []:
            return lambda t: write(first[t], out=output[t])
        case [second]:
            return lambda t: write(first[t], second[t], out=output[t])
        case _:
            return lambda t: write(first[t], *(other[t] for other in others), out=output[t])


def _copied(function: str) -> Callable[..., Tensor]:
    """A function that cannot write into a tensor."""
    return lambda *inputs, out: out.copy_(FUNCTIONS[function](*inputs))


def _leaky_relu(x: Tensor, out: Tensor) -> Tensor:
    return torch._C._nn.leaky_relu(x, 0.01, out=out)


WRITTEN: dict[str, Callable[..., Tensor]] = {
    "none": lambda x, out: out.copy_(x),
    "leaky_relu": _leaky_relu,
    "lerp": torch.lerp,
    **{
        name: FUNCTIONS[name]
        for name in (
            "add", "sub", "mul", "div", "neg", "sigmoid", "tanh", "exp", "expm1", "log", "cos", "sin",
            "sqrt", "abs", "max", "min",
        )
    },
}  # fmt: skip
"""Functions that write into a tensor."""

SLOPES: dict[str, Callable[[Sequence[Tensor], Tensor], Sequence[Slope]]] = {
    "none": lambda inputs, output: (1,),
    "neg": lambda inputs, output: (-1,),
    "add": lambda inputs, output: (1, 1),
    "sub": lambda inputs, output: (1, -1),
    "mul": lambda inputs, output: (inputs[1], inputs[0]),
    "lerp": lambda inputs, output: (1 - inputs[2], inputs[2], inputs[1] - inputs[0]),
    "sigmoid": lambda inputs, output: (torch.addcmul(output, output, output, value=-1),),
    "tanh": lambda inputs, output: (torch.addcmul(output.new_ones(()), output, output, value=-1),),
    "leaky_relu": lambda inputs, output: (torch.sign(inputs[0]).clamp_(min=0.01),),
}
"""The slopes of what cells are mostly made of; those of other functions are asked of autograd."""


def _slopes(function: str, inputs: Sequence[Tensor], output: Tensor) -> Sequence[Slope]:
    """The derivative in each input, for all of time."""
    if function in SLOPES:
        return SLOPES[function](inputs, output)
    with torch.enable_grad():
        leaves = [value.detach().expand_as(output).requires_grad_() for value in inputs]
        value = FUNCTIONS[function](*leaves)
        return torch.autograd.grad(value, leaves, torch.ones_like(value))


class _Reverse:
    """The gradients of a call: buffers that lie as those of the values do.

    A register's gradient is written by the last instruction that reads it, and added to by the others.
    What the call is given from behind, and what the next step sends back, stands in it beforehand.
    """

    def __init__(self, program: Program, buffers: Sequence[Tensor]) -> None:
        self.program, self.like = program, buffers[1][0]
        self.steps, self.width = buffers[0].shape[0], self.like.shape[-1]
        numbers = {r: self.like.new_tensor(number) for r, number in program.constants}
        self.values = _laid(program, buffers) | numbers
        self.buffers = self._buffers()
        self.sums = self.buffers[0]
        self.whole = _laid(program, self.buffers)
        self.moments = _Moments(self.whole, self.steps)
        self.filled = {*range(len(program.states)), *program.ends, program.output}

    def run(self, matrices: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        """Fill the buffers, from the gradients of the output ``[B, T, D]`` and of the last states."""
        output, *after = gradients
        for buffer, gradient in zip(self.buffers[1:], after, strict=False):
            if gradient is not None:
                buffer[-1] = gradient
        if output is not None:
            self.whole[self.program.output] += output.transpose(0, 1)
        left = list(matrices)
        lines: list[Line] = []
        for each in reversed(self.program.instructions):
            matrix = left.pop() if isinstance(each, Products) else None
            lines += self._lines(each, matrix)
        for t in reversed(range(self.steps)):
            for line in lines:
                line(t)

    def x(self, given: Sequence[Tensor]) -> Tensor | None:
        """With respect to the input."""
        matrices, found = iter(given), None
        for met, first, end in self.program.runs:
            if met:
                matrix = _stacked([next(matrices) for _ in range(first, end)])
                gradient = _columns(self.sums.flatten(0, 1), first, end, self.width)
                found = gradient @ matrix if found is None else torch.addmm(found, gradient, matrix)
        return None if found is None else found.view(*self.sums.shape[:2], -1).transpose(0, 1)

    def states(self) -> list[Tensor]:
        """With respect to the states before the first step."""
        return [buffer[0] for buffer in self.buffers[1 : 1 + len(self.program.states)]]

    def known(self) -> list[Tensor | None]:
        """With respect to the known values; the start of a sum has the gradient of that."""
        first = len(self.program.states)
        found = {register - first: self.whole[register] for register in self.program.operands}
        found |= {s.known: self.whole[s.output] for s in self.program.sums if s.known is not None}
        return [found[place].transpose(0, 1) for place in range(len(self.program.known))]

    def weights(self, wanted: Sequence[bool]) -> list[Tensor | None]:
        """With respect to the weights: one product for all of time and for all of one argument."""
        found: list[Tensor | None] = []
        for each in self.program.products:
            count = len(each.weights)
            if any(wanted[len(found) : len(found) + count]):
                argument = self.values[each.argument].flatten(0, 1)
                found += self._against(argument, each.first, each.first + count)
            else:
                found += [None] * count
        return found

    def given(self, x: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """With respect to the weights of the input."""
        if not any(wanted):
            return [None] * len(wanted)
        rows = x.transpose(0, 1).reshape(-1, x.shape[-1])
        runs = ((first, end) for met, first, end in self.program.runs if met)
        return [part for run in runs for part in self._against(rows, *run)]

    def biases(self, wanted: Sequence[bool]) -> list[Tensor | None]:
        """With respect to the biases of the sums."""
        if not any(wanted):
            return [None] * len(wanted)
        parts = self.sums.sum((0, 1)).chunk(len(self.program.sums))
        return [p for p, s in zip(parts, self.program.sums, strict=True) if s.bias is not None]

    def _against(self, rows: Tensor, first: int, end: int) -> Sequence[Tensor]:
        """The gradient of the weights that make some of the sums of ``rows [T · B, …]``."""
        gradient = _columns(self.sums.flatten(0, 1), first, end, self.width)
        return (gradient.t() @ rows).chunk(end - first)

    def _buffers(self) -> list[Tensor]:
        """Zeros where something is added to; a register that only a step reads has room for one."""
        program, shape, like = self.program, self.like.shape, self.like
        sums = {each.output for each in program.sums}
        all_written = program.reached >= sums and program.output not in sums
        make = like.new_empty if all_written else like.new_zeros
        found = [make(self.steps, *shape[:-1], len(sums) * shape[-1])]
        found += [like.new_zeros(self.steps + 1, *shape) for _ in program.states]
        found += [like.new_zeros(self.steps, *shape) for _ in program.operands]
        for register in program.others:
            kept = register == program.output
            found.append(like.new_zeros(self.steps, *shape) if kept else torch.empty_like(like))
        return found

    def _lines(self, each: Instruction, matrix: Tensor | None) -> list[Line]:
        """What sends the gradient of an instruction's outputs to its inputs."""
        if self.program.reached.isdisjoint(outputs(each)):
            return []
        if isinstance(each, Products):
            assert matrix is not None
            return [self._product(each, matrix)]
        values = [self.values[register] for register in each.inputs]
        slopes = _slopes(each.function, values, self.values[each.output])
        gradient = self.moments[each.output]
        return [
            self._sent(register, gradient, slope)
            for register, slope in zip(each.inputs, slopes, strict=True)
            if register in self.whole
        ]

    def _product(self, each: Products, matrix: Tensor) -> Line:
        gradient = _together(each, self.moments, self.sums)
        target, filled = self._target(each.argument)
        if filled:
            return lambda t: torch.addmm(target[t], gradient[t], matrix, out=target[t])
        return lambda t: torch.mm(gradient[t], matrix, out=target[t])

    def _sent(self, register: int, gradient: Sequence[Tensor], slope: Slope) -> Line:
        target, filled = self._target(register)
        if isinstance(slope, int):
            if filled:
                return lambda t: target[t].add_(gradient[t], alpha=slope)
            write = WRITTEN["none" if slope == 1 else "neg"]
            return lambda t: write(gradient[t], out=target[t])
        factor = _moments(slope, self.steps)
        if filled:
            return lambda t: target[t].addcmul_(gradient[t], factor[t])
        return lambda t: torch.mul(gradient[t], factor[t], out=target[t])

    def _target(self, register: int) -> tuple[Sequence[Tensor], bool]:
        """Where the gradient of a register goes, and whether something stands there."""
        filled = register in self.filled
        self.filled.add(register)
        return self.moments[register], filled
