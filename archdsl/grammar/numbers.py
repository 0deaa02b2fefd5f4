"""Numbers as they are spelt: exact values, and the bounds that keep them cheap."""

from __future__ import annotations

import re
from fractions import Fraction

DIGITS = 30
"""The most digits a number may have."""

EXPONENT = 300
"""The largest power of ten a number may name."""

SUFFIXES = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "B": 10**9,
    "T": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
"""What each suffix multiplies by: powers of ten for counts, powers of two for bytes."""

_NUMBER = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?([A-Za-z]*)")


def complaint(text: str) -> str | None:
    """Why a number or ratio is out of bounds, as the end of "this number has …"; else ``None``."""
    if len(text) <= DIGITS and "e" not in text.lower():
        return None
    for part in text.split(":"):
        whole, places, exponent, _ = _pieces(part)
        if len(whole + places) > DIGITS:
            return f"{len(whole + places):,} digits; at most {DIGITS} are read"
        if len(exponent) > 5 or abs(int(exponent)) > EXPONENT:
            return f"an exponent beyond ±{EXPONENT}"
    return None


def value(text: str) -> int | Fraction:
    """The exact value of a number; an ``int`` wherever it is whole."""
    if text.isdigit():
        return int(text)
    whole, places, exponent, suffix = _pieces(text)
    scale = Fraction(10) ** (int(exponent) - len(places))
    number = int(whole + places) * scale * SUFFIXES[suffix]
    return number.numerator if number.denominator == 1 else number


def parts(text: str) -> tuple[int, ...]:
    """The parts of a ratio."""
    return tuple(map(int, text.split(":")))


def _pieces(text: str) -> tuple[str, str, str, str]:
    match = _NUMBER.fullmatch(text)
    assert match is not None, text
    whole, places, exponent, suffix = match.groups(default="")
    return whole, places, exponent or "0", suffix
