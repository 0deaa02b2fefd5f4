"""Counting and drawing against enumeration, on random small spaces."""

from __future__ import annotations

from collections import Counter as Tally

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archdsl.compiler.spaces.loading import loads

LIMIT = 3_000

numbers = st.sampled_from(
    ["1", "2", "1 | 2", "2 .. 4", "a", "b", "a * b", "each(1 | 2)", "each(a | 3)", "1 | b", "c"]
)
depths = st.sampled_from(["1", "2", "3", "1 | 2", "n", "2 | n", "each(1 | 2)"])


def layers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    bodies = st.lists(inner, min_size=1, max_size=3).map("  ".join)
    one = st.tuples(depths, bodies)
    return st.one_of(
        st.tuples(inner, inner).map(lambda t: f"residual {{ {t[0]} }} residual {{ {t[1]} }}"),
        one.map(lambda t: f"repeat({t[0]}) {{ {t[1]} }}"),
        st.tuples(inner, inner).map(lambda t: f"wrap(residual {{ {t[0]} }} | {single(t[1])})"),
        st.tuples(inner, inner).map(lambda t: f"{single(t[0])} | {single(t[1])} | none"),
        st.tuples(depths, inner, inner).map(
            lambda t: f"stack(depth = {t[0]}, ratio = r) {{ k: {single(t[1])}  l: {single(t[2])} }}"
        ),
        inner.map(lambda t: f"each({single(t)} | s)"),
    )


def single(text: str) -> str:
    return f"residual {{ {text} }}"


leaves = st.one_of(
    numbers.map(lambda n: f"swiglu(expand = {n})"),
    numbers.map(lambda n: f"two({n})"),
    st.sampled_from(["s", "t", "rms_norm", "s  t", "u(expand = 1 | 3)", "wrap(s)", "wrap(t)"]),
)

HEAD = """
let a = 1 | 2
let b = a | 3
let c = a + b
let n = 1 | 2
let r = 1:0 | 1:1 | 1:2
let s = swiglu(expand = a) | rms_norm
let t = each(swiglu(expand = 1 | b) | s)
let u = swiglu | mlp
def two(x) { swiglu(expand = x)  mlp(expand = x | 4) }
def wrap(m) { residual { m  swiglu(expand = 1 | 2) }  m }
"""


def space_text(body: str) -> str:
    return HEAD + f"model {{ embed(dim = 8, vocab = 4)  {body} }}\n"


spaces = st.recursive(leaves, layers, max_leaves=5).map(space_text)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(spaces)
def test_count_is_the_number_of_enumerated_architectures(text: str) -> None:
    space = loads(text)
    if space.count() > LIMIT:
        return
    found = [frozenset(arch.assignment.items()) for arch in space.enumerate()]
    assert len(found) == len(set(found)) == space.count()
    assert {path for each in found for path, _ in each} == {site.path for site in space.sites()}


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(spaces)
def test_draws_reach_everything_and_nothing_else(text: str) -> None:
    space = loads(text)
    count = space.count()
    if count > 60:
        return
    seen = Tally(frozenset(space.draw(seed).assignment.items()) for seed in range(count * 40))
    assert len(seen) == count
    assert max(seen.values()) < 40 * 3
    assert min(seen.values()) > 8


@pytest.mark.parametrize(
    ("body", "base", "power"),
    [
        ("swiglu(expand = 1 | 2)", 2, 1),
        ("repeat(3) { swiglu(expand = 1 | 2) }", 2, 1),
        ("repeat(3) { swiglu(expand = each(1 | 2)) }", 2, 3),
        ("repeat(10000) { swiglu(expand = each(1 .. 4)) }", 4, 10_000),
        ("repeat(100) { repeat(50) { swiglu(expand = each(1 .. 4)) } }", 4, 5_000),
        ("swiglu(expand = a) mlp(expand = a)", 2, 1),
        ("swiglu(expand = b) mlp(expand = a)", 4, 1),
        ("swiglu(expand = b)", 3, 1),
        ("two(1 | 2)", 4, 1),
        ("two(1) two(1)", 4, 1),
        ("repeat(1 | 2) { swiglu(expand = each(1 | 2)) }", 6, 1),
    ],
)
def test_counts(body: str, base: int, power: int) -> None:
    assert loads(space_text(body)).count() == base**power
