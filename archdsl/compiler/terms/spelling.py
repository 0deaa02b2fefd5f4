"""Closed values in the language's own spelling."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from pydantic import BaseModel

from archdsl.blocks.base import Component, Ratio
from archdsl.blocks.equations import Apply, Constant, Name, number_text
from archdsl.blocks.equations import text as equation_text
from archdsl.compiler.terms.expect import Expect, fields


def value_text(value: Any, expect: Expect) -> str:
    """A value as it would be written where ``expect`` is expected."""
    if value is None:
        return "none"
    if isinstance(value, Constant | Name | Apply):
        return equation_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | Fraction | float):
        return number_text(Fraction(str(value)) if isinstance(value, float) else Fraction(value))
    if isinstance(value, Ratio):
        return str(value)
    if isinstance(value, tuple | list):
        item = expect.items.item if expect.items else Expect()
        return f"[{', '.join(value_text(each, item) for each in value)}]"
    if isinstance(value, Component):
        return component_text(value)
    assert isinstance(value, str), value
    bare = value in expect.symbols or expect.word or not expect.string
    return value if bare else f'"{value}"'


def component_text(component: Component) -> str:
    """A component with the arguments that are not its defaults."""
    return call_text(component.name, argument_texts(component))


def call_text(name: str, arguments: Iterator[str]) -> str:
    """``name(a = 1, b = 2)``, or ``name``."""
    given = ", ".join(arguments)
    return f"{name}({given})" if given else name


def argument_texts(model: BaseModel, without: tuple[str, ...] = ()) -> Iterator[str]:
    """``name = value`` for each argument that is not its default."""
    for name, expect in fields(type(model)).items():
        info, value = type(model).model_fields[name], getattr(model, name)
        if name not in without and (
            info.is_required() or value != info.get_default(call_default_factory=True)
        ):
            yield f"{name} = {value_text(value, expect)}"


UNITS = {
    "T": 10**12,
    "B": 10**9,
    "M": 10**6,
    "GiB": 2**30,
    "MiB": 2**20,
    "KiB": 2**10,
    "K": 10**3,
}
"""Suffixes and what they multiply by."""


def quantity_text(number: Fraction) -> str:
    """A number with a suffix where that makes it short: ``4M``, ``256KiB``."""
    if number.denominator == 1 and 0 < abs(number) < 10**24:
        for suffix, unit in UNITS.items():
            if number % unit == 0:
                return f"{number // unit}{suffix}"
    return number_text(number)


def rounded(number: float | Fraction, what: str) -> str:
    """A figure for a message: ``1.3M``, and in bytes ``1.3MiB``."""
    units = ["GiB", "MiB", "KiB"]
    if "bytes" not in what:
        units = ["T", "B", "M", "K"]
    for suffix in units:
        share = float(number) / UNITS[suffix]
        if abs(share) >= 1:
            return f"{share:.3g}{suffix}"
    return f"{float(number):.3g}"


def count_text(count: int) -> str:
    """How many, written out or as a power of ten."""
    if count < 10**15:
        return f"{count:,}"
    power = round(count.bit_length() * 0.30103)
    scale: int = 10**power
    while scale > count:
        power, scale = power - 1, scale // 10
    return f"{count * 10 // scale / 10} × 10^{power:,}"
