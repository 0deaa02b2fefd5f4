"""Programs for Hypothesis: any syntax tree that some text has."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from archdsl.diagnostics import Source, Span
from archdsl.grammar import ast, numbers
from archdsl.grammar.flat import ATOM, PRODUCT, RANGE, SIGNED, SUM, binding

NOWHERE = Span(Source("<made>", ""), 0, 0)
WORDS_OF_RANGES = {"by", "log"}
NOT_LAYERS = {
    "let",
    "def",
    "task",
    "for",
    "while",
    "if",
    "elif",
    "else",
    "lambda",
    "return",
    "import",
}
KEYWORDS = [
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
]

Strategy = st.SearchStrategy[Any]


def node(kind: type[ast.Node], **fields: Any) -> Strategy:
    """A node with fields drawn from strategies."""
    return st.builds(kind, span=st.just(NOWHERE), **fields)


def tight(strategy: Strategy, level: int) -> Strategy:
    """The expressions of a strategy, in parentheses where they bind too loosely."""
    return strategy.map(lambda e: e if binding(e) >= level else ast.Group(e, span=NOWHERE))


def some(strategy: Strategy, least: int = 0, most: int = 4) -> Strategy:
    """Tuples of what a strategy draws."""
    return st.lists(strategy, min_size=least, max_size=most).map(tuple)


names = st.one_of(
    st.from_regex(r"[a-z_][a-z0-9_]{0,9}", fullmatch=True),
    st.sampled_from([*KEYWORDS, "gla", "a_rather_long_name_for_a_component"]),
).filter(lambda name: name not in ("true", "false", "none"))

layer_names = names.filter(lambda name: name not in NOT_LAYERS | WORDS_OF_RANGES)

spelt = st.from_regex(
    r"[0-9]{1,6}(\.[0-9]{1,4})?([eE][+-]?[0-9])?(KiB|MiB|GiB|[KMBT])?", fullmatch=True
)

texts = st.text(
    st.characters(exclude_categories=["C", "Zl", "Zp"], exclude_characters='"'), max_size=12
)

atoms = st.one_of(
    spelt.map(lambda text: ast.Number(numbers.value(text), text, span=NOWHERE)),
    node(ast.Ratio, parts=some(st.integers(0, 99), 2)),
    node(ast.String, value=texts),
    node(ast.Boolean, value=st.booleans()),
    node(ast.Nothing),
    node(
        ast.Component,
        name=some(names, 1, 3),
        arguments=st.none(),
        body=st.none(),
        name_span=st.just(NOWHERE),
    ),
)


def arguments(values: Strategy) -> Strategy:
    """The arguments of a call."""
    return some(node(ast.Argument, name=st.none() | names, value=values))


def components(values: Strategy, first: Strategy) -> Strategy:
    """Components whose first name comes from a strategy."""
    return node(
        ast.Component,
        name=st.tuples(first, some(names, 0, 1)).map(lambda pair: (pair[0], *pair[1])),
        arguments=st.none() | arguments(values),
        body=st.none() | bodies(values),
        name_span=st.just(NOWHERE),
    )


def calls(values: Strategy) -> Strategy:
    """``(a | b)(arguments)``."""
    return node(ast.Call, function=values, arguments=arguments(values))


def chosen(first: Strategy, others: Strategy) -> Strategy:
    """One alternative, or a choice."""
    several = st.tuples(first, some(others, 1, 3)).map(lambda pair: (pair[0], *pair[1]))
    return first | several.map(lambda parts: ast.Choice(parts, span=NOWHERE))


def bodies(values: Strategy) -> Strategy:
    """Layers and equations in braces."""
    head = node(ast.Nothing) | st.deferred(lambda: components(values, layer_names))
    branch = head | node(ast.Group, value=values) | calls(values)
    bare = node(ast.Layer, label=st.none(), value=chosen(head, branch))
    labelled = node(ast.Layer, label=names, value=chosen(branch, branch))
    equation = node(ast.Equation, target=names, value=values, target_span=st.just(NOWHERE))
    return node(ast.Body, items=some(st.one_of(bare, labelled, equation), 0, 3))


def compounds(values: Strategy) -> Strategy:
    """Everything that is made of expressions."""
    sums, signed = tight(values, SUM), tight(values, SIGNED)
    ranges = node(ast.Range, low=sums, high=sums, step=st.none() | sums, log=st.just(False))
    logs = node(ast.Range, low=sums, high=sums, step=st.none(), log=st.just(True))
    sign, factor = st.sampled_from("+-"), st.sampled_from("*/")
    return st.one_of(
        components(values, names),
        calls(values),
        node(ast.Group, value=values),
        node(ast.Array, items=some(values)),
        node(ast.Choice, alternatives=some(tight(values, RANGE), 2)),
        ranges,
        logs,
        node(ast.Unary, operator=sign, operand=tight(values, ATOM) | signed.filter(_is_unary)),
        node(ast.Binary, operator=sign, left=sums, right=tight(values, PRODUCT)),
        node(ast.Binary, operator=factor, left=tight(values, PRODUCT), right=signed),
    )


def _is_unary(value: ast.Expression) -> bool:
    return isinstance(value, ast.Unary) or binding(value) == ATOM


expressions = st.recursive(atoms, compounds, max_leaves=12)

conditions = node(
    ast.Compare,
    operator=st.sampled_from(["<=", ">=", "==", "!=", "<", ">"]),
    left=expressions,
    right=expressions,
)

parameters = node(ast.Parameter, name=names, default=st.none() | expressions)

settings = st.one_of(
    node(
        ast.Setting,
        name=names.filter(lambda n: n not in ("maximize", "minimize")),
        value=expressions,
        name_span=st.just(NOWHERE),
    ),
    node(ast.Objective, direction=st.sampled_from(["maximize", "minimize"]), value=expressions),
)

named = {"name": names, "name_span": st.just(NOWHERE)}
"""The fields of whatever has a name."""

items = st.one_of(
    node(ast.Use, path=texts, alias=st.none() | names, path_span=st.just(NOWHERE)),
    node(ast.Let, value=expressions, **named),
    node(ast.Task, value=expressions, **named),
    node(
        ast.Def, parameters=st.none() | some(parameters), value=expressions, body=st.none(), **named
    ),
    node(
        ast.Def,
        parameters=st.none() | some(parameters),
        value=st.none(),
        body=bodies(expressions),
        **named,
    ),
    node(ast.Model, body=bodies(expressions)),
    node(ast.Require, condition=conditions),
    node(ast.Section, name=st.sampled_from(["train", "search"]), settings=some(settings)),
)

programs = node(ast.Program, items=some(items, 1, 4))
