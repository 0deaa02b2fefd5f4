"""The module of a cell: its equations as tensors, for all of time where they allow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.cell_analysis import Linear, Product, Scan, starts
from archdsl.blocks.equations import INPUTS, Apply, Constant, Expression, Name, Setting
from archdsl.blocks.nn.base import Context, Seeded, Site, State, by_head, exactly, widened
from archdsl.blocks.nn.cell_start import Starts, fill
from archdsl.blocks.nn.functions import FUNCTIONS
from archdsl.blocks.nn.recurrence import Given, recurrence
from archdsl.blocks.ops import cell as ops
from archdsl.kernels.common import segments, sequences
from archdsl.kernels.scan import scan
from archdsl.kernels.shrinking import Shrinking

Values = dict[str, Tensor]


class CellRecurrence(Site):
    """See ``ops.CellRecurrence``."""

    call: ClassVar[Literal["plain", "context", "state"]] = "state"
    packs: ClassVar[bool] = True
    op: ops.CellRecurrence

    def __init__(self, op: ops.CellRecurrence) -> None:
        super().__init__(op)
        for name, shape in op.parameters().items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        # Asked for once, so that a traced step finds its numbers as floats, and the rest without a lock.
        self.numbers = op.analysis.numbers
        op.analysis.settle()

    @property
    def bucketed(self) -> bool:  # type: ignore[override]
        """A scan is; steps take packed sequences as a batch that shrinks."""
        return self.op.plan == "scan"

    @property
    def sparing(self) -> bool:  # type: ignore[override]
        """Steps leave out what is nobody's."""
        return self.op.plan != "scan"

    def draw(self, seeded: Seeded) -> None:
        """Weights with the variance (or bound) of one over all that a ``linear`` sums; biases zero.

        Unless the settings of the ``linear`` say otherwise. Parameters start as their equations say.
        """
        with torch.no_grad():
            for linear, start in zip(
                self.op.analysis.linears, starts(self.op.equations), strict=True
            ):
                inputs = sum(1 if p.diagonal else self.op.shape(p)[-1] for p in linear.products)
                for product in linear.products:
                    self._draw_product(product, start, inputs, seeded)
                if linear.bias is not None:
                    size = float(start.get("gain", 1)) * inputs**-0.5
                    self._fill(linear.bias, str(start.get("bias_init", "zeros")), size, seeded)
            values = Starts(self.op.analysis, self, seeded)
            for learned in self.op.analysis.vectors:
                self.get_parameter(learned.name).copy_(values.value_of(learned))

    def _draw_product(
        self, product: Product, start: Mapping[str, Setting], inputs: int, seeded: Seeded
    ) -> None:
        """One weight of a ``linear`` that sums so many numbers over all its arguments.

        Gains of norms start at one.
        """
        thin, how = bool(product.setting("rank")), str(start.get("init", "normal"))
        for name, shape in self.op.factors(product).items():
            if len(shape) == 1 and not product.diagonal:
                self.get_parameter(name).fill_(1)
                continue
            gain = 1.0 if name.endswith("_down") else float(start.get("gain", 1))
            self._fill(name, how, gain * (shape[-1] if thin else inputs) ** -0.5, seeded)

    def _fill(self, name: str, how: str, size: float, seeded: Seeded) -> None:
        if how == "zeros":
            self._parameters[name].zero_()  # type: ignore[union-attr]
        else:
            fill(self._parameters[name], how, size, seeded(name))  # type: ignore[arg-type]

    @property
    def _written(self) -> bool:
        """Whether the steps are run by hand, with no graph of their operations."""
        by_hand = self.backend is None and not torch.compiler.is_compiling()
        return by_hand and self.op.steps is not None

    def forward(
        self, x: Tensor, near: Tensor | None = None, *, state: State | None, context: Context
    ) -> tuple[Tensor, State | None]:
        """``[B, T, D_in]``, also convolved where that is read → ``[B, T, D]``, and the states."""
        bounds = context.cu_seqlens
        if state is None:
            state = self.init_state(sequences(bounds, x.shape[0]), x)
        scans = self.op.plan == "scan" and (x.shape[1] > 1 or bounds is not None)
        copied = self.op.copies > 1
        with exactly(x):
            inputs = [widened(given) for given in (x, near) if given is not None]
            wide = [given[..., None] for given in inputs] if copied else inputs
            run: _Run
            if scans:
                run = _Scan(self, wide, state, bounds)
            elif bounds is None:
                stepwise = self._written and x.shape[1] > 1
                run = (_WrittenSteps if stepwise else _Steps)(self, wide, state)
            else:
                widest = None if context.rows is None else context.rows.length
                layout = Shrinking.of(x.shape[1], bounds, widest=widest)
                run = _PackedSteps(self, wide, state, layout)
            output, after = run.result()
        output = output.squeeze(-1) if copied else output
        return output.to(x.dtype), after if context.keep else None


class _Run:
    """One evaluation of the equations over a sequence ``x [B, T, D_in]``, and it convolved."""

    def __init__(self, cell: CellRecurrence, inputs: list[Tensor], state: State) -> None:
        self.cell, self.x, self.state = cell, inputs[0], state
        self.analysis = cell.op.analysis
        self.values: Values = dict(zip(INPUTS, inputs, strict=False))
        self.linears: dict[Apply, Linear] = {found.call: found for found in self.analysis.linears}
        self.vectors = {found.call: found.name for found in self.analysis.vectors}
        self.read: Values = {}
        self.products: Values = {}

    def result(self) -> tuple[Tensor, State]:
        """The output ``[B, T, D]`` and the last states ``[B, D]``."""
        raise AssertionError("each plan says how")

    def value(self, expression: Expression, values: Values) -> Tensor:
        """An expression over what is known."""
        match expression:
            case Name(name):
                return values[name]
            case Constant():
                return self.x.new_tensor(expression.number)
            case Apply("linear"):
                return self.linear(expression, values)
            case Apply("parameter"):
                return self.vector(self.vectors[expression])
            case Apply("norm", (operand,)):
                inner = self.flat(self.value(operand, values))
                return self.raised(normed(inner))
            case Apply("sum", (operand,)):
                return self.value(operand, values).sum(-1, keepdim=True)
            case Apply(function, arguments):
                return FUNCTIONS[function](*[self.value(a, values) for a in arguments])

    def linear(self, call: Apply, values: Values) -> Tensor:
        """``Σ W_i a_i + b``."""
        found = self.linears[call]
        parts = [self.product(p, self.value(p.argument, values)) for p in found.products]
        return _sum([*parts, *self.bias(found)])

    def bias(self, linear: Linear) -> list[Tensor]:
        """The bias, if there is one."""
        return [] if linear.bias is None else [self.given(self.weight(linear.bias), linear.call)]

    def weight(self, name: str) -> Tensor:
        """A parameter, in the precision of the run; looked up once, for steps ask again and again."""
        if name not in self.read:
            self.read[name] = self.cell._parameters[name].to(self.x.dtype)  # type: ignore[union-attr]
        return self.read[name]

    def vector(self, name: str) -> Tensor:
        """A parameter of one number a channel, or a channel and copy, as a value."""
        weight = self.weight(name)
        return self.raised(weight) if weight.dim() == 1 else weight

    def product(self, product: Product, argument: Tensor) -> Tensor:
        """One weight times its argument ``[…, D]``, or ``[…, D, 1]`` where channels have copies."""
        if product.name in self.products:
            return self.products[product.name]
        if product.diagonal:
            return self.vector(product.name) * argument
        found = self.flat(argument)
        for weight in map(self.weight, self.cell.op.factors(product)):
            found = normed(found, weight) if weight.dim() == 1 else by_head(found, weight)
        return self.given(found, product.call)

    def flat(self, x: Tensor) -> Tensor:
        """A value a channel without the axis of copies."""
        return x if self.cell.op.copies == 1 else x.squeeze(-1)

    def raised(self, x: Tensor) -> Tensor:
        """A value a channel with the axis of copies."""
        return x if self.cell.op.copies == 1 else x[..., None]

    def given(self, x: Tensor, call: Apply) -> Tensor:
        """What a ``linear`` gives, a number a channel or a copy, with both axes."""
        return x[..., None, :] if dict(call.options).get("copies") is True else self.raised(x)


def normed(x: Tensor, gain: Tensor | None = None) -> Tensor:
    """An RMS norm over the last axis."""
    return F.rms_norm(x, x.shape[-1:], gain, 1e-6)


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class _Scan(_Run):
    """Every state by a parallel scan, then everything else for all of time."""

    def __init__(
        self, cell: CellRecurrence, inputs: list[Tensor], state: State, cu_seqlens: Tensor | None
    ) -> None:
        super().__init__(cell, inputs, state)
        self.cu_seqlens = cu_seqlens

    def result(self) -> tuple[Tensor, State]:
        """See the base."""
        after: State = {}
        self.ends: Values = {}
        for found in self.analysis.scans or ():
            self._solve(found, after)
        output = self.lazy(Name(self.analysis.final[self.cell.op.output]))
        return output, after

    def _solve(self, found: Scan, after: State) -> None:
        """Values of one scan's states for all of time, before and after every step."""
        shape = (*self.x.shape[:2], *self.cell.op.cells)
        factor, rest = (
            _joined([self.lazy(part) for part in parts]).expand(shape)
            for parts in (found.factor, found.rest)
        )
        before = _joined([self.state[state] for state in found.states])
        h, last = scan(factor, rest, initial_state=before, cu_seqlens=self.cu_seqlens)
        for state, value, end in zip(found.states, _parts(h), _parts(last), strict=True):
            self.values[self.analysis.final[state]] = self.ends[state] = value
            after[state] = end

    def lazy(self, expression: Expression) -> Tensor:
        """An expression's value, with the assignments it needs."""
        for name in self.needed(expression):
            if name in self.ends:
                self.values[name] = self._previous(name)
            elif name not in self.values:
                self.values[name] = self.value(self.analysis.assignments[name], self.values)
        return self.value(expression, self.values)

    def _previous(self, state: str) -> Tensor:
        """A state before every step."""
        start, end = self.state[state].to(self.ends[state].dtype), self.ends[state]
        if self.cu_seqlens is None:
            return torch.cat([start[:, None], end[:, :-1]], 1)
        rows, first = segments(self.cu_seqlens, end.shape[1])
        shifted = torch.cat([end[:, :1], end[:, :-1]], 1)
        return torch.where(first.view(1, -1, *(1,) * (end.dim() - 2)), start[rows][None], shifted)

    def needed(self, expression: Expression) -> list[str]:
        """Assigned names an expression reads, those they read first; nothing that is known."""
        found: dict[str, None] = {}

        def visit(part: Expression) -> None:
            if isinstance(part, Apply):
                for argument in part.arguments:
                    visit(argument)
            elif isinstance(part, Name) and part.name not in {**self.values, **found}:
                if part.name not in self.ends:
                    visit(self.analysis.assignments[part.name])
                found[part.name] = None

        visit(expression)
        return list(found)


class _Steps(_Run):
    """A step at a time; what does not depend on the state is computed for all of time first."""

    def result(self) -> tuple[Tensor, State]:
        """See the base."""
        self._begin(self.analysis.of_input)
        self.inputs, self.joined = self._inputs(), self._joined()
        return self._loop(self.analysis.bound)

    def _begin(self, found: Sequence[Product]) -> None:
        """Some products of the input, then what does not depend on the state."""
        self.products = self._of_input(found)
        for name in self.analysis.free:
            self.values[name] = self.value(self.analysis.assignments[name], self.values)

    def _of_input(self, found: Sequence[Product]) -> Values:
        """The products of the input with full matrices, as one."""
        weights = [self.weight(product.name) for product in found]
        if len(found) < 2 or self.cell.op.copies > 1 or any(w.dim() > 2 for w in weights):
            return {}
        parts = F.linear(self.x, torch.cat(weights)).chunk(len(found), -1)
        return {product.name: part for product, part in zip(found, parts, strict=True)}

    def _inputs(self) -> dict[Apply, Tensor | None]:
        """For each ``linear`` with a part that depends on the state, the sum of the parts that do not."""
        found: dict[Apply, Tensor | None] = {}
        for linear, free in self.analysis.sums:
            parts = [self.product(p, self.value(p.argument, self.values)) for p in free]
            parts += self.bias(linear)
            found[linear.call] = _sum(parts) if parts else None
        return found

    def _joined(self) -> dict[str, tuple[Tensor, list[str]]]:
        """For each state, the blocks that multiply its previous value, as one matrix a head."""
        found: dict[str, list[str]] = {}
        for linear in self.linears.values():
            for p in linear.products:
                if isinstance(p.argument, Name) and p.argument.name in self.state and p.whole:
                    found.setdefault(p.argument.name, []).append(p.name)
        return {
            state: (torch.cat([self.weight(name) for name in names], 1), names)
            for state, names in found.items()
        }

    def _loop(self, bound: Sequence[str]) -> tuple[Tensor, State]:
        slices = self._slices()
        current: Values = {name: value.to(self.x.dtype) for name, value in self.state.items()}
        outputs = []
        for t in range(self.steps):
            current = self.going(current, t)
            values = {name: parts[t] for name, parts in slices.items()} | current
            given = {name: parts[t] for name, parts in self.given_parts.items()}
            self.now, self.products = t, given | self._products(current)
            for name in bound:
                values[name] = self.value(self.analysis.assignments[name], values)
            after = {name: values[self.analysis.final[name]] for name in current}
            current = self.passed(current, after, t)
            outputs.append(values[self.analysis.final[self.cell.op.output]])
        last = {n: v.to(self.state[n].dtype) for n, v in self.ends(current).items()}
        return self.in_time(outputs), last

    @property
    def steps(self) -> int:
        """How many there are."""
        return self.x.shape[1]

    def going(self, current: Values, t: int) -> Values:
        """The states of the sequences that have a token ``t``."""
        return current

    def passed(self, before: Values, after: Values, t: int) -> Values:
        """The states behind step ``t``."""
        return after

    def ends(self, current: Values) -> Values:
        """The last states of all sequences."""
        return current

    def in_time(self, outputs: list[Tensor]) -> Tensor:
        """Outputs of steps as they stand in ``x``."""
        return torch.stack(outputs, 1)

    def _slices(self) -> dict[str, tuple[Tensor, ...]]:
        self.sliced = {
            call: None if value is None else self._over_time(value)
            for call, value in self.inputs.items()
        }
        free = [f for call, f in self.linears.items() if not self.analysis.depends(call)]
        self.given_parts = {
            product.name: self._over_time(self.products[product.name])
            for linear in free
            for product in linear.products
            if product.name in self.products
        }
        return {name: self._over_time(value) for name, value in self.values.items()}

    def _over_time(self, value: Tensor) -> tuple[Tensor, ...]:
        """A value as one slice a step; one without time is the same at every step."""
        timed = value.dim() == self.x.dim()
        return self.apart(value) if timed else (value,) * self.steps

    def apart(self, value: Tensor) -> tuple[Tensor, ...]:
        """``[B, T, …]`` as ``T`` slices."""
        return value.unbind(1)

    def _products(self, current: Values) -> dict[str, Tensor]:
        """This step's products of previous states with all their blocks."""
        found: dict[str, Tensor] = {}
        for state, (weight, names) in self.joined.items():
            y = by_head(current[state], weight).reshape(-1, weight.shape[0], weight.shape[1])
            parts = y.chunk(len(names), -1)
            found |= {name: part.flatten(-2) for name, part in zip(names, parts, strict=True)}
        return found

    def linear(self, call: Apply, values: Values) -> Tensor:
        """Within a step: the part known beforehand, and this step's products."""
        if call not in getattr(self, "inputs", {}):
            return super().linear(call, values)
        parts = [
            self.product(p, self.value(p.argument, values))
            for p in self.linears[call].products
            if self.analysis.depends(p.argument)
        ]
        known = self.sliced[call]
        return _sum([*parts, *([] if known is None else [known[self.now]])])


class _WrittenSteps(_Steps):
    """The same steps forwards and backwards by hand: see :mod:`.recurrence`."""

    def result(self) -> tuple[Tensor, State]:
        """See the base."""
        program = self.cell.op.steps
        assert program is not None
        self._begin([p for p in self.analysis.of_input if p.name not in program.given])
        tensors = Given(
            self.x,
            [self.state[name].to(self.x.dtype) for name in program.states],
            [self._known(value) for value in program.known],
            [self._square(name) for name in program.weights],
            [self._square(name) for name in program.given],
            [self.weight(name) for name in program.biases],
        )
        output, last = recurrence(program, tensors)
        after = zip(program.states, last, strict=True)
        return output, {name: value.to(self.state[name].dtype) for name, value in after}

    def _known(self, value: Expression) -> Tensor:
        """What does not depend on the state, for all of time."""
        if isinstance(value, Apply) and self.analysis.depends(value):
            rest = self.analysis.rest(self.linears[value])
            found = _sum([self.product(p, self.value(p.argument, self.values)) for p in rest])
        else:
            found = self.value(value, self.values)
        return found.expand(*self.x.shape[:2], self.cell.op.width)

    def _square(self, name: str) -> Tensor:
        """A weight without the axis of its one head."""
        weight = self.weight(name)
        return weight.view(weight.shape[-2:])


class _PackedSteps(_Steps):
    """Packed sequences ``x [1, T, D_in]`` as a batch that shrinks where they end, the longest first."""

    def __init__(
        self, cell: CellRecurrence, inputs: list[Tensor], state: State, layout: Shrinking
    ) -> None:
        super().__init__(cell, inputs, {name: v[layout.order] for name, v in state.items()})
        self.layout, self.sizes = layout, list(layout.sizes)
        self.there = None if layout.full else torch.split(layout.present, self.sizes)
        self.ended: list[Values] = []

    @property
    def steps(self) -> int:
        """Tokens of the longest."""
        return len(self.sizes)

    def going(self, current: Values, t: int) -> Values:
        """Without those that have ended, whose states are kept."""
        size = self.sizes[t]
        self.ended.append({name: value[size:] for name, value in current.items()})
        return {name: value[:size] for name, value in current.items()}

    def passed(self, before: Values, after: Values, t: int) -> Values:
        """Of those that could have a token and have none, the states before."""
        if self.there is None:
            return after
        there = self.there[t]
        return {
            name: torch.where(there.view(-1, *[1] * (value.dim() - 1)), value, before[name])
            for name, value in after.items()
        }

    def ends(self, current: Values) -> Values:
        """Those that ended last stand first."""
        found, rank = [current, *reversed(self.ended)], self.layout.order.argsort()
        return {name: torch.cat([v[name] for v in found])[rank] for name in current}

    def apart(self, value: Tensor) -> tuple[Tensor, ...]:
        """``[1, T, …]`` as one slice a step, of the sequences that have it."""
        return torch.split(self.layout.spread(value[0]), self.sizes)

    def in_time(self, outputs: list[Tensor]) -> Tensor:
        """See the base."""
        return self.layout.rows(torch.cat(outputs))[None]


def _joined(parts: list[Tensor]) -> Tensor:
    """One real tensor, or two as the parts of a complex one."""
    return parts[0] if len(parts) == 1 else torch.complex(parts[0], parts[1])


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    return (x.real, x.imag) if x.is_complex() else (x,)
