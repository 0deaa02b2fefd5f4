"""The equations of a cell, with their choices kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from archdsl.blocks import equations
from archdsl.blocks.base import LARGEST
from archdsl.compiler.reading.context import At, Call, Closure
from archdsl.compiler.reading.numeric import calculation
from archdsl.compiler.terms.cell_terms import Applied, Assigned, Wrapped
from archdsl.compiler.terms.expect import EQUATION, Expect, Interval
from archdsl.compiler.terms.explore import no_choice
from archdsl.compiler.terms.term import Broken, Choice, Constant, Listing, Make, Run, Term
from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean
from archdsl.grammar import ast

if TYPE_CHECKING:
    from archdsl.compiler.reading.elaborate import Elaborator

OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "div"}

OPTIONS = {
    "linear": {
        "bias": Expect(boolean=True),
        "diagonal": Expect(boolean=True),
        "blocks": Expect(boolean=True),
        "copies": Expect(boolean=True),
        "rank": Expect(integer=Interval(ge=1, le=LARGEST)),
        "norm": Expect(boolean=True),
        "init": Expect(symbols=equations.INITIALISATIONS),
        "bias_init": Expect(symbols=equations.INITIALISATIONS),
        "gain": Expect(real=Interval(gt=0, le=10**6)),
    },
    "parameter": {"copies": Expect(boolean=True)},
}
"""What the named settings of functions take in an equation."""

assert tuple(OPTIONS["linear"]) == equations.LINEAR_OPTIONS
assert tuple(OPTIONS["parameter"]) == equations.PARAMETER_OPTIONS


def closed(term: Term) -> Term:
    """The term as one value where nothing below it is a choice: who reads it has one term to look at."""
    if term.broken or not all(map(_settled, term.children())):
        return term
    return Constant(term.span, term.evaluate(Run(no_choice), ()))


def _settled(term: Term) -> bool:
    return isinstance(term.number if isinstance(term, Wrapped) else term, Constant)


def number(value: Term) -> Term:
    """A number as a part of an equation."""
    return Wrapped(value.span, value)


def name(word: str, expression: ast.Expression, at: At) -> Term:
    """The input, a state, or something assigned above."""
    return Constant(at.frame.spot(expression.span), equations.Name(word))


def arithmetic(elaborator: Elaborator, expression: ast.Binary | ast.Unary, at: At) -> Term:
    """``a + b`` and its kin; between two numbers it is done at once."""
    span = at.frame.spot(expression.span)
    inner = at.plain(EQUATION)
    if isinstance(expression, ast.Unary):
        operand = elaborator.term(expression.operand, inner)
        if isinstance(operand, Wrapped):
            zero = Constant(span, 0)
            return Wrapped(span, calculation(expression.operator, zero, operand.number, span))
        return operand if expression.operator == "+" else closed(Applied(span, "neg", (operand,)))
    left = _operand(elaborator, expression.left, inner)
    right = _operand(elaborator, expression.right, inner)
    if isinstance(left, Wrapped) and isinstance(right, Wrapped):
        return Wrapped(span, calculation(expression.operator, left.number, right.number, span))
    if expression.operator == "/" and isinstance(right, Wrapped):
        one = Constant(span, 1)
        calculation("/", one, right.number, span)
    return closed(Applied(span, OPERATORS[expression.operator], (left, right)))


def function(
    elaborator: Elaborator, word: str, expression: ast.Component, at: At, calls: tuple[Call, ...]
) -> Term:
    """A function applied to the arguments of the last call."""
    span = at.frame.spot(expression.span)
    if word not in equations.FUNCTIONS or not calls:
        raise ArchError(_unknown(word, expression, at, called=bool(calls)))
    call = calls[-1]
    inside = _inside(call, EQUATION, f"an argument of `{word}`")
    terms = [_operand(elaborator, a.value, inside) for a in call.arguments if a.name is None]
    options = [
        option
        for a in call.arguments
        if a.name is not None
        for option in _option(elaborator, word, a, call)
    ]
    _check_count(elaborator, word, len(terms), call, at)
    return closed(Applied(span, word, tuple(terms), tuple(options)))


def _operand(elaborator: Elaborator, expression: ast.Expression, at: At) -> Term:
    """The term of a part of an equation; a name that an equation may read takes no more than that."""
    word = _bare(expression)
    return (
        name(word, expression, at) if word in at.frame.locals else elaborator.term(expression, at)
    )


def _bare(expression: ast.Expression) -> str:
    """The one word that an expression is, if it is one."""
    if not isinstance(expression, ast.Component) or len(expression.name) > 1:
        return ""
    plain = expression.arguments is None and expression.body is None
    return expression.name[0] if plain else ""


def _inside(call: Call, expect: Expect, what: str, *name: str) -> At:
    return At(call.frame, (*call.path, *name), expect, what)


def _option(
    elaborator: Elaborator, word: str, argument: ast.Argument, call: Call
) -> Iterator[tuple[str, Term]]:
    assert argument.name is not None
    known = OPTIONS.get(word, {})
    word_given = _bare(argument.value)
    if argument.name in known and word_given in known[argument.name].symbols:
        yield argument.name, Constant(call.frame.spot(argument.value.span), word_given)
        return
    if argument.name in known:
        what = f"`{argument.name}` of `{word}`"
        at = _inside(call, known[argument.name], what, argument.name)
        yield argument.name, elaborator.term(argument.value, at)
        return
    span = call.frame.spot(argument.name_span or argument.span)
    settings = f"settings of `{word}`: {', '.join(known)}" if known else f"`{word}` has no settings"
    elaborator.report.add(
        Diagnostic(
            "unknown-parameter", f"`{word}` has no parameter `{argument.name}`", span,
            label=did_you_mean(argument.name, known), help=settings,
        )
    )  # fmt: skip


def _check_count(elaborator: Elaborator, word: str, count: int, call: Call, at: At) -> None:
    least, most = equations.ARGUMENTS[word]
    span = call.frame.spot(call.span)
    if count < least:
        message = f"`{word}` takes {_things(least)}, and here {'are' if count else 'is'} {count or 'none'}"
        elaborator.report.add(Diagnostic("missing-argument", message, span))
    elif most is not None and count > most:
        message = f"`{word}` takes {_things(most)}, and here {'are' if count > 1 else 'is'} {count}"
        elaborator.report.add(Diagnostic("too-many-arguments", message, span))


def _things(count: int) -> str:
    return f"{count or 'no'} argument{'' if count == 1 else 's'}"


def _unknown(word: str, expression: ast.Component, at: At, *, called: bool) -> Diagnostic:
    span = at.frame.spot(expression.name_span)
    own = [*at.frame.locals, *at.frame.parameters, *at.frame.scope.names()]
    if word in equations.FUNCTIONS:
        return Diagnostic(
            "unknown-name", f"`{word}` is a function and needs arguments", span,
            help=f"write `{word}(…)`",
        )  # fmt: skip
    if called:
        label = did_you_mean(word, [*equations.FUNCTIONS, *own])
        return Diagnostic(
            "unknown-function", f"there is no function `{word}` in equations", span, label=label,
            help=f"functions: {', '.join(equations.FUNCTIONS)}",
        )  # fmt: skip
    return Diagnostic(
        "unknown-name", f"`{word}` is neither the input, a state, nor assigned above", span,
        label=did_you_mean(word, own), help=f"known here: {', '.join(sorted(at.frame.locals))}",
    )  # fmt: skip


# --- the body -------------------------------------------------------------------------------------


def body(elaborator: Elaborator, made: Make, call: Call) -> bool:
    """Give a cell its equations; false where something in them is wrong."""
    assert call.body is not None
    states = _names(made.arguments.get("state"))
    if states is None:
        term = made.arguments.get("state")
        if term is not None and not term.broken:
            message = "the states of a cell cannot be a choice"
            elaborator.report.add(Diagnostic("choice-not-allowed", message, term.span))
        return False
    terms: list[Term] = []
    known = {*equations.INPUTS, *states}
    for item in call.body.items:
        terms.append(_assignment(elaborator, item, call, frozenset(known)))
        if isinstance(item, ast.Equation):
            known.add(item.target)
    targets = [item.target for item in call.body.items if isinstance(item, ast.Equation)]
    _check_assigned(elaborator, made, call, states, targets)
    listing = Listing(call.frame.spot(call.body.span), tuple(terms))
    made.arguments["equations"] = closed(listing)
    made.__post_init__()
    return not any(term.broken for term in terms)


def _assignment(
    elaborator: Elaborator, item: ast.Layer | ast.Equation, call: Call, known: frozenset[str]
) -> Term:
    span = call.frame.spot(item.span)
    if isinstance(item, ast.Layer):
        message = "the body of a cell holds equations such as `h = tanh(linear(x, h))`"
        elaborator.report.add(Diagnostic("misplaced-layer", message, span))
        return Broken(span)
    if item.target in equations.INPUTS:
        message = f"`{item.target}` is the input of the cell and cannot be assigned"
        elaborator.report.add(
            Diagnostic("input-assigned", message, call.frame.spot(item.target_span))
        )
        return Broken(span)
    key = id(item), known, call.frame.scope
    if key in elaborator.equations and call.frame.anchor is None:
        return elaborator.equations[key]
    asked, told = _Asked(call.frame.parameters), elaborator.report.told
    frame = replace(call.frame, locals=known, parameters=asked)
    at = At(frame, (*call.path, item.target), EQUATION, f"`{item.target}`")
    term = elaborator.term(item.value, at)
    found = term if term.broken else closed(Assigned(span, item.target, term))
    if isinstance(found, Constant) and not asked.any and elaborator.report.told == told:
        elaborator.equations[key] = found
    return found


class _Asked(dict[str, Closure]):
    """What a definition's parameters were given, and whether an equation asked for any of it."""

    any = False

    def __contains__(self, name: object) -> bool:
        found = super().__contains__(name)
        self.any = self.any or found
        return found


def _names(term: Term | None) -> tuple[str, ...] | None:
    """The states, where they are known."""
    return term.value if isinstance(term, Constant) else None


def _possible(term: Term | None) -> Iterator[tuple[str, Term]]:
    """Every name a term may be."""
    if isinstance(term, Constant):
        yield term.value, term
    elif isinstance(term, Choice):
        for alternative in term.alternatives:
            yield from _possible(alternative)


def _check_assigned(
    elaborator: Elaborator, made: Make, call: Call, states: tuple[str, ...], targets: list[str]
) -> None:
    for state in states:
        if state not in targets:
            message = f"no equation assigns the state `{state}`"
            span = made.arguments["state"].span
            help = f"write `{state} = …`, or take `{state}` out of `state`"
            elaborator.report.add(Diagnostic("state-not-assigned", message, span, help=help))
    for output, term in _possible(made.arguments.get("output")):
        if output not in targets:
            message = f"no equation assigns the output `{output}`"
            elaborator.report.add(
                Diagnostic(
                    "output-not-assigned", message, term.span, label=did_you_mean(output, targets)
                )
            )
