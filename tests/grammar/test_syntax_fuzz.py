"""A few thousand wrong texts; ``fuzz_syntax.py`` tries more."""

from __future__ import annotations

import random
from pathlib import Path

import fuzz_syntax
import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("seed", range(4))
def test_no_text_ends_in_anything_but_a_tree_or_diagnostics(seed: int) -> None:
    tally = fuzz_syntax.run(300, seed)
    assert tally.slowest < fuzz_syntax.SLOWEST, tally.slowest_text[:200]


@given(st.text())
def test_any_text(text: str) -> None:
    assert all(found.span for found in fuzz_syntax.try_text(text))


@given(st.text())
def test_any_text_as_a_value(text: str) -> None:
    assert all(found.span for found in fuzz_syntax.try_text(f"let x = {text}"))


def test_any_bytes_decode_or_are_refused_at_a_place(tmp_path: Path) -> None:
    chance = random.Random(0)
    sizes = [chance.choice([1, 5, 100]) for _ in range(300)]
    decoded = [
        fuzz_syntax.try_bytes(chance.randbytes(size), tmp_path / "any.arch") for size in sizes
    ]
    assert {size for size, whole in zip(sizes, decoded, strict=True) if whole} == {1}


@pytest.mark.parametrize(
    "opening", ["f(", "(", "[", "f(a = ", "(1 + ", "a { ", "-(", "[1 | (", "(a | b)(", "f(x, g { "]
)
def test_the_deepest_nesting_that_parses_can_be_laid_out(opening: str) -> None:
    closing = "".join(
        {"(": ")", "[": "]", "{": "}"}.get(char, "") for char in reversed(opening.replace(")", ""))
    )
    closing = {"(a | b)(": ")"}.get(opening, closing)
    parsed = 0
    for depth in range(10, 101):
        parsed += not fuzz_syntax.try_text(f"let x = {opening * depth}x{closing * depth}")
    assert parsed
