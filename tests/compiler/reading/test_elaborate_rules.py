"""What names, definitions and arguments mean, by how many architectures they make."""

from __future__ import annotations

import pytest

from archdsl.compiler.spaces.loading import loads
from archdsl.compiler.spaces.space import Space
from archdsl.compiler.terms.elements import Element


def space_of(head: str, body: str) -> Space:
    return loads(f"{head}\nmodel {{ embed(dim = 16, vocab = 4)  {body} }}")


def layers(space: Space) -> list[str]:
    """The layers of the first architecture behind ``embed``, as they are written."""
    return [shown(element) for element in next(space.enumerate()).root[1:]]


def shown(element: Element) -> str:
    inner = " ".join(shown(e) for visit in element.visits for e in visit.elements)
    name = element.origin or element.component.name
    return f"{name} {{ {inner} }}" if inner else name


SHARING = {
    "a let is drawn once": ("let a = 1 | 2", "swiglu(expand = a)  swiglu(expand = a)", 2),
    "an inline choice is drawn for each place": ("", "swiglu(expand = 1 | 2)  mlp(expand = 1 | 2)", 4),
    "copies share an inline choice": ("", "repeat(3) { swiglu(expand = 1 | 2) }", 2),
    "each copy draws anew": ("", "repeat(3) { swiglu(expand = each(1 | 2)) }", 8),
    "copies of copies": ("", "repeat(2) { repeat(2) { swiglu(expand = each(1 | 2)) } }", 16),
    "a let inside each is still shared": (
        "let a = 1 | 2", "repeat(3) { each(swiglu(expand = a) | rms_norm) }", 8 * 2 - 1,
    ),
    "each of a name draws the name anew": ("let a = 1 | 2", "repeat(3) { swiglu(expand = each(a)) }", 8),
    "a choice in a definition is drawn for each use": (
        "def f = swiglu(expand = 1 | 2)", "f  f", 4,
    ),
    "a default is drawn for each use": (
        "def f(x = 1 | 2) { swiglu(expand = x)  mlp(expand = x) }", "f  f", 4,
    ),
    "a choice as an argument is drawn once at that use": (
        "def f(x) { swiglu(expand = x)  mlp(expand = x) }", "f(1 | 2)  f(1 | 2)", 4,
    ),
    "a component as an argument is one component": (
        "def f(m) { m  m }", "f(swiglu(expand = 1 | 2))", 2,
    ),
    "an argument that is ignored is not drawn": ("def f(x, y) = swiglu(expand = x)", "f(1, 2 | 3)", 1),
    "a label that no layer uses is not drawn": (
        "", "stack(depth = 2, ratio = 1:0) { a: swiglu  b: swiglu(expand = 1 | 2) }", 1,
    ),
    "a choice exists where its alternative is chosen": ("", "swiglu(expand = 1 | 2) | rms_norm", 3),
    "choices nest": ("", "swiglu(expand = 1 | (2 | 3))", 3),
    "a called choice shares its draw": (
        "let m = gla | retnet", "m(heads = 2)  m(heads = 4)", 2,
    ),
    "an alternative may be nothing": ("", "residual { rms_norm | none  swiglu }", 2),
    "a definition may be nothing": ("def f(x) = x | none", "residual { f(swiglu)  f(rms_norm) }", 4),
    "ranges": (
        "", "swiglu(expand = 1 .. 4)  mlp(expand = 1/2 .. 4 log)  mlp(expand = 1 .. 2 by 1/4)", 80,
    ),
    "ranges are never written out": (
        "", "residual(scale = 1 .. 2 by 1/999999999) { rms_norm }", 10**9,
    ),
    "an argument of a choice is drawn once for all of it": (
        "", "miras(memory = matrix(heads = 2 | 4) | vector(expand = 1 | 2), gate = silu | none)", 8,
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", SHARING)
def test_sharing(title: str) -> None:
    head, body, count = SHARING[title]
    space = space_of(head, body)
    assert space.count() == count
    assert count > 1000 or sum(1 for _ in space.enumerate()) == count


MEANING = {
    "a definition is its layers in place": ("def f(x) { rms_norm  x }", "f(swiglu)", ["rms_norm", "swiglu"]),
    "a definition inside a label": (
        "def f(x) { rms_norm  x }", "stack(depth = 1) { a: f(swiglu) }", ["stack { rms_norm swiglu }"],
    ),
    "positional arguments fill in order": ("def f(a, b) { a  b }", "f(mlp, swiglu)", ["mlp", "swiglu"]),
    "a definition passes components on": (
        "def g(m) = residual { m }\ndef f(m) = g(m)", "f(swiglu)", ["residual { swiglu }"],
    ),
    "a definition inside itself as an argument": (
        "def g(m) = residual { m }", "g(g(swiglu))", ["residual { residual { swiglu } }"],
    ),
    "calling overrides arguments": (
        "let m = gla(heads = 2, conv = 4)", "m(heads = 8)", ["gla(heads = 8, conv = 4)"],
    ),
    "a parameter can be called": ("def f(m) = m(heads = 8)", "f(gla)", ["gla(heads = 8)"]),
    "a parameter is called with more": (
        "def f(m) = m(heads = 8)", "f(gla(conv = 4))", ["gla(heads = 8, conv = 4)"],
    ),
    "a definition takes a body": (
        "def twice = repeat(2)", "twice { swiglu }", ["repeat { swiglu swiglu }"],
    ),
    "a library definition keeps its call": ("let n = 2", "gla(heads = n * 2)", ["gla(heads = 4)"]),
    "a name goes to where it ends up": (
        "def f(a) = mlp(activation = a)", "f(relu)", ["mlp"],
    ),
    "own names come first": ("def gla = swiglu", "gla", ["swiglu"]),
    "an empty container is nothing": ("", "residual { none }  repeat(3) { none }  swiglu", ["swiglu"]),
}  # fmt: skip


@pytest.mark.parametrize("title", MEANING)
def test_meaning(title: str) -> None:
    head, body, expected = MEANING[title]
    assert layers(space_of(head, body)) == expected


def test_equal_visits_are_one_object() -> None:
    space = space_of("", "repeat(4) { residual { swiglu } }")
    (_, element) = space.sample(0).root
    assert len({id(visit) for visit in element.visits}) == 1


def test_visits_that_draw_alike_are_one_object() -> None:
    space = space_of("", "repeat(4) { swiglu(expand = each(1 | 2)) }")
    (_, element) = space.decide(lambda site: int("[2]" in site.path)).root
    assert [element.visits[0] is visit for visit in element.visits] == [True, True, False, True]


def test_the_name_of_a_parameter_in_an_equation() -> None:
    head = "let act = tanh | sigmoid\ndef gate(h) = sigmoid(linear(h))"
    cell = "cell(state = [h], output = h) { z = gate(x)  h = z * h + act(linear(x)) }"
    space = space_of(head, cell)
    written = [e for arch in space.enumerate() for e in arch.root[1].component.equations]  # type: ignore[attr-defined]
    assert [assignment.target for assignment in written] == ["z", "h", "z", "h"]
    assert space.count() == 2
