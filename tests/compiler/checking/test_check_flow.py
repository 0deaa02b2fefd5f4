"""Checking against building: what is accepted lowers whole, and what is refused has a reason."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archdsl.blocks.base import Invalid
from archdsl.blocks.op import Type
from archdsl.compiler.reading.sources import Sources
from archdsl.compiler.spaces.arch import Arch
from archdsl.compiler.spaces.check import check_text
from archdsl.compiler.spaces.loading import unchecked
from archdsl.compiler.terms.elements import Element
from archdsl.diagnostics import ArchError

widths = st.sampled_from(["w", "16", "16 | 24", "12", "w * 2"])
heads = st.sampled_from(["2", "h", "w / 8", "3", "2 | 4", "each(2 | 4)", "each(2 | 3)"])

leaves = st.one_of(
    heads.map(lambda n: f"attention(heads = {n})"),
    heads.map(lambda n: f"attention(heads = {n}, position = rope | none)"),
    heads.map(lambda n: f"gla(heads = {n})"),
    widths.map(lambda n: f"linear(dim = {n})"),
    st.sampled_from(["m(heads = h)", "m(heads = 2 | 3)", "rms_norm", "none", "rms_norm | none"]),
)


def layers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    return st.one_of(
        pair.map(lambda t: f"residual {{ {t[0]}  {t[1]} }}"),
        pair.map(lambda t: f"{t[0]}  {t[1]}"),
        pair.map(lambda t: f"residual {{ {t[0]} }} | residual {{ {t[1]} }}"),
        inner.map(lambda t: f"repeat(1 | 2) {{ {t} }}"),
        pair.map(
            lambda t: (
                "stack(depth = 2, ratio = r)"
                f" {{ k: residual {{ {t[0]} }}  l: residual {{ {t[1]} }} }}"
            )
        ),
        pair.map(lambda t: f"parallel(mix = sum | concat) {{ residual {{ {t[0]} }}  {t[1]} }}"),
    )


HEAD = """
let w = 16 | 24
let h = 2 | 4
let r = 1:0 | 1:1
let m = attention | gla
"""

models = st.recursive(leaves, layers, max_leaves=4).map(
    lambda body: f"{HEAD}model {{ embed(dim = w, vocab = 4)  {body} }}\n"
)


def type_of(elements: Sequence[Element], stream: Type) -> Type:
    """The type behind layers, each asked by itself; raises :class:`Invalid`."""
    for element in elements:
        component = element.component
        component.verify()
        behind = component.infer(stream)
        if element.visits:
            outputs = [type_of(visit.elements, behind) for visit in element.visits]
            behind = component.combine(stream, outputs)
        stream = behind
    return stream


def builds(arch: Arch) -> bool:
    try:
        type_of(arch.root, Type("tokens", 0))
    except Invalid:
        return False
    return arch.graph.output.type.kind == "features"


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(models)
def test_whatever_checks_runs(text: str) -> None:
    found = [d for d in check_text(text) if d.severity.value == "error"]
    try:
        space = unchecked(Sources("<text>", text))
        every = [arch for arch, _ in zip(space.enumerate(), range(400), strict=False)]
    except ArchError:
        assert found
        return
    if found:
        assert len(every) == 400 or not all(map(builds, every)), found
    else:
        assert all(map(builds, every))


def messages(text: str) -> list[str]:
    return [d.message for d in check_text(text)]


def test_shared_choices_stay_together() -> None:
    tied = "let w = 96 | 128\nmodel { embed(dim = w, vocab = 4)  attention(heads = w / 32) }"
    assert messages(tied) == []


def test_independent_choices_are_all_looked_at() -> None:
    text = "model { embed(dim = 96 | 128, vocab = 4)  attention(heads = 3 | 4) }"
    assert messages(text) == ["`heads = 3` does not divide width 128 when `dim = 128` (line 1)"]


def test_what_a_rule_does_not_read_costs_nothing() -> None:
    arguments = "heads = 4, base = 1 .. 1000000, kv_heads = 1 | 2, causal = true | false"
    text = f"model {{ embed(dim = 64, vocab = 4)  attention({arguments}) }}"
    assert messages(text) == []


def test_the_layers_that_a_ratio_gives_are_named() -> None:
    body = "stack(depth = 4 | 6, ratio = 3:1) { a: gla  b: swiglu }"
    (message,) = messages(f"model {{ embed(dim = 64, vocab = 4)  {body} }}")
    assert "a, a, a, b, a, a" in message
    assert "`depth = 6`" in message


@pytest.mark.parametrize(
    "text",
    [
        "model { embed(dim = 8, vocab = 4)  repeat(10000) { repeat(10000) { swiglu } } }",
        "let b0 = swiglu\n"
        + "\n".join(f"let b{i + 1} = residual {{ b{i}  b{i} }}" for i in range(40))
        + "\nmodel { embed(dim = 8, vocab = 4)  b40 }",
        "def b0 = swiglu(expand = 1 | 2)\n"
        + "\n".join(f"def b{i + 1} {{ b{i}  b{i} }}" for i in range(40))
        + "\nmodel { embed(dim = 8, vocab = 4)  b40 }",
        "let b0 = 9\n"
        + "\n".join(f"let b{i + 1} = b{i} * b{i}" for i in range(40))
        + "\nmodel { embed(dim = b40, vocab = 4) }",
        "let b0 = 9\n"
        + "\n".join(f"let b{i + 1} = b{i}" for i in range(400))
        + "\nmodel { embed(dim = b400, vocab = 4) }",
        "model { embed(dim = 8, vocab = 4)  repeat(1 .. 10000) { swiglu } }",
        "model { embed(dim = 8, vocab = 4)  stack(4, ratio = 999999999:1) { a: gla  b: gla } }",
    ],
    ids=["copies", "lets", "definitions", "arithmetic", "chain", "depths", "ratio"],
)
def test_what_grows_too_large_is_refused(text: str) -> None:
    (diagnostic,) = check_text(text)
    assert diagnostic.severity.value == "error"
