"""From the syntax tree to terms: names are resolved, definitions written out, choices kept.

A definition is a macro with one rule: it means what its body would mean written at the place of use.
A choice is one site for each frame it is met in, and an argument keeps the frame it is written in;
everything the language says about which draws are shared follows from these two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from archdsl.compiler.reading import cells, components, numeric, unknown, uses, values
from archdsl.compiler.reading.context import At, Call, Closure, Frame
from archdsl.compiler.reading.names import Scope, standard
from archdsl.compiler.terms.term import Broken, Choice, Constant, Series, Site, Term
from archdsl.diagnostics import ArchError, Diagnostic, Report, Severity
from archdsl.grammar import ast

DEEPEST = 90
"""How many levels of arguments, bodies and definitions may stand inside one another."""

MOST_TERMS = 15_000
"""How many terms a file may become when its definitions are written out."""


class Elaborator:
    """Elaborates the expressions of one program.

    Args:
        scope: the main file.
        report: takes the diagnostics; a term that has one is :class:`Broken`.
    """

    def __init__(self, scope: Scope, report: Report) -> None:
        self.report = report
        self.recursive: set[int] = set()
        self.written: set[int] = set()
        self.equations: dict[Any, Term] = {}
        self._keys: dict[tuple[Any, ...], int] = {}
        self._roots: dict[int, Frame] = {}
        self._lets: dict[int, Closure] = {}
        self._sites: dict[tuple[int, int, int], Site] = {}
        self._paths: dict[str, int] = {}
        self._depth = self._count = 0
        self.root = self.frame_of(scope)

    # --- frames, keys and sites -------------------------------------------------------------------

    def key(self, *parts: Any) -> int:
        """A number for a combination, the same each time."""
        return self._keys.setdefault(parts, len(self._keys))

    def frame_of(self, scope: Scope) -> Frame:
        """The frame of a file's own names."""
        if id(scope) not in self._roots:
            self._roots[id(scope)] = Frame(scope, self.key("file", id(scope)))
        return self._roots[id(scope)]

    def anew(self, frame: Frame, each: int) -> Frame:
        """The frame as it is inside an ``each``."""
        return replace(frame, key=self.key("anew", each, frame.key), each=True)

    def site(
        self,
        expression: ast.Choice | ast.Range,
        at: At,
        size: int,
        texts: Callable[[int], str],
    ) -> Site:
        """The site of a choice: one for each frame it is met in."""
        key = (id(expression), at.frame.key, size)
        if key not in self._sites:
            self._sites[key] = Site(
                path=self._unique(".".join(at.path)),
                span=at.frame.spot(expression.span),
                kind="choice" if isinstance(expression, ast.Choice) else "range",
                size=size,
                texts=texts,
                each=at.frame.each,
                key=len(self._sites),
                name=f"{short(expression)}" if at.inside else at.path[-1],
            )
        return self._sites[key]

    def _unique(self, path: str) -> str:
        self._paths[path] = self._paths.get(path, 0) + 1
        count = self._paths[path]
        return path if count == 1 else self._unique(f"{path}#{count}")

    # --- expressions ------------------------------------------------------------------------------

    def term(self, expression: ast.Expression, at: At) -> Term:
        """The term of an expression; what is wrong with it is reported."""
        self._depth += 1
        self._count += 1
        try:
            self._check_size(expression, at)
            return self._term(expression, at)
        except ArchError as error:
            for diagnostic in error.diagnostics:
                self.report.add(diagnostic)
            return Broken(at.frame.spot(expression.span))
        finally:
            self._depth -= 1

    def _check_size(self, expression: ast.Node, at: At) -> None:
        span = at.frame.trail[-1] if at.frame.trail else at.frame.spot(expression.span)
        if self._depth > DEEPEST:
            message = "this is nested too deeply"
            raise TooMuch(Diagnostic("nested-too-deeply", message, span))
        if self._count > MOST_TERMS:
            message = "definitions that use one another make this file too large to write out"
            raise TooMuch(Diagnostic("expands-too-far", message, span))

    def _term(self, expression: ast.Expression, at: At) -> Term:
        match expression:
            case ast.Component():
                return self._component(expression, at)
            case ast.Group(value=value):
                return self._term(value, at)
            case ast.Call(function=function, arguments=arguments):
                call = Call(arguments, None, at.frame, at.path, expression.span)
                return self._term(function, replace(at, calls=(call, *at.calls)))
            case ast.Choice():
                return self._choice(expression, at)
        if at.calls:
            raise ArchError(unknown.not_callable(expression, at))
        return self._value(expression, at)

    def _value(self, expression: ast.Expression, at: At) -> Term:
        span = at.frame.spot(expression.span)
        match expression:
            case ast.Range():
                return numeric.points(self, expression, at)
            case ast.Number(value=number):
                if at.expect.equation:
                    return cells.number(Constant(span, number))
                return Constant(span, values.typed(at, expression.span)(number))
            case ast.Binary() | ast.Unary():
                if at.expect.equation:
                    return cells.arithmetic(self, expression, at)
                return numeric.arithmetic(self, expression, at)
            case ast.Array():
                return numeric.listing(self, expression, at)
            case ast.Nothing() if at.expect.layers:
                return Series(span, ())
            case ast.Compare():
                message = "a comparison belongs in `require`"
                raise ArchError(Diagnostic("misplaced-comparison", message, span))
        return Constant(span, values.literal(expression, at))

    def _choice(self, expression: ast.Choice, at: At) -> Term:
        if at.fixed:
            message = f"{at.what} cannot be a choice"
            raise ArchError(unknown.diagnostic("choice-not-allowed", message, expression.span, at))
        self._check_alternatives(expression, at)
        texts = tuple(map(short, expression.alternatives))
        site = self.site(expression, at, len(texts), texts.__getitem__)
        alternatives = tuple(self.term(item, at) for item in expression.alternatives)
        return Choice(at.frame.spot(expression.span), site, alternatives)

    def _check_alternatives(self, expression: ast.Choice, at: At) -> None:
        for index, item in enumerate(expression.alternatives):
            if item in expression.alternatives[:index]:
                message = f"the alternative `{short(item)}` is written twice"
                diagnostic = unknown.diagnostic(
                    "duplicate-alternative", message, item.span, at, severity=Severity.WARNING
                )
                self.report.add(diagnostic)

    # --- names ------------------------------------------------------------------------------------

    def _component(self, expression: ast.Component, at: At) -> Term:
        first = expression.name[0]
        calls = self._calls(expression, at)
        if len(expression.name) == 1 and not calls:
            if first in at.frame.locals and at.expect.equation:
                return cells.name(first, expression, at)
            if at.expect.word and first not in at.frame.parameters:
                return Constant(at.frame.spot(expression.span), first)
            if first in at.expect.symbols:  # whatever else the file calls so
                return Constant(at.frame.spot(expression.span), first)
        if expression.name == ("each",):
            return self._each(expression, at)
        if len(expression.name) == 1 and first in at.frame.parameters:
            return self.closure(at.frame.parameters[first], expression, at, calls)
        found = at.frame.scope.find(expression.name)
        if found is None and len(expression.name) > 1:
            raise ArchError(unknown.unknown_dotted(expression, at))
        if found is None and at.expect.components:
            found = standard(first)
        if found is not None:
            return self._definition(*found, expression, at, calls)
        return components.registered(self, expression, at, calls)

    def _calls(self, expression: ast.Component, at: At) -> tuple[Call, ...]:
        if expression.arguments is None and expression.body is None:
            return at.calls
        own = Call(
            expression.arguments or (),
            expression.body,
            at.frame,
            (*at.path, expression.name[-1]),
            expression.span,
        )
        return (own, *at.calls)

    def _each(self, expression: ast.Component, at: At) -> Term:
        arguments = expression.arguments or ()
        if len(arguments) != 1 or arguments[0].name is not None or expression.body is not None:
            raise ArchError(
                unknown.diagnostic(
                    "misused-each", "`each` takes one thing to draw anew for every copy",
                    expression.name_span, at, help="write `each(a | b)`",
                )
            )  # fmt: skip
        key = self.key("each", id(expression), at.frame.key)
        inner = replace(at, frame=self.anew(at.frame, key), each=key)
        term = self.term(arguments[0].value, inner)
        if not term.each and not term.broken:
            message = "`each` draws anew for every copy, and there is no choice in here"
            self.report.add(
                unknown.diagnostic(
                    "idle-each", message, expression.span, at, severity=Severity.WARNING
                )
            )
        return term

    def closure(
        self, closure: Closure, expression: ast.Component, at: At, calls: tuple[Call, ...]
    ) -> Term:
        """What an argument or a ``let`` is in the place it is used in."""
        if closure.expression is None:
            return Broken(at.frame.spot(expression.span))
        plain = not calls and at.each is None
        if plain and (at.expect, at.fixed) in closure.terms:
            return closure.terms[at.expect, at.fixed]
        if closure.busy:
            message = f"`{closure.name}` is defined by itself"
            raise ArchError(unknown.diagnostic("recursion", message, expression.name_span, at))
        frame = closure.frame if at.each is None else self.anew(closure.frame, at.each)
        via = at.frame.spot(expression.name_span)
        inner = replace(at, frame=frame, path=closure.path, calls=calls, via=via, inside=False)
        if at.frame.scope.library and closure.what:
            inner = replace(inner, what=closure.what, via=None)
        closure.busy = True
        try:
            term = self.term(closure.expression, inner)
        finally:
            closure.busy = False
        if plain:
            closure.terms[at.expect, at.fixed] = term
        closure.opaque = closure.opaque or not plain
        return term

    def _definition(
        self,
        scope: Scope,
        definition: ast.Let | ast.Def,
        expression: ast.Component,
        at: At,
        calls: tuple[Call, ...],
    ) -> Term:
        if id(definition) in self.recursive:
            return Broken(at.frame.spot(expression.span))
        if isinstance(definition, ast.Let):
            return self.closure(self._let(scope, definition), expression, at, calls)
        return uses.written_out(self, scope, definition, expression, at, calls)

    def _let(self, scope: Scope, item: ast.Let) -> Closure:
        if id(item) not in self._lets:
            path = (scope.title, item.name) if scope.title else (item.name,)
            self._lets[id(item)] = Closure(item.name, item.value, self.frame_of(scope), path)
        return self._lets[id(item)]


class TooMuch(Exception):
    """The file is too large or too deep to go on."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(diagnostic.message)


def short(expression: ast.Expression) -> str:
    """An alternative's text in one line."""
    text = " ".join(expression.span.text.split())
    return text if len(text) <= 48 else f"{text[:47]}…"
