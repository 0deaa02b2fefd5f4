"""From text to tree: what each form of the language means, and where each node stands."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from fractions import Fraction

import pytest
from fuzz_syntax import SPEC

from archdsl.diagnostics import ArchError
from archdsl.grammar import ast
from archdsl.grammar.flat import format_expression
from archdsl.grammar.parse import parse


def value(text: str) -> ast.Expression:
    (item,) = parse(f"let x = {text}").items
    assert isinstance(item, ast.Let)
    return item.value


def layers(text: str) -> tuple[ast.Layer | ast.Equation, ...]:
    (item,) = parse(f"model {{ {text} }}").items
    assert isinstance(item, ast.Model)
    return item.body.items


def walk(node: ast.Node) -> Iterator[ast.Node]:
    yield node
    for child in node.children():
        yield from walk(child)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("128", 128),
        ("0.5", Fraction(1, 2)),
        ("1e-3", Fraction(1, 1000)),
        ("1.5e3", 1500),
        ("2.0", 2),
        ("4M", 4_000_000),
        ("2.5K", 2500),
        ("7B", 7 * 10**9),
        ("1T", 10**12),
        ("256KiB", 256 * 1024),
        ("0.5MiB", 512 * 1024),
        ("1GiB", 1 << 30),
        ("1e300", 10**300),
        ("1e-300", Fraction(1, 10**300)),
    ],
)
def test_numbers_are_exact(text: str, number: int | Fraction) -> None:
    parsed = value(text)
    assert isinstance(parsed, ast.Number)
    assert parsed.value == number
    assert type(parsed.value) is type(number)
    assert parsed.text == text


@pytest.mark.parametrize(
    "text", ["1" * 31, "0." + "1" * 30, "1e301", "1e-301", "1e" + "9" * 10_000, "1" * 9999 + ":1"]
)
def test_numbers_out_of_bounds_are_never_built(text: str) -> None:
    with pytest.raises(ArchError, match="number-out-of-bounds"):
        value(text)


def test_ratios_have_two_parts_or_more() -> None:
    assert isinstance(value("3:1"), ast.Ratio)
    assert value("6:1:1") == ast.Ratio((6, 1, 1), span=value("1").span)


@pytest.mark.parametrize(
    ("text", "grouped"),
    [
        ("1 + 2 * 3", "1 + (2 * 3)"),
        ("1 - 2 - 3", "(1 - 2) - 3"),
        ("8/3/2", "(8/3)/2"),
        ("-a * b", "(-a) * b"),
        ("a | b .. c", "a | (b .. c)"),
        ("a + 1 .. b * 2", "(a + 1) .. (b * 2)"),
    ],
)
def test_operators_bind(text: str, grouped: str) -> None:
    assert format_expression(value(text)) == format_expression(_ungrouped(value(grouped)))


def _ungrouped(expression: ast.Expression) -> ast.Expression:
    """The same without parentheses; the printer puts back those that matter."""
    match expression:
        case ast.Group(value=inner):
            return _ungrouped(inner)
        case ast.Binary(operator=operator, left=left, right=right, span=span):
            return ast.Binary(operator, _ungrouped(left), _ungrouped(right), span=span)
        case ast.Range(low=low, high=high, span=span):
            return ast.Range(_ungrouped(low), _ungrouped(high), None, log=False, span=span)
        case ast.Choice(alternatives=parts, span=span):
            return ast.Choice(tuple(map(_ungrouped, parts)), span=span)
    return expression


def test_ranges() -> None:
    plain, stepped, log = value("1 .. 8"), value("8 .. 64 by 8"), value("1e-4 .. 1e-2 log")
    assert isinstance(plain, ast.Range)
    assert plain.step is None
    assert not plain.log
    assert isinstance(stepped, ast.Range)
    assert isinstance(stepped.step, ast.Number)
    assert isinstance(log, ast.Range)
    assert log.log


def test_calls_of_groups() -> None:
    call = value("(a | b)(heads = 4)")
    assert isinstance(call, ast.Call)
    assert isinstance(call.function, ast.Choice)
    assert call.arguments[0].name == "heads"
    assert isinstance(value("(a | b)"), ast.Group)


def test_names_may_have_several_parts() -> None:
    component = value("memories.gla(heads = 4)")
    assert isinstance(component, ast.Component)
    assert component.name == ("memories", "gla")
    assert component.name_span.text == "memories.gla"


def test_missing_and_empty_arguments_differ() -> None:
    bare, called = value("gla"), value("gla()")
    assert isinstance(bare, ast.Component)
    assert isinstance(called, ast.Component)
    assert bare.arguments is None
    assert called.arguments == ()


def test_layers_labels_and_equations() -> None:
    plain, labelled, call, equation = layers(
        "gla | none  linear: a | (b)  full: (a | b)(c = 1)  h = z * h"
    )
    assert isinstance(plain.value, ast.Choice)
    assert isinstance(plain.value.alternatives[1], ast.Nothing)
    assert isinstance(labelled, ast.Layer)
    assert labelled.label == "linear"
    assert isinstance(call.value, ast.Call)
    assert isinstance(equation, ast.Equation)
    assert equation.target == "h"


def test_both_forms_of_def() -> None:
    first, second = parse("def f { a }  def g(x, y = 3) = x").items
    assert isinstance(first, ast.Def)
    assert isinstance(second, ast.Def)
    assert first.parameters is None
    assert first.value is None
    assert second.body is None
    assert second.parameters
    assert [parameter.name for parameter in second.parameters] == ["x", "y"]


def test_requirements_compare_and_may_hold_choices() -> None:
    (item,) = parse("require params <= 4M | 8M").items
    assert isinstance(item, ast.Require)
    assert isinstance(item.condition, ast.Compare)
    assert isinstance(item.condition.right, ast.Choice)


@pytest.mark.parametrize(
    "word",
    [
        "use",
        "let",
        "def",
        "model",
        "require",
        "task",
        "train",
        "search",
        "maximize",
        "minimize",
        "by",
        "log",
        "as",
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "let a = f({} = 3)",
        "let a = {}",
        "let {} = 3",
        "let a = {} + {}(1)",
        "def f({}, b = {}) {{ rms_norm\n {}\n gla }}",
        "def {} = gla",
        "task {} = mqar",
        "model {{ gla  {}: gla | {}\n {}(heads = 4) }}",
        "def f = cell {{ {} = x  h = {} * 2 }}",
        "require {} <= 3",
        "search {{ rank = {}  maximize {} }}",
    ],
)
def test_keywords_are_names_where_no_item_can_begin(word: str, text: str) -> None:
    assert parse(text.replace("{}", word).replace("{{", "{").replace("}}", "}"))


def test_the_words_of_ranges_are_names_too() -> None:
    (section,) = parse("search { rate = 1 .. log log  log = 3  size = 1 .. 9 by by  by = 2 }").items
    assert isinstance(section, ast.Section)
    assert [setting.name for setting in section.settings] == ["rate", "log", "size", "by"]  # type: ignore[union-attr]


def test_newlines_never_matter() -> None:
    flat = " ".join(line.split("#")[0] for line in SPEC.splitlines())
    broken = "\n".join(flat.split(" "))
    assert parse(flat) == parse(SPEC)
    assert parse(broken) == parse(SPEC)


def test_commas_may_trail() -> None:
    assert value("f(a, b = [1, 2,],)") == value("f(a, b = [1, 2])")
    assert parse("def f(a, b = 1,) = a") == parse("def f(a, b = 1) = a")


def test_every_expression_stands_where_its_span_says() -> None:
    for node in walk(parse(SPEC)):
        assert node.span.start <= node.span.end
        if isinstance(node, ast.Expression) and not isinstance(node, ast.Compare):
            assert value(node.span.text) == node


def test_children_lie_within_their_parents() -> None:
    for node in walk(parse(SPEC)):
        for child in node.children():
            assert node.span.start <= child.span.start <= child.span.end <= node.span.end


def test_names_stand_where_their_spans_say() -> None:
    let, definition, task = parse("let a = f(b = 1)  def c(d) { e: g }  task h = i").items
    assert isinstance(let, ast.Let)
    assert isinstance(let.value, ast.Component)
    assert let.value.arguments
    assert let.value.arguments[0].name_span
    assert isinstance(definition, ast.Def)
    assert definition.body
    layer = definition.body.items[0]
    assert isinstance(layer, ast.Layer)
    assert layer.label_span
    assert isinstance(task, ast.Task)
    spans = (
        let.name_span,
        let.value.arguments[0].name_span,
        definition.name_span,
        layer.label_span,
        task.name_span,
    )
    assert [span.text for span in spans] == ["a", "b", "c", "e", "h"]


def test_comments_are_kept_in_order() -> None:
    comments = parse('# one\nlet a = "#not" # two \n#three').comments
    assert [comment.text for comment in comments] == ["one", "two", "three"]
    assert [comment.span.line for comment in comments] == [1, 2, 3]


def test_trees_can_be_pickled_and_hashed() -> None:
    program = parse(SPEC)
    assert pickle.loads(pickle.dumps(program)) == program
    assert hash(parse(SPEC)) == hash(program)


def test_threads_do_not_disturb_each_other() -> None:
    results: dict[int, ast.Program] = {}

    def work(number: int) -> None:
        for _ in range(20):
            results[number] = parse(f"let a = {number}\n{SPEC}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, program in results.items():
        assert program == parse(f"let a = {number}\n{SPEC}")
        assert program.items[0].span.source.text.startswith(f"let a = {number}\n")


def test_an_error_can_be_pickled() -> None:
    with pytest.raises(ArchError) as caught:
        parse("let a == 1")
    assert pickle.loads(pickle.dumps(caught.value)).diagnostics == caught.value.diagnostics
