"""What a file asks for: costs in ``require`` and in objectives, and measures of its tasks."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from archdsl.blocks.asking import Direction
from archdsl.blocks.base import Count
from archdsl.compiler.terms.expect import Number
from archdsl.compiler.terms.spelling import quantity_text
from archdsl.diagnostics import Span

if TYPE_CHECKING:
    from archdsl.compiler.graphs.cost import Cost

Measured = Mapping[str, float]
"""What was measured, by its text: ``recall.accuracy``, ``latency(length = 1024)``."""


class CostCall(BaseModel):
    """A cost and what it is asked for; the base of all costs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: ClassVar[str]
    known: ClassVar[bool] = True
    """Whether it follows from the architecture alone, without a measurement."""

    def of(self, cost: Cost) -> float:
        """The figure."""
        raise AssertionError(f"{self.title} has to be measured")

    def __str__(self) -> str:
        given = ", ".join(
            f"{name} = {getattr(self, name)}" for name in sorted(self.model_fields_set)
        )
        return f"{self.title}({given})" if given else self.title


class Params(CostCall):
    """Parameters."""

    title: ClassVar[str] = "params"

    def of(self, cost: Cost) -> int:
        """Exact."""
        return cost.params


class ActiveParams(CostCall):
    """Parameters one token uses."""

    title: ClassVar[str] = "active_params"

    def of(self, cost: Cost) -> int:
        """Exact."""
        return cost.active_params


class Flops(CostCall):
    """Floating-point operations a token."""

    title: ClassVar[str] = "flops"
    length: Count = 1024
    mode: Literal["prefill", "train", "decode"] = "prefill"

    def of(self, cost: Cost) -> float:
        """Matrix products only."""
        return cost.flops(self.length, self.mode)


class StateBytes(CostCall):
    """Bytes a sequence carries after ``length`` tokens."""

    title: ClassVar[str] = "state_bytes"
    length: Count = 1024
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"

    def of(self, cost: Cost) -> int:
        """Exact."""
        return cost.state_bytes(self.length, self.dtype)


class ActivationBytes(CostCall):
    """Bytes a training step keeps for its backward pass."""

    title: ClassVar[str] = "activation_bytes"
    length: Count = 1024
    batch: Count = 1

    def of(self, cost: Cost) -> int:
        """An estimate."""
        return cost.activation_bytes(self.length, self.batch)


class Latency(CostCall):
    """Seconds, measured on the machine at hand."""

    title: ClassVar[str] = "latency"
    known: ClassVar[bool] = False
    length: Count = 1024
    mode: Literal["prefill", "train", "decode"] = "prefill"
    batch: Count = 1


COSTS: dict[str, type[CostCall]] = {
    cost.title: cost for cost in (Params, ActiveParams, Flops, StateBytes, ActivationBytes, Latency)
}


@dataclass(frozen=True)
class Figure:
    """A number."""

    number: Number

    def __str__(self) -> str:
        return quantity_text(Fraction(self.number))


@dataclass(frozen=True)
class Asked:
    """A cost."""

    cost: CostCall

    def __str__(self) -> str:
        return str(self.cost)


@dataclass(frozen=True)
class Measure:
    """``recall.accuracy``."""

    task: str
    measure: str

    def __str__(self) -> str:
        return f"{self.task}.{self.measure}"


@dataclass(frozen=True)
class Combined:
    """Arithmetic."""

    sign: Literal["+", "-", "*", "/"]
    left: Quantity
    right: Quantity

    def __str__(self) -> str:
        return f"{_bracketed(self.left)} {self.sign} {_bracketed(self.right)}"


Quantity = Figure | Asked | Measure | Combined


def _bracketed(quantity: Quantity) -> str:
    return f"({quantity})" if isinstance(quantity, Combined) else str(quantity)


SIGNS: dict[str, Callable[[float | Fraction, float | Fraction], float | Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def parts(quantity: Quantity) -> Iterator[Figure | Asked | Measure]:
    """What a quantity is made of."""
    if isinstance(quantity, Combined):
        yield from parts(quantity.left)
        yield from parts(quantity.right)
    else:
        yield quantity


def value(quantity: Quantity, cost: Cost, measured: Measured) -> float | Fraction:
    """The number a quantity is for one architecture; exact where its parts are.

    Args:
        quantity: what is asked.
        cost: of the architecture.
        measured: measures by their text.

    Raises:
        KeyError: something was not measured.
    """
    match quantity:
        case Figure(number):
            return Fraction(number)
        case Asked(call):
            return Fraction(call.of(cost)) if call.known else measured[str(call)]
        case Measure():
            return measured[str(quantity)]
        case Combined(sign, left, right):
            divisor = value(right, cost, measured)
            if sign == "/" and divisor == 0:
                return float("inf")
            return SIGNS[sign](value(left, cost, measured), divisor)


@dataclass(frozen=True)
class Objective:
    """``maximize recall.accuracy``.

    Args:
        direction: which way is better.
        quantity: what is measured.
        span: where it is written.
    """

    direction: Direction
    quantity: Quantity
    span: Span

    @property
    def text(self) -> str:
        """What is measured, as it is written."""
        return str(self.quantity)

    @property
    def needs(self) -> tuple[Measure | Asked, ...]:
        """The parts that have to be measured: task measures and latencies."""
        return tuple(p for p in parts(self.quantity) if _measured(p))  # type: ignore[misc]

    def value(self, cost: Cost, measured: Measured) -> float:
        """The objective of one architecture, from its cost and what was measured.

        Raises:
            KeyError: something it needs was not measured.
        """
        return float(value(self.quantity, cost, measured))


def _measured(part: Figure | Asked | Measure) -> bool:
    return isinstance(part, Measure) or (isinstance(part, Asked) and not part.cost.known)


COMPARISONS: dict[str, Callable[[float | Fraction, float | Fraction], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Requirement:
    """``require params <= 4M``, for one architecture.

    Args:
        sign: the comparison.
        left: one side.
        right: the other.
        text: the condition as it is written.
        span: where it is written.
    """

    sign: str
    left: Quantity
    right: Quantity
    text: str
    span: Span

    @property
    def hard(self) -> bool:
        """Whether it is decided before anything is built; one on a measured latency is not."""
        return not any(_measured(p) for side in (self.left, self.right) for p in parts(side))

    def holds(self, cost: Cost, measured: Measured | None = None) -> bool:
        """Whether an architecture keeps it; a soft one holds until it is measured."""
        if not self.hard and measured is None:
            return True
        left, right = (value(side, cost, measured or {}) for side in (self.left, self.right))
        return COMPARISONS[self.sign](left, right)

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"
