"""A step of a sequential cell as a list of instructions over registers.

What does not depend on the state is *known* for all of time before the first step. The rest is products of
one register with all the weights it meets, and elementwise functions. Both know their gradient, so the
steps can be run backwards without a graph of every operation of every step: see ``nn/recurrence.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

from archdsl.blocks.cell_analysis import Analysis, Linear, Product
from archdsl.blocks.equations import (
    ARITHMETIC,
    ELEMENTWISE,
    Apply,
    Constant,
    Expression,
    Name,
    walk,
)


@dataclass(frozen=True)
class Elementwise:
    """``output = function(inputs)``; inputs and output are numbers of registers.

    ``lerp(a, b, z)`` is ``z * b + (1 - z) * a``, the update of a gated cell.
    """

    function: str
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class Products:
    """One register times several weights: ``outputs_i = argument W_iᵀ + start_i``.

    Args:
        argument: the register.
        weights: names of the parameters.
        outputs: a register for each.
        starts: for each, which of ``Program.known`` is added; ``None`` adds nothing.
    """

    argument: int
    weights: tuple[str, ...]
    outputs: tuple[int, ...]
    starts: tuple[int | None, ...]


Instruction = Elementwise | Products


@dataclass(frozen=True)
class Program:
    """A step of a cell.

    Registers are numbered: the states before the step, what is known, constants, then what each
    instruction gives.

    Args:
        states: their names; register ``i`` holds state ``i`` before the step.
        known: what is the same whatever the state: an expression, or a ``linear`` that stands for
            the sum of its parts that do not depend on the state.
        constants: registers that hold a number.
        instructions: in order.
        ends: for each state, the register with its value behind the step; each is another one.
        output: the register with the output.
    """

    states: tuple[str, ...]
    known: tuple[Expression, ...]
    constants: tuple[tuple[int, float], ...]
    instructions: tuple[Instruction, ...]
    ends: tuple[int, ...]
    output: int

    @cached_property
    def products(self) -> tuple[Products, ...]:
        """The instructions with weights."""
        return tuple(each for each in self.instructions if isinstance(each, Products))

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """The names of their parameters."""
        return tuple(name for each in self.products for name in each.weights)

    @cached_property
    def operands(self) -> tuple[int, ...]:
        """The registers of what is known, but for what is only where a product starts."""
        starts = {start for each in self.products for start in each.starts}
        first = len(self.states)
        return tuple(first + place for place in range(len(self.known)) if place not in starts)

    @cached_property
    def others(self) -> tuple[int, ...]:
        """The registers of elementwise functions that are no state's end."""
        made = (each.output for each in self.instructions if isinstance(each, Elementwise))
        return tuple(register for register in made if register not in self.ends)

    @cached_property
    def reached(self) -> frozenset[int]:
        """The registers that the output or a state behind the step depends on."""
        found = {*self.ends, self.output}
        for each in reversed(self.instructions):
            if not found.isdisjoint(outputs(each)):
                found.update(inputs(each))
        return frozenset(found)


def inputs(instruction: Instruction) -> tuple[int, ...]:
    """The registers that an instruction reads."""
    if isinstance(instruction, Elementwise):
        return instruction.inputs
    return (instruction.argument,)


def outputs(instruction: Instruction) -> tuple[int, ...]:
    """The registers that an instruction writes."""
    return (instruction.output,) if isinstance(instruction, Elementwise) else instruction.outputs


@lru_cache(maxsize=256)
def program(analysis: Analysis) -> Program | None:
    """The step of a cell, shared by all layers that hold the same equations.

    ``None`` where they hold more than products and elementwise functions.
    """
    bound = [value for value in analysis.assignments.values() if analysis.depends(value)]
    plain = all(_plain(part, analysis) for value in bound for part in walk(value))
    return _Builder(analysis).program() if plain else None


def _plain(part: Expression, analysis: Analysis) -> bool:
    """Whether an expression is one that an instruction can be, or is known."""
    if not isinstance(part, Apply) or not analysis.depends(part):
        return True
    if part.function != "linear":
        return part.function in (*ARITHMETIC, *ELEMENTWISE)
    return Product(part, 0, "").whole


def _rest(gate: Expression) -> Expression:
    """One minus a gate."""
    return Apply("sub", (Constant(Fraction(1)), gate))


class _Builder:
    """Writes the instructions of a step."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.linears = {linear.call: linear for linear in analysis.linears}
        self.known = self._known()
        self.registers: dict[Expression, int] = {
            Name(state): number for number, state in enumerate(analysis.states)
        }
        first = len(analysis.states)
        whole = {v: place for v, place in self.known.items() if not analysis.depends(v)}
        self.registers |= {value: first + place for value, place in whole.items()}
        self.count = first + len(self.known)
        self.constants: list[tuple[int, float]] = []
        self.instructions: list[Instruction] = []
        self.products: dict[str, int] = {}
        self.sharing = self._sharing()

    def program(self) -> Program:
        """The whole step."""
        output = self.analysis.output
        final = {
            name: self.register(Name(self.analysis.final[name]))
            for name in (*self.analysis.states, output)
        }
        ends: list[int] = []
        made = {each.output for each in self.instructions if isinstance(each, Elementwise)}
        for state in self.analysis.states:
            free = final[state] in made and final[state] not in ends
            ends.append(final[state] if free else self._elementwise("none", (final[state],)))
        return Program(
            self.analysis.states, tuple(self.known), tuple(self.constants), tuple(self.instructions),
            tuple(ends), final[output],
        )  # fmt: skip

    def register(self, expression: Expression) -> int:
        """Where the value of an expression stands, with the instructions it takes."""
        if expression not in self.registers:
            self.registers[expression] = self._written(expression)
        return self.registers[expression]

    def _written(self, expression: Expression) -> int:
        match expression:
            case Constant(value):
                self.constants.append((self._new(), float(value)))
                return self.constants[-1][0]
            case Name(name):
                return self.register(self.analysis.assignments[name])
            case Apply("linear"):
                return self._linear(self.linears[expression])
            case Apply(
                "add", (Apply("mul", (gate, new)) as some, Apply("mul", (rest, old)) as more)
            ) if (
                rest == _rest(gate) and self.analysis.depends(some) and self.analysis.depends(more)
            ):
                return self._elementwise("lerp", tuple(map(self.register, (old, new, gate))))
            case Apply(function, arguments):
                return self._elementwise(function, tuple(map(self.register, arguments)))

    def _elementwise(self, function: str, inputs: tuple[int, ...]) -> int:
        output = self._new()
        self.instructions.append(Elementwise(function, inputs, output))
        return output

    def _linear(self, linear: Linear) -> int:
        """The sum of the products that depend on the state; the rest is the start of the first."""
        total, *others = (self._product(product) for product in self._bound(linear))
        for other in others:
            total = self._elementwise("add", (total, other))
        return total

    def _product(self, product: Product) -> int:
        """One product, with all others of the same argument."""
        if product.name not in self.products:
            argument, together = self.register(product.argument), self.sharing[product.argument]
            outputs = tuple(self._new() for _ in together)
            starts = tuple(self._start(each) for each in together)
            names = tuple(each.name for each in together)
            self.instructions.append(Products(argument, names, outputs, starts))
            self.products |= dict(zip(names, outputs, strict=True))
        return self.products[product.name]

    def _start(self, product: Product) -> int | None:
        """What is known of its ``linear``, where it is the first product of it."""
        first = self._bound(self.linears[product.call])[0] == product
        return self.known.get(product.call) if first else None

    def _new(self) -> int:
        self.count += 1
        return self.count - 1

    def _bound(self, linear: Linear) -> list[Product]:
        return [each for each in linear.products if self.analysis.depends(each.argument)]

    def _sharing(self) -> dict[Expression, list[Product]]:
        """The products of each argument that depends on the state."""
        found: dict[Expression, list[Product]] = {}
        for linear in self.linears.values():
            for product in self._bound(linear):
                found.setdefault(product.argument, []).append(product)
        return found

    def _known(self) -> dict[Expression, int]:
        """Every known value that the steps read, by its place."""
        found: dict[Expression, None] = {}
        for value in self.analysis.assignments.values():
            if self.analysis.depends(value):
                self._find(value, found)
        for name in (*self.analysis.states, self.analysis.output):
            self._find(Name(self.analysis.final[name]), found)
        return {value: place for place, value in enumerate(found)}

    def _find(self, value: Expression, found: dict[Expression, None]) -> None:
        """Add the largest known parts of a value, and the ``linear``s with a known part."""
        if isinstance(value, Constant) or value in found:
            return
        if not self.analysis.depends(value):
            found.setdefault(value)
        elif isinstance(value, Apply) and value.function == "linear":
            linear = self.linears[value]
            if linear.bias is not None or len(self._bound(linear)) < len(linear.products):
                found.setdefault(value)
            for product in self._bound(linear):
                self._find(product.argument, found)
        elif isinstance(value, Apply):
            for argument in value.arguments:
                self._find(argument, found)
