"""What may stand in a place, read off the annotation of the field it fills.

A field's type is the one declaration: what a message says is expected, how a bare name is read, and
which values are taken all come from here.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from archdsl.blocks.base import Component, Formula, Layer, Ratio

Number = int | Fraction

BOUNDS = ("ge", "gt", "le", "lt")


@dataclass(frozen=True)
class Interval:
    """The numbers between two bounds; ``None`` is no bound."""

    ge: Number | None = None
    gt: Number | None = None
    le: Number | None = None
    lt: Number | None = None

    def __contains__(self, value: object) -> bool:
        assert isinstance(value, int | Fraction)
        return not (
            (self.ge is not None and value < self.ge)
            or (self.gt is not None and value <= self.gt)
            or (self.le is not None and value > self.le)
            or (self.lt is not None and value >= self.lt)
        )

    def __str__(self) -> str:
        return " and ".join(self._words())

    def _words(self) -> Iterator[str]:
        if self.ge is not None and self.le is not None:
            yield f"from {spelt(self.ge)} to {spelt(self.le)}"
        elif self.ge is not None:
            yield f"of at least {spelt(self.ge)}"
        if self.gt is not None:
            yield f"above {spelt(self.gt)}"
        if self.le is not None and self.ge is None:
            yield (
                f"at most {spelt(self.le)}"
                if self.gt is not None
                else f"of at most {spelt(self.le)}"
            )
        if self.lt is not None:
            yield f"below {spelt(self.lt)}"


@dataclass(frozen=True)
class Items:
    """A list: what its items are and how many there may be."""

    item: Expect
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Expect:
    """Everything one place takes; the parts are alternatives.

    Args:
        integer: whole numbers within bounds.
        real: exact numbers within bounds.
        boolean: ``true`` and ``false``.
        string: a quoted string.
        word: a bare name taken as it stands.
        symbols: bare names with a meaning of their own (``rope``).
        nothing: ``none``.
        ratio: ``3:1``.
        components: classes of which a component may be.
        items: a list.
        layers: layers of a body, any number in sequence.
        equation: an expression of a cell's equations.
        names: what such an expression may read, where it stands outside of a cell.
    """

    integer: Interval | None = None
    real: Interval | None = None
    boolean: bool = False
    string: bool = False
    word: bool = False
    symbols: tuple[str, ...] = ()
    nothing: bool = False
    ratio: bool = False
    components: tuple[type[Component], ...] = ()
    items: Items | None = None
    layers: bool = False
    equation: bool = False
    names: tuple[str, ...] = ()

    @property
    def number(self) -> bool:
        """Whether a number may stand here."""
        return self.integer is not None or self.real is not None

    def __or__(self, other: Expect) -> Expect:
        return Expect(
            integer=self.integer or other.integer,
            real=self.real or other.real,
            boolean=self.boolean or other.boolean,
            string=self.string or other.string,
            word=self.word or other.word,
            symbols=tuple(dict.fromkeys([*self.symbols, *other.symbols])),
            nothing=self.nothing or other.nothing,
            ratio=self.ratio or other.ratio,
            components=(*self.components, *other.components),
            items=self.items or other.items,
            layers=self.layers or other.layers,
            equation=self.equation or other.equation,
            names=self.names or other.names,
        )

    def __str__(self) -> str:
        return self.readable().exactly()

    def exactly(self) -> str:
        """In words, with the bounds that only keep numbers representable."""
        return listed(list(self._words())) or "nothing"

    def readable(self) -> Expect:
        """The same without those bounds."""
        return replace(self, integer=_readable(self.integer), real=_readable(self.real))

    def _words(self) -> Iterator[str]:
        if self.layers:
            yield "layers"
            return
        if self.equation:
            yield "an expression"
        if self.integer is not None:
            yield f"a whole number {self.integer}".rstrip()
        if self.real is not None:
            yield f"a number {self.real}".rstrip()
        if self.boolean:
            yield "`true` or `false`"
        if self.string:
            yield "a string in quotes"
        if self.word:
            yield "a name"
        if self.ratio:
            yield "a ratio such as `3:1`"
        if self.items is not None:
            yield f"a list in which each item is {self.items.item}"
        yield from (article(component.kind) for component in self.components)
        if self.symbols:
            yield listed([f"`{symbol}`" for symbol in self.symbols])
        if self.nothing:
            yield "`none`"


def _readable(interval: Interval | None) -> Interval | None:
    """The interval without bounds that only keep numbers representable."""
    if interval is None:
        return None
    huge = interval.le is not None and interval.le >= 10**9
    tiny = interval.ge is not None and interval.ge <= -(10**9)
    return replace(interval, le=None if huge else interval.le, ge=None if tiny else interval.ge)


LAYERS = Expect(layers=True, components=(Layer,))
NUMBER = Expect(real=Interval())
EQUATION = Expect(equation=True)


def article(kind: str) -> str:
    """``a memory``, ``an optimizer``."""
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


def listed(words: Sequence[str], joint: str = "or") -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {joint} {words[-1]}"


def spelt(value: Number) -> str:
    """A number for a message, with separators in large ones."""
    return f"{value.numerator:,}" if value.denominator == 1 else str(value)


def whole(value: Number) -> Number:
    """The same number, as an ``int`` where it is one."""
    return value.numerator if value.denominator == 1 else value


@cache
def fields(model: type[BaseModel]) -> dict[str, Expect]:
    """What each field of a component (or section) that a user may write takes."""
    return {
        name: of(info.annotation, info.metadata)
        for name, info in model.model_fields.items()
        if name != "equations"
    }


def of(annotation: Any, metadata: Iterable[Any] = ()) -> Expect:
    """What a field with this annotation takes."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    formula = next((item for item in metadata if isinstance(item, Formula)), None)
    if formula is not None:
        return Expect(equation=True, names=formula.names)
    if origin is Annotated:
        return of(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, types.UnionType):
        return _union(of(argument, metadata) for argument in arguments)
    if origin is Literal:
        return Expect(symbols=tuple(map(str, arguments)))
    if origin in (tuple, list):
        return Expect(items=_items(arguments, metadata))
    return _plain(annotation, metadata)


def _union(parts: Iterable[Expect]) -> Expect:
    result = Expect()
    for part in parts:
        result |= part
    return result


def _plain(annotation: Any, metadata: Iterable[Any]) -> Expect:
    if annotation is type(None):
        return Expect(nothing=True)
    if annotation is bool:
        return Expect(boolean=True)
    if annotation is int:
        return Expect(integer=_interval(metadata))
    if annotation in (Fraction, float):
        return Expect(real=_interval(metadata))
    if annotation is str:
        return Expect(word=True) if _is_word(metadata) else Expect(string=True)
    if annotation is Ratio:
        return Expect(ratio=True)
    assert isinstance(annotation, type), annotation
    assert issubclass(annotation, Component), annotation
    return Expect(components=(annotation,))


def _constraints(metadata: Iterable[Any]) -> Iterator[Any]:
    for item in metadata:
        yield from _constraints(item.metadata) if isinstance(item, FieldInfo) else (item,)


def _interval(metadata: Iterable[Any]) -> Interval:
    found: dict[str, Number] = {}
    for item in _constraints(metadata):
        for bound in BOUNDS:
            value = getattr(item, bound, None)
            if value is not None:
                found[bound] = _tighter(bound, found.get(bound), whole(Fraction(value)))
    return Interval(**found)


def _tighter(bound: str, known: Number | None, value: Number) -> Number:
    if known is None:
        return value
    return max(known, value) if bound in ("ge", "gt") else min(known, value)


def _is_word(metadata: Iterable[Any]) -> bool:
    return any(getattr(item, "pattern", None) for item in _constraints(metadata))


def _items(arguments: tuple[Any, ...], metadata: Iterable[Any]) -> Items:
    constraints = list(_constraints(metadata))
    least = next((c.min_length for c in constraints if hasattr(c, "min_length")), 0)
    most = next((c.max_length for c in constraints if hasattr(c, "max_length")), None)
    if len(arguments) == 1 or arguments[1] is Ellipsis:
        return Items(of(arguments[0]), least, most)
    return Items(_union(map(of, arguments)), len(arguments), len(arguments))
