"""A step of a sequential cell as a list of instructions over registers.

What does not depend on the state is *known* for all of time before the first step. The rest is products of
one register with all the weights it meets, added to the sums they belong to, and elementwise functions. Both
know their gradient, so the steps can be run backwards without a graph of every operation of every step: see
``nn/recurrence.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
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
class Sum:
    """A ``linear`` that depends on the state: what is known of it, to which products are added.

    Args:
        output: its register.
        weight: the parameter that meets the cell's input as it is, if there is one.
        bias: a parameter, if it has one.
        known: which of ``Program.known`` are its other parts that do not depend on the state.
    """

    output: int
    weight: str | None
    bias: str | None
    known: int | None


@dataclass(frozen=True)
class Products:
    """One register times several weights: ``sum_i += argument W_iᵀ``.

    Args:
        argument: the register.
        weights: names of the parameters.
        first: the first of the sums, which follow each other in ``Program.sums``.
        outputs: the register of each sum.
    """

    argument: int
    weights: tuple[str, ...]
    first: int
    outputs: tuple[int, ...]


Instruction = Elementwise | Products


@dataclass(frozen=True)
class Program:
    """A step of a cell.

    Registers are numbered: the states before the step, what is known, then constants, sums, and what
    each instruction gives.

    Args:
        states: their names; register ``i`` holds state ``i`` before the step.
        known: what is the same whatever the state: an expression, or the ``linear`` of a sum, which
            stands for its :attr:`Sum.known`.
        sums: each ``linear`` that depends on the state.
        constants: registers that hold a number.
        instructions: in order.
        ends: for each state, the register with its value behind the step; each is another one.
        output: the register with the output.
    """

    states: tuple[str, ...]
    known: tuple[Expression, ...]
    sums: tuple[Sum, ...]
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
    def given(self) -> tuple[str, ...]:
        """The names of the parameters that meet the cell's input in sums."""
        return tuple(each.weight for each in self.sums if each.weight is not None)

    @cached_property
    def biases(self) -> tuple[str, ...]:
        """The names of the biases of sums."""
        return tuple(each.bias for each in self.sums if each.bias is not None)

    @cached_property
    def runs(self) -> tuple[tuple[bool, int, int], ...]:
        """Sums side by side that all have a weight of the input, or all have none: the first, the end."""
        found: list[tuple[bool, int, int]] = []
        for place, each in enumerate(self.sums):
            has = each.weight is not None
            more = bool(found) and found[-1][0] == has
            found.append((has, found.pop()[1] if more else place, place + 1))
        return tuple(found)

    @cached_property
    def operands(self) -> tuple[int, ...]:
        """The registers of what is known, but for what is only the start of a sum."""
        starts = {each.known for each in self.sums}
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
        self.sums: dict[Apply, Sum] = {}
        self.multiplied: set[Expression] = set()
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
            self.analysis.states, tuple(self.known), tuple(self.sums.values()), tuple(self.constants),
            tuple(self.instructions), tuple(ends), final[output],
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
        """The register of a sum, behind all its products that depend on the state."""
        for product in self._bound(linear):
            if product.argument not in self.multiplied:
                self._multiply(product.argument)
        return self.sums[linear.call].output

    def _multiply(self, argument: Expression) -> None:
        """One argument times all weights it meets; one instruction where their sums are side by side."""
        register = self.register(argument)
        self.multiplied.add(argument)
        together = self.sharing[argument]
        for product in together:
            if product.call not in self.sums:
                self.sums[product.call] = self._begun(self.linears[product.call])
        places = {call: place for place, call in enumerate(self.sums)}
        for first, run in side_by_side([(places[each.call], each) for each in together]):
            outputs = tuple(self.sums[each.call].output for each in run)
            names = tuple(each.name for each in run)
            self.instructions.append(Products(register, names, first, outputs))

    def _begun(self, linear: Linear) -> Sum:
        given = self.analysis.given(linear)
        name = None if given is None else given.name
        return Sum(self._new(), name, linear.bias, self.known.get(linear.call))

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
            if self.analysis.rest(linear):
                found.setdefault(value)
            for product in self._bound(linear):
                self._find(product.argument, found)
        elif isinstance(value, Apply):
            for argument in value.arguments:
                self._find(argument, found)


def side_by_side(placed: Sequence[tuple[int, Product]]) -> list[tuple[int, list[Product]]]:
    """Products with the places of their sums, as runs without gaps: the first place, and the products."""
    found: list[tuple[int, list[Product]]] = []
    for place, product in sorted(placed, key=lambda each: each[0]):
        if found and place == found[-1][0] + len(found[-1][1]):
            found[-1][1].append(product)
        else:
            found.append((place, [product]))
    return found
