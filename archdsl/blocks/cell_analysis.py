"""What the equations of a cell are: who depends on the state, and whether the state is a scan.

The equations are put in single-assignment form: a state's name means its previous value, and a name
with a prime its value at this step. Everything here is symbolic and free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import count, permutations

from archdsl.blocks.cell_rewriting import ONE, ZERO, calls, combined, marked, renamed
from archdsl.blocks.equations import (
    INPUTS,
    Apply,
    Assignment,
    Constant,
    Expression,
    Name,
    Setting,
    text,
    walk,
)

CHANNEL, COPY = frozenset(("channel",)), frozenset(("copy",))


@dataclass(frozen=True)
class Product:
    """One weight of one ``linear(…)``: of its argument number ``index`` in the equation of ``target``."""

    call: Apply
    index: int
    name: str

    @property
    def argument(self) -> Expression:
        """What it multiplies."""
        return self.call.arguments[self.index]

    def setting(self, name: str, default: Setting = False) -> Setting:
        """A named setting of its ``linear``."""
        return self._settings.get(name, default)

    @cached_property
    def _settings(self) -> dict[str, Setting]:
        return dict(self.call.options)

    @property
    def diagonal(self) -> bool:
        """Whether it is one weight a channel."""
        return self.setting("diagonal") is True

    @property
    def given(self) -> bool:
        """Whether it multiplies what the cell is given, as it is."""
        return isinstance(self.argument, Name) and self.argument.name in INPUTS

    @property
    def whole(self) -> bool:
        """Whether it is one matrix to all channels, with nothing behind it."""
        return not any(map(self.setting, ("diagonal", "rank", "copies", "norm")))


@dataclass(frozen=True)
class Linear:
    """One ``linear(…)`` of the equations, with the names of its weights."""

    call: Apply
    products: tuple[Product, ...]
    bias: str | None


@dataclass(frozen=True)
class Learned:
    """One ``parameter(…)`` of the equations: its name, and the equation of its initial values."""

    call: Apply
    name: str

    @property
    def start(self) -> Expression:
        """Zero where nothing is written."""
        return self.call.arguments[0] if self.call.arguments else ZERO

    @property
    def copies(self) -> bool:
        """Whether it is a number a channel and copy."""
        return dict(self.call.options).get("copies", False) is True


@dataclass(frozen=True)
class Affine:
    """``factor ⊙ h + rest`` of a state ``h``, with neither part depending on it."""

    factor: Expression
    rest: Expression


@dataclass(frozen=True)
class Scan:
    """One state that is a real scan, ``h = factor ⊙ h + rest``; or two that are a complex one.

    ``(u, w)`` with ``u = a ⊙ u - b ⊙ w + p`` and ``w = b ⊙ u + a ⊙ w + q`` are the real and imaginary
    parts of ``h = (a + ib) ⊙ h + p + iq``.
    """

    states: tuple[str, ...]
    factor: tuple[Expression, ...]
    rest: tuple[Expression, ...]


STARTS = ("init", "bias_init", "gain")
"""Options of a ``linear`` that say how it starts, and nothing about what it computes."""


def analysed(states: tuple[str, ...], output: str, equations: tuple[Assignment, ...]) -> Analysis:
    """The analysis of a cell, shared by all layers and operations that compute the same.

    It holds nothing of how weights start: see :func:`starts`.
    """
    return _analysed(states, output, tuple(map(_bare, equations)))


@lru_cache(maxsize=256)
def _analysed(states: tuple[str, ...], output: str, equations: tuple[Assignment, ...]) -> Analysis:
    return Analysis(states, output, equations)


@lru_cache(maxsize=1024)
def _bare(equation: Assignment) -> Assignment:
    return Assignment(equation.target, _without_start(equation.value))


def _without_start(expression: Expression) -> Expression:
    if not isinstance(expression, Apply):
        return expression
    arguments = tuple(map(_without_start, expression.arguments))
    options = tuple(each for each in expression.options if each[0] not in STARTS)
    return Apply(expression.function, arguments, options)


def starts(equations: Sequence[Assignment]) -> list[dict[str, Setting]]:
    """The options of each ``linear`` of some equations, in the order of :attr:`Analysis.linears`."""
    found = (call for each in equations for call in calls(each.value))
    return [dict(call.options) for call in found if call.function == "linear"]


@dataclass(frozen=True)
class Analysis:
    """The single-assignment form of a cell's equations, and what follows from it.

    Args:
        states: names of the states.
        output: name of the output.
        equations: the cell's equations in order.
    """

    states: tuple[str, ...]
    output: str
    equations: tuple[Assignment, ...]

    @cached_property
    def assignments(self) -> dict[str, Expression]:
        """Value of each single-assignment name, in order; what owns weights is marked as its own."""
        current = {name: name for name in (*INPUTS, *self.states)}
        found: dict[str, Expression] = {}
        marks = count()
        for equation in self.equations:
            value = marked(renamed(equation.value, current), marks)
            name = equation.target + ("'" if equation.target in self.states else "")
            while name in found:
                name += "'"
            found[name] = value
            current[equation.target] = name
        return found

    @cached_property
    def final(self) -> dict[str, str]:
        """For each state and the output, the name of its value at the end of a step."""
        last: dict[str, str] = {name: name for name in self.states}
        for name in self.assignments:
            last[name.rstrip("'")] = name
        return last

    @cached_property
    def owners(self) -> tuple[Linear | Learned, ...]:
        """Every function with weights of its own, named after the equation it stands in."""
        found: list[Linear | Learned] = []
        taken: set[str] = set()
        for target, value in self.assignments.items():
            for call in calls(value):
                if call.function == "linear":
                    found.append(_named(call, target.rstrip("'"), taken))
                elif call.function == "parameter":
                    found.append(_learned(call, target.rstrip("'"), taken))
        return tuple(found)

    @cached_property
    def linears(self) -> tuple[Linear, ...]:
        """Every ``linear(…)``."""
        return tuple(owner for owner in self.owners if isinstance(owner, Linear))

    @cached_property
    def vectors(self) -> tuple[Learned, ...]:
        """Every ``parameter(…)``, each behind those its start reads."""
        return tuple(owner for owner in self.owners if isinstance(owner, Learned))

    @cached_property
    def free(self) -> tuple[str, ...]:
        """The assigned names that do not depend on a state."""
        return tuple(n for n, value in self.assignments.items() if not self.depends(value))

    @cached_property
    def bound(self) -> tuple[str, ...]:
        """The assigned names that do."""
        return tuple(name for name in self.assignments if name not in self.free)

    @cached_property
    def sums(self) -> tuple[tuple[Linear, tuple[Product, ...]], ...]:
        """Every ``linear`` that depends on a state, with the products of it that do not."""
        return tuple(
            (linear, tuple(p for p in linear.products if not self.depends(p.argument)))
            for linear in self.linears
            if self.depends(linear.call)
        )

    @cached_property
    def of_input(self) -> tuple[Product, ...]:
        """The whole matrices that ``x`` itself meets."""
        found = (product for linear in self.linears for product in linear.products)
        return tuple(p for p in found if p.argument == Name("x") and p.whole)

    def settle(self) -> None:
        """Find what steps ask for: ``torch.compile`` cannot trace the lock of a ``cached_property``."""
        _ = (
            self.final,
            self.vectors,
            self.bound,
            self.sums,
            self.of_input,
            self._dependent,
            self._sources,
        )

    def given(self, linear: Linear) -> Product | None:
        """The product of ``x`` itself with a whole matrix in a ``linear``, if there is one."""
        whole = (p for p in linear.products if p.argument == Name("x") and p.whole)
        return next(whole, None)

    def rest(self, linear: Linear) -> tuple[Product, ...]:
        """The products of a ``linear`` that do not depend on a state, but for that one."""
        apart = self.given(linear)
        free = (p for p in linear.products if not self.depends(p.argument))
        return tuple(p for p in free if p is not apart)

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """Every constant, as tensors take it."""
        parts = (part for value in self.assignments.values() for part in walk(value))
        return tuple(part.number for part in parts if isinstance(part, Constant))

    @cached_property
    def _sources(self) -> dict[str, frozenset[str]]:
        """For each assigned name, what it depends on that is not assigned: ``x`` and states."""
        found: dict[str, frozenset[str]] = {}
        for name, value in self.assignments.items():
            found[name] = _sources(value, found)
        return found

    def depends(self, expression: Expression, on: Sequence[str] | None = None) -> bool:
        """Whether a value depends on previous states (or on those given), through assignments too."""
        if on is not None:
            return not _sources(expression, self._sources).isdisjoint(on)
        if isinstance(expression, Constant):
            return False
        if expression not in self._dependent:
            self._dependent[expression] = (
                any(map(self.depends, expression.arguments))
                if isinstance(expression, Apply)
                else not _sources(expression, self._sources).isdisjoint(self.states)
            )
        return self._dependent[expression]

    @cached_property
    def _dependent(self) -> dict[Expression, bool]:
        """Whether values depend on previous states, as far as it was asked: every step asks again."""
        return {}

    def timeless(self, expression: Expression) -> bool:
        """Whether a value is the same at every step: made of numbers and parameters."""
        return not _sources(expression, self._sources)

    @cached_property
    def multiplies(self) -> bool:
        """Whether the output is reached through a product of two values that change with the token."""
        return self._multiplies(Name(self.final[self.output]), set())

    def _multiplies(self, expression: Expression, seen: set[str]) -> bool:
        match expression:
            case Name(name) if name in self.assignments and name not in seen:
                seen.add(name)
                return self._multiplies(self.assignments[name], seen)
            case Apply("mul", arguments) if not any(map(self.timeless, arguments)):
                return True
            case Apply("div", (_, divisor)) if not self.timeless(divisor):
                return True
            case Apply(_, arguments):
                return any(self._multiplies(argument, seen) for argument in arguments)
        return False

    def axes(self, expression: Expression) -> frozenset[str]:
        """What a value has an element for, of ``channel`` and ``copy``, where channels have copies."""
        match expression:
            case Name(name) if name in self.assignments:
                if name not in self._axes:
                    self._axes[name] = self.axes(self.assignments[name])
                return self._axes[name]
            case Name(name):
                return CHANNEL | COPY if name in self.states else CHANNEL
            case Constant():
                return frozenset()
            case Apply("linear", _, options):
                return COPY if dict(options).get("copies") is True else CHANNEL
            case Apply("parameter", _, options):
                return CHANNEL | COPY if dict(options).get("copies") is True else CHANNEL
            case Apply("sum", (operand,)):
                return self.axes(operand) - COPY
            case Apply(_, arguments):
                return frozenset().union(*map(self.axes, arguments))

    @cached_property
    def _axes(self) -> dict[str, frozenset[str]]:
        """Axes of each assigned name; names behind the asked one are not there yet."""
        return {}

    def affine(self, expression: Expression, state: str) -> Affine | None:
        """The value as ``factor ⊙ state + rest``, if it is elementwise linear in the state."""
        if not self.depends(expression, (state,)):
            return Affine(ZERO, expression)
        match expression:
            case Name(name):
                return (
                    Affine(ONE, ZERO)
                    if name == state
                    else self.affine(self.assignments[name], state)
                )
            case Apply("neg", (operand,)):
                return _scaled(self.affine(operand, state), Constant(Fraction(-1)))
            case Apply("add" | "sub", (left, right)):
                return self._sum(expression.function, left, right, state)
            case Apply("mul" | "div", (left, right)):
                return self._product(expression.function, left, right, state)
        return None

    def _sum(self, sign: str, left: Expression, right: Expression, state: str) -> Affine | None:
        first, second = self.affine(left, state), self.affine(right, state)
        if first is None or second is None:
            return None
        return Affine(
            combined(sign, first.factor, second.factor), combined(sign, first.rest, second.rest)
        )

    def _product(self, sign: str, left: Expression, right: Expression, state: str) -> Affine | None:
        if not self.depends(right, (state,)):
            found, other = self.affine(left, state), right
        elif sign == "mul" and not self.depends(left, (state,)):
            found, other = self.affine(right, state), left
        else:
            return None
        return _scaled(found, other, sign)

    @cached_property
    def scans(self) -> tuple[Scan, ...] | None:
        """An order in which every state is a scan over those before it, or ``None``.

        A state is a scan when its new value is elementwise linear in itself, with factor and rest
        made of the input and of states already found for all of time; two states are one when
        they turn into each other as the parts of a complex number do.
        """
        found: list[Scan] = []
        left = list(self.states)
        while left:
            ready = next(self._ready(left), None)
            if ready is None:
                return None
            found.append(ready)
            left = [state for state in left if state not in ready.states]
        return tuple(found)

    def _ready(self, left: Sequence[str]) -> Iterator[Scan]:
        """What of the states that are left is a scan: single states first."""
        for state in left:
            affine = self._scan(state, left)
            if affine is not None:
                yield Scan((state,), (affine.factor,), (affine.rest,))
        for pair in permutations(left, 2):
            turning = self._turning(*pair, left)
            if turning is not None:
                yield turning

    def _scan(self, state: str, unsolved: Sequence[str]) -> Affine | None:
        value = Name(self.final[state])
        if self.depends(value, [other for other in unsolved if other != state]):
            return None
        return self.affine(value, state)

    def _turning(self, real: str, imaginary: str, unsolved: Sequence[str]) -> Scan | None:
        """Two states as the parts of one complex scan, if their values have that form."""
        others = [state for state in unsolved if state not in (real, imaginary)]
        values = Name(self.final[real]), Name(self.final[imaginary])
        if others and any(self.depends(value, others) for value in values):
            return None
        first, second = (self._affine_in(value, real, imaginary) for value in values)
        if first is None or second is None:
            return None
        (a, minus_b, p), (b, also_a, q) = first, second
        if a != also_a or ZERO in (b, minus_b) or minus_b != combined("sub", ZERO, b):
            return None
        return Scan((real, imaginary), (a, b), (p, q))

    def _affine_in(
        self, value: Expression, first: str, second: str
    ) -> tuple[Expression, Expression, Expression] | None:
        """Factors of two states and the rest, none of them depending on either."""
        outer = self.affine(value, first)
        inner = None if outer is None else self.affine(outer.rest, second)
        if outer is None or inner is None:
            return None
        parts = outer.factor, inner.factor, inner.rest
        return None if any(self.depends(part, (first, second)) for part in parts) else parts

    @property
    def elementwise(self) -> bool:
        """Whether states meet only channel by channel: the Jacobian is diagonal (a block a state)."""
        mixed = [p.argument for linear in self.linears for p in linear.products if not p.diagonal]
        for value in self.assignments.values():
            mixed += [
                call.arguments[0] for call in calls(value) if call.function in ("sum", "norm")
            ]
        return not any(map(self.depends, mixed))

    def obstacle(self) -> str:
        """The first equation that keeps the cell from being a scan, in the language's spelling."""
        for name, value in self.assignments.items():
            for part in calls(value):
                nonlinear = part.function not in ("add", "sub", "neg")
                if nonlinear and self.depends(part) and self._breaks(part):
                    return f"{name.rstrip(chr(39))} = {text(value).replace(chr(39), '')}"
        return ""

    def _breaks(self, part: Apply) -> bool:
        return all(self.affine(part, s) is None for s in self.states if self.depends(part, (s,)))


def _scaled(found: Affine | None, other: Expression, sign: str = "mul") -> Affine | None:
    if found is None:
        return None
    return Affine(combined(sign, found.factor, other), combined(sign, found.rest, other))


def _named(call: Apply, target: str, taken: set[str]) -> Linear:
    stem = _free(target, taken)
    taken.add(stem)
    names = [
        _free(f"{stem}_{a.name.rstrip(chr(39)) if isinstance(a, Name) else i}", taken)
        for i, a in enumerate(call.arguments)
    ]
    unique = [name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names)]
    taken.update(unique)
    products = tuple(Product(call, i, name) for i, name in enumerate(unique))
    biased = dict(call.options).get("bias", True) is True
    return Linear(call, products, f"{stem}_bias" if biased else None)


def _learned(call: Apply, target: str, taken: set[str]) -> Learned:
    name = _free(target, taken)
    taken.add(name)
    return Learned(call, name)


def _sources(expression: Expression, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The names an expression depends on that ``known`` does not explain."""
    names = [part.name for part in walk(expression) if isinstance(part, Name)]
    return frozenset().union(*(known.get(name, frozenset((name,))) for name in names))


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number, free = number + 1, f"{name}{number}"
    return free
