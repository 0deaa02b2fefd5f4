"""The steps of a cell forwards and backwards, without a graph of their operations.

Autograd would keep a node for every operation of every step. Here the forward pass writes each register
into one buffer with time first, and the backward pass runs the instructions in reverse. All that does not
wait for the gradient of the next step is done for all of time at once: the slopes of elementwise
functions before the steps, the gradients of weights behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def recurrence(
    program: Program,
    steps: int,
    states: Sequence[Tensor],
    known: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run the steps of a cell.

    Args:
        program: the step.
        steps: how many.
        states: before the first step ``[B, D]``.
        known: ``[B, T, D]`` each.
        weights: ``[D, D]`` each, in the order of the program's products.

    Returns:
        the output ``[B, T, D]``, and the states behind the last step ``[B, D]``.
    """
    over_time = [value.transpose(0, 1) for value in known]
    output, *after = _Recurrence.apply(  # type: ignore[no-untyped-call]
        program, steps, torch.is_grad_enabled(), *states, *over_time, *weights
    )
    return output, tuple(after)


class _Recurrence(torch.autograd.Function):
    """See :func:`recurrence`; ``known`` with time first."""

    @staticmethod
    def forward(
        ctx: Any, program: Program, steps: int, kept: bool, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        forward = _Forward(program, steps, tensors, kept and any(ctx.needs_input_grad))
        values = forward.run()
        ctx.program, ctx.steps = program, steps
        ctx.save_for_backward(*forward.matrices, *forward.buffers)
        output = values[program.output].transpose(0, 1).contiguous()
        return output, *(values[end][-1].clone() for end in program.ends)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        program: Program = ctx.program
        count = len(program.products)
        reverse = _Reverse(program, ctx.steps, ctx.saved_tensors[count:])
        reverse.run(ctx.saved_tensors[:count], gradients)
        first = len(ctx.needs_input_grad) - len(program.weights)
        weights = reverse.weights(ctx.needs_input_grad[first:])
        return None, None, None, *reverse.states(), *reverse.known(), *weights


def _laid(program: Program, buffers: Sequence[Tensor]) -> dict[int, Tensor]:
    """Each register for all of time ``[T, B, D]`` as it lies in the buffers.

    First a buffer a state, ``[T + 1, B, D]``: before every step, and behind the last. Then one for each
    known value that is read, one for each instruction of products with its outputs side by side, and one
    for each other register; ``[B, D]`` where no step's value is kept.
    """
    found: dict[int, Tensor] = {}
    rest = iter(buffers)
    for state, end in enumerate(program.ends):
        whole = next(rest)
        found[state], found[end] = whole[:-1], whole[1:]
    for register in program.operands:
        found[register] = next(rest)
    for each in program.products:
        found |= dict(zip(each.outputs, next(rest).chunk(len(each.outputs), -1), strict=True))
    return found | dict(zip(program.others, rest, strict=True))


def _stacked(weights: Sequence[Tensor]) -> Tensor:
    """Weights ``[D, D]`` one above the other."""
    return weights[0] if len(weights) == 1 else torch.cat(list(weights))


def _moments(value: Tensor, steps: int) -> Sequence[Tensor]:
    """A value at each step; a number, or what is not kept, is the same tensor at every one."""
    return value.unbind(0) if value.dim() == 3 else [value] * steps


class _Forward:
    """The buffers of a call, and what fills them.

    Args:
        program: the step.
        steps: how many.
        tensors: states, known values and weights.
        kept: whether values are wanted afterwards; else a step writes over those of the one before.
    """

    def __init__(self, program: Program, steps: int, tensors: Sequence[Tensor], kept: bool) -> None:
        self.program, self.steps, self.kept = program, steps, kept
        states, known = len(program.states), len(program.known)
        self.given = tensors[:states]
        self.known = tensors[states : states + known]
        left = iter(tensors[states + known :])
        self.matrices = [_stacked([next(left) for _ in p.weights]) for p in program.products]
        self.buffers = [
            *map(self._begun, self.given),
            *(self.known[register - states] for register in program.operands),
            *map(self._started, program.products), *map(self._empty, program.others),
        ]  # fmt: skip

    def run(self) -> dict[int, Tensor]:
        """Every register for all of time."""
        values = _laid(self.program, self.buffers)
        numbers = {r: self.given[0].new_tensor(number) for r, number in self.program.constants}
        moments = {r: _moments(v, self.steps) for r, v in (values | numbers).items()}
        sides = iter(zip(self.matrices, self._side_by_side(), strict=True))
        lines = [
            _function(each, moments)
            if isinstance(each, Elementwise)
            else _products(moments[each.argument], *next(sides))
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

    def _started(self, products: Products) -> Tensor:
        """What is known of each ``linear``, side by side; the products are added to it."""
        parts = [
            self.given[0].new_zeros(()).expand(self.steps, *self.given[0].shape)
            if start is None
            else self.known[start]
            for start in products.starts
        ]
        return torch.cat(parts, -1)

    def _side_by_side(self) -> Sequence[Tensor]:
        """The buffers of the products."""
        first = len(self.given) + len(self.program.operands)
        return self.buffers[first : first + len(self.program.products)]

    def _empty(self, register: int) -> Tensor:
        like = self.given[0]
        kept = self.kept or register == self.program.output
        return like.new_empty(self.steps, *like.shape) if kept else torch.empty_like(like)


def _products(argument: Sequence[Tensor], matrix: Tensor, buffer: Tensor) -> Line:
    """One register times the matrices side by side, added to what stands in the buffer."""
    turned, output = matrix.t(), buffer.unbind(0)
    return lambda t: _add_product(output[t], argument[t], turned)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``total += a b``; not by ``addmm_``, whose FLOPs PyTorch's counter does not count."""
    return torch.addmm(total, a, b, out=total)


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
    "leaky_relu": lambda inputs, output: (
        torch.where(inputs[0] > 0, output.new_ones(()), output.new_tensor(0.01)),
    ),
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

    def __init__(self, program: Program, steps: int, buffers: Sequence[Tensor]) -> None:
        self.program, self.steps = program, steps
        self.like = buffers[0][0]
        numbers = {r: self.like.new_tensor(number) for r, number in program.constants}
        self.values = _laid(program, buffers) | numbers
        self.buffers = self._buffers()
        self.whole = _laid(program, self.buffers)
        self.moments = {r: _moments(value, steps) for r, value in self.whole.items()}
        self.filled = {*range(len(program.states)), *program.ends, program.output}

    def run(self, matrices: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Fill the buffers, from the gradients of the output ``[B, T, D]`` and of the last states."""
        output, *after = gradients
        for buffer, gradient in zip(self.buffers, after, strict=False):
            buffer[-1] = gradient
        self.whole[self.program.output] += output.transpose(0, 1)
        left = list(matrices)
        lines: list[Line] = []
        for each in reversed(self.program.instructions):
            matrix = left.pop() if isinstance(each, Products) else None
            lines += self._lines(each, matrix)
        for t in reversed(range(self.steps)):
            for line in lines:
                line(t)

    def states(self) -> list[Tensor]:
        """With respect to the states before the first step."""
        return [self.buffers[state][0] for state in range(len(self.program.states))]

    def known(self) -> list[Tensor | None]:
        """With respect to the known values; a start has the gradient of its product."""
        first = len(self.program.states)
        found = {register - first: self.whole[register] for register in self.program.operands}
        for each in self.program.products:
            for start, register in zip(each.starts, each.outputs, strict=True):
                if start is not None:
                    found[start] = self.whole[register]
        return [found.get(place) for place in range(len(self.program.known))]

    def weights(self, wanted: Sequence[bool]) -> list[Tensor | None]:
        """With respect to the weights: one product for all of time and for all of one argument."""
        found: list[Tensor | None] = []
        for place, each in enumerate(self.program.products):
            count = len(each.weights)
            if any(wanted[len(found) : len(found) + count]):
                gradient = self.buffers[self._first_products + place].flatten(0, 1)
                whole = gradient.t() @ self.values[each.argument].flatten(0, 1)
                found += whole.chunk(count)
            else:
                found += [None] * count
        return found

    @property
    def _first_products(self) -> int:
        return len(self.program.states) + len(self.program.operands)

    def _buffers(self) -> list[Tensor]:
        """Zeros where something is added to; a register that only a step reads has room for one."""
        program, shape, like = self.program, self.like.shape, self.like
        found = [like.new_zeros(self.steps + 1, *shape) for _ in program.states]
        found += [like.new_zeros(self.steps, *shape) for _ in program.operands]
        for each in program.products:
            all_written = (
                program.reached.issuperset(each.outputs) and program.output not in each.outputs
            )
            make = like.new_empty if all_written else like.new_zeros
            found.append(make(self.steps, *shape[:-1], len(each.outputs) * shape[-1]))
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
            place = self._first_products + self.program.products.index(each)
            return [self._product(each.argument, self.buffers[place].unbind(0), matrix)]
        values = [self.values[register] for register in each.inputs]
        slopes = _slopes(each.function, values, self.values[each.output])
        gradient = self.moments[each.output]
        return [
            self._sent(register, gradient, slope)
            for register, slope in zip(each.inputs, slopes, strict=True)
            if register in self.moments
        ]

    def _product(self, register: int, gradient: Sequence[Tensor], matrix: Tensor) -> Line:
        target, filled = self._target(register)
        if filled:
            return lambda t: _add_product(target[t], gradient[t], matrix)
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
