"""The formatter: one layout, the same tree, every comment."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_syntax import SPEC
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from programs import NOWHERE, expressions, programs

from archdsl.grammar import ast, layout
from archdsl.grammar.format import format_expression, format_program
from archdsl.grammar.parse import parse, parse_file
from archdsl.grammar.words import Words

ROOT = Path(__file__).parents[2]
SPECS = sorted([*ROOT.glob("specs/**/*.arch"), *ROOT.glob("archdsl/**/*.arch")])

thorough = settings(
    max_examples=40,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)


@thorough
@given(program=programs, width=st.sampled_from([88, 88, 40, 1]))
def test_any_program_survives(
    program: ast.Program, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "WIDTH", width)
    text = format_program(program)
    again = parse(text)
    assert again == program
    assert format_program(again) == text


@thorough
@given(expression=expressions)
def test_any_expression_survives_on_one_line(expression: ast.Expression) -> None:
    text = format_expression(expression)
    assert "\n" not in text
    (item,) = parse(f"let x = {text}").items
    assert isinstance(item, ast.Let)
    assert item.value == expression


@thorough
@given(
    program=programs,
    places=st.lists(st.integers(0, 200), min_size=1, max_size=6, unique=True),
    own_line=st.booleans(),
)
@example(program=parse("let x = f()"), places=[4], own_line=False)
@example(program=parse(SPEC), places=[1, 40, 41, 60, 90, 130], own_line=True)
def test_comments_survive(program: ast.Program, places: list[int], own_line: bool) -> None:
    text = format_program(program)
    words = Words(text).list
    ends = {words[place % len(words)].end if place else 0 for place in places}
    for end in sorted(ends, reverse=True):
        text = f"{text[:end]}{chr(10) if own_line else ' '}# comment {end}\n{text[end:]}"
    commented = parse(text)
    shown = format_program(commented)
    again = parse(shown)
    assert again == program
    assert sorted(c.text for c in again.comments) == sorted(c.text for c in commented.comments)
    assert format_program(again) == shown


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_specs_survive(path: Path) -> None:
    program = parse_file(path)
    text = format_program(program)
    again = parse(text)
    assert again == program
    assert sorted(c.text for c in again.comments) == sorted(c.text for c in program.comments)
    assert format_program(again) == text


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (ast.Nothing(span=NOWHERE), None, "none"),
        ("a + b", "*", "(a + b) * c"),
        ("a | b", "+", "(a | b) + c"),
        ("a * b", "+", "a * b + c"),
    ],
)
def test_parentheses_are_added_where_a_tree_needs_them(
    left: object, right: str | None, expected: str
) -> None:
    if isinstance(left, ast.Nothing):
        assert format_expression(left) == expected
        return
    tree = ast.Binary(right, _value(str(left)), _value("c"), span=NOWHERE)  # type: ignore[arg-type]
    assert format_expression(tree) == expected


def test_a_sign_before_a_sum_needs_parentheses() -> None:
    assert format_expression(ast.Unary("-", _value("a + b"), span=NOWHERE)) == "-(a + b)"


def test_lines_are_at_most_88_columns() -> None:
    assert max(map(len, format_program(parse(SPEC)).splitlines())) <= 88


def test_items_that_nobody_wrote_are_grouped() -> None:
    text = "let a = 1\nlet b = 2\n\ndef c {\n    d\n}\n\nmodel {\n    e\n}\n"
    made = ast.Program(parse(text).items, span=NOWHERE)
    assert format_program(made) == text


def test_nothing_is_nothing() -> None:
    assert format_program(ast.Program((), span=NOWHERE)) == ""


def _value(text: str) -> ast.Expression:
    (item,) = parse(f"let x = {text}").items
    assert isinstance(item, ast.Let)
    return item.value
