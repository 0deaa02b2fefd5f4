"""From the syntax tree to terms: names are resolved, definitions written out, choices kept.

A definition is a macro with one rule: it means what its body would mean written at the place of use.
A choice is one site for each frame it is met in, and an argument keeps the frame it is written in;
everything the language says about which draws are shared follows from these two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from archdsl.blocks import registry
from archdsl.blocks.base import Component, Layer
from archdsl.compiler import cells, values
from archdsl.compiler.arguments import Bound, bind
from archdsl.compiler.context import At, Call, Closure, Frame
from archdsl.compiler.expect import LAYERS, NUMBER, article, fields
from archdsl.compiler.names import Scope, standard, standard_names
from archdsl.compiler.terms import (
    Arithmetic,
    Broken,
    Child,
    Choice,
    Constant,
    LayerTerm,
    Listing,
    Make,
    Origin,
    Points,
    Series,
    Site,
    Term,
    Typed,
    calculate,
)
from archdsl.diagnostics import ArchError, Diagnostic, Report, Span, did_you_mean
from archdsl.grammar import ast

DEEPEST = 90
"""How many levels of arguments, bodies and definitions may stand inside one another."""

MOST_TERMS = 50_000
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

    def site(self, expression: ast.Choice | ast.Range, at: At, size: int, texts: Any) -> Site:
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
            )
        return self._sites[key]

    def _unique(self, path: str) -> str:
        self._paths[path] = self._paths.get(path, 0) + 1
        count = self._paths[path]
        return path if count == 1 else self._unique(f"{path}#{count}")

    # --- expressions ------------------------------------------------------------------------------

    def term(self, expression: ast.Expression, at: At) -> Term:
        """The term of an expression; what is wrong with it is reported."""
        with self._level(expression, at):
            try:
                return self._term(expression, at)
            except ArchError as error:
                for diagnostic in error.diagnostics:
                    self.report.add(diagnostic)
                return Broken(at.frame.spot(expression.span))

    @contextmanager
    def _level(self, expression: ast.Node, at: At) -> Iterator[None]:
        self._depth += 1
        self._count += 1
        try:
            if self._depth > DEEPEST:
                self._stop("nested-too-deeply", "this is nested too deeply", expression, at)
            if self._count > MOST_TERMS:
                message = "definitions that use one another make this file too large to write out"
                self._stop("expands-too-far", message, expression, at)
            yield
        finally:
            self._depth -= 1

    def _stop(self, id: str, message: str, expression: ast.Node, at: At) -> None:
        span = at.frame.trail[-1] if at.frame.trail else at.frame.spot(expression.span)
        self.report.add(Diagnostic(id, message, span))
        raise TooMuch

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
            found = values.described(expression)
            raise ArchError(
                self._diagnostic("not-callable", f"{found} takes no arguments", expression.span, at)
            )
        match expression:
            case ast.Range():
                return self._range(expression, at)
            case ast.Number(value=value):
                return self._number(value, expression, at)
            case ast.Binary() | ast.Unary():
                return self._arithmetic(expression, at)
            case ast.Array():
                return self._array(expression, at)
            case ast.Nothing() if at.expect.layers:
                return Series(at.frame.spot(expression.span), ())
            case ast.Compare():
                message = "a comparison belongs in `require`"
                raise ArchError(self._diagnostic("misplaced-comparison", message, expression.span, at))
        return Constant(at.frame.spot(expression.span), values.literal(expression, at))

    def _diagnostic(self, id: str, message: str, span: Span, at: At, **more: Any) -> Diagnostic:
        return Diagnostic(id, message, at.frame.spot(span), **more)

    def _choice(self, expression: ast.Choice, at: At) -> Term:
        if at.fixed:
            message = f"{at.what} cannot be a choice"
            raise ArchError(self._diagnostic("choice-not-allowed", message, expression.span, at))
        texts = tuple(map(short, expression.alternatives))
        site = self.site(expression, at, len(texts), texts.__getitem__)
        alternatives = tuple(self.term(item, at) for item in expression.alternatives)
        return Choice(at.frame.spot(expression.span), site, alternatives)

    # --- numbers and lists ------------------------------------------------------------------------

    def _number(self, value: Any, expression: ast.Expression, at: At) -> Term:
        span = at.frame.spot(expression.span)
        if at.expect.equation:
            return cells.number(Constant(span, value))
        return Constant(span, values.typed(at, expression.span)(value))

    def _arithmetic(self, expression: ast.Binary | ast.Unary, at: At) -> Term:
        if at.expect.equation:
            return cells.arithmetic(self, expression, at)
        span = at.frame.spot(expression.span)
        if not at.expect.number:
            raise ArchError(values.wrong_type(at, expression.span, "a calculation"))
        left, right, operator = self._operands(expression, at.plain(NUMBER, "arithmetic"))
        return self._typed(self.calculation(operator, left, right, span), expression, at)

    def _operands(self, expression: ast.Binary | ast.Unary, at: At) -> tuple[Term, Term, Any]:
        if isinstance(expression, ast.Unary):
            zero = Constant(at.frame.spot(expression.span), 0)
            return zero, self.term(expression.operand, at), expression.operator
        return self.term(expression.left, at), self.term(expression.right, at), expression.operator

    def calculation(self, operator: Any, left: Term, right: Term, span: Span) -> Term:
        """Arithmetic on two numbers, done at once where both are known."""
        if isinstance(left, Broken) or isinstance(right, Broken):
            return Broken(span)
        if isinstance(left, Constant) and isinstance(right, Constant):
            return Constant(span, calculate(operator, left.value, right.value, span, right.span))
        return Arithmetic(span, operator, left, right)

    def _typed(self, number: Term, expression: ast.Expression, at: At) -> Term:
        convert = values.typed(at, expression.span)
        if isinstance(number, Broken):
            return number
        if isinstance(number, Constant):
            return Constant(number.span, convert(number.value))
        return Typed(number.span, number, convert)

    def _range(self, expression: ast.Range, at: At) -> Term:
        if at.fixed:
            message = f"{at.what} cannot be a range"
            raise ArchError(self._diagnostic("choice-not-allowed", message, expression.span, at))
        span = at.frame.spot(expression.span)
        if not at.expect.number:
            raise ArchError(values.wrong_type(at, expression.span, "a range of numbers"))
        bounds = self._bounds(expression, at)
        if bounds is None:
            return Broken(span)
        points = values.progression(*bounds, expression.log, span)
        convert = values.typed(at, expression.span)
        convert(points[points.count - 1])
        first = convert(points[0])
        if points.count == 1:
            return Constant(span, first)
        convert(points[1])
        site = self.site(expression, at, points.count, lambda index: str(points[index]))
        return Points(span, site, points, convert)

    def _bounds(self, expression: ast.Range, at: At) -> tuple[Any, Any, Any] | None:
        inner = replace(at.plain(NUMBER, "a bound of a range"), fixed=True)
        low, high = self.term(expression.low, inner), self.term(expression.high, inner)
        step = self.term(expression.step, inner) if expression.step is not None else None
        if not (isinstance(low, Constant) and isinstance(high, Constant)):
            return None
        if step is not None and not isinstance(step, Constant):
            return None
        return low.value, high.value, step.value if step else None

    def _array(self, expression: ast.Array, at: At) -> Term:
        items, span = at.expect.items, at.frame.spot(expression.span)
        if items is None:
            raise ArchError(values.wrong_type(at, expression.span, "a list"))
        if len(expression.items) < items.least or len(expression.items) > (items.most or 10**6):
            raise ArchError(values.wrong_length(at, expression))
        inner = at.plain(items.item, f"an item of {at.what}")
        terms = tuple(self.term(item, inner) for item in expression.items)
        if all(isinstance(term, Constant) for term in terms):
            return Constant(span, tuple(term.value for term in terms))  # type: ignore[attr-defined]
        return Listing(span, terms)

    # --- names ------------------------------------------------------------------------------------

    def _component(self, expression: ast.Component, at: At) -> Term:
        first = expression.name[0]
        calls = self._calls(expression, at)
        if len(expression.name) == 1 and not calls:
            if first in at.frame.locals and at.expect.equation:
                return cells.name(first, expression, at)
            if at.expect.word and first not in at.frame.parameters:
                return Constant(at.frame.spot(expression.span), first)
        if expression.name == ("each",):
            return self._each(expression, at)
        if len(expression.name) == 1 and first in at.frame.parameters:
            return self.closure(at.frame.parameters[first], expression, at, calls)
        found = at.frame.scope.find(expression.name)
        if found is None and len(expression.name) > 1:
            raise ArchError(self._unknown_dotted(expression, at))
        if found is None and at.expect.components:
            found = standard(first)
        if found is not None:
            return self._definition(*found, expression, at, calls)
        return self._registered(first, expression, at, calls)

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
                self._diagnostic(
                    "misused-each", "`each` takes one thing to draw anew for every copy",
                    expression.name_span, at, help="write `each(a | b)`",
                )
            )  # fmt: skip
        key = self.key("each", id(expression), at.frame.key)
        return self.term(arguments[0].value, replace(at, frame=self.anew(at.frame, key), each=key))

    def closure(
        self, closure: Closure, expression: ast.Component, at: At, calls: tuple[Call, ...]
    ) -> Term:
        """What an argument or a ``let`` is in the place it is used in."""
        plain = not calls and at.each is None
        if plain and at.expect in closure.terms:
            return closure.terms[at.expect]
        if closure.busy:
            message = f"`{closure.name}` is defined by itself"
            raise ArchError(self._diagnostic("recursion", message, expression.name_span, at))
        frame = closure.frame if at.each is None else self.anew(closure.frame, at.each)
        via = at.frame.spot(expression.name_span)
        inner = replace(at, frame=frame, path=closure.path, calls=calls, via=via)
        if at.frame.scope.library and closure.what:
            inner = replace(inner, what=closure.what, via=None)
        closure.busy = True
        try:
            term = self.term(closure.expression, inner)
        finally:
            closure.busy = False
        if plain:
            closure.terms[at.expect] = term
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
        return self._use(scope, definition, expression, at, calls)

    def _let(self, scope: Scope, item: ast.Let) -> Closure:
        if id(item) not in self._lets:
            path = (scope.title, item.name) if scope.title else (item.name,)
            self._lets[id(item)] = Closure(item.name, item.value, self.frame_of(scope), path)
        return self._lets[id(item)]

    def _use(
        self,
        scope: Scope,
        item: ast.Def,
        expression: ast.Component,
        at: At,
        calls: tuple[Call, ...],
    ) -> Term:
        """A definition written out at a place of use."""
        parameters = [parameter.name for parameter in item.parameters or ()]
        given = bind(expression.text, parameters, calls, self.report)
        frame, closures = self._frame(scope, item, expression, at, given)
        if not self._complete(item, expression, at, closures):
            return Broken(at.frame.spot(expression.span))
        path = (*at.path, item.name)
        body = next((call for call in reversed(calls) if call.body is not None), None)
        if item.body is not None:
            if body is not None:
                raise ArchError(self._no_body(expression, at))
            return self._written_out(item.body, expression, replace(at, frame=frame, path=path))
        passed = () if body is None else (replace(body, arguments=()),)
        assert item.value is not None
        inner = replace(at, frame=frame, path=path, calls=passed, each=None)
        term = self.term(item.value, inner)
        if scope.library and isinstance(term, LayerTerm):
            term.origin = Origin(expression.text, tuple(closures.values()))
        return term

    def _frame(
        self,
        scope: Scope,
        item: ast.Def,
        expression: ast.Component,
        at: At,
        given: dict[str, Bound],
    ) -> tuple[Frame, dict[str, Closure]]:
        closures: dict[str, Closure] = {}
        anchor = at.frame.spot(expression.name_span) if scope.library else None
        frame = Frame(
            scope=scope,
            key=self.key("use", id(expression), at.frame.key),
            parameters=closures,
            each=at.frame.each,
            anchor=anchor,
            trail=at.frame.trail if scope.library else (expression.name_span, *at.frame.trail),
            locals=at.frame.locals.difference(p.name for p in item.parameters or ()),
        )
        path = (*at.path, item.name)
        for parameter in item.parameters or ():
            bound = given.get(parameter.name)
            if bound is not None:
                closures[parameter.name] = Closure(
                    parameter.name,
                    bound.argument.value,
                    bound.call.frame,
                    (*bound.call.path, parameter.name),
                    f"`{parameter.name}` of `{item.name}`",
                )
            elif parameter.default is not None:
                closures[parameter.name] = Closure(
                    parameter.name, parameter.default, frame, (*path, parameter.name), default=True
                )
        return frame, closures

    def _complete(
        self, item: ast.Def, expression: ast.Component, at: At, closures: dict[str, Closure]
    ) -> bool:
        lacking = [p.name for p in item.parameters or () if p.name not in closures]
        for name in lacking:
            self.report.add(self._missing(expression, name, at))
        return not lacking

    def _written_out(self, body: ast.Body, expression: ast.Component, at: At) -> Term:
        if not at.expect.layers:
            raise ArchError(
                values.wrong_type(at, expression.span, f"a sequence of layers, `{expression.text}`")
            )
        children = self.body(body, replace(at, calls=(), each=None), labelled=False)
        return Series(at.frame.spot(body.span), tuple(child.term for child in children))

    # --- registered components --------------------------------------------------------------------

    def _registered(
        self, name: str, expression: ast.Component, at: At, calls: tuple[Call, ...]
    ) -> Term:
        if at.expect.equation:
            return cells.function(self, name, expression, at, calls)
        component = self._find(name, at)
        if component is not None:
            return self.make(component, name, expression, at, calls)
        if name in at.expect.symbols:
            if calls:
                message = f"`{name}` takes no arguments here"
                raise ArchError(self._diagnostic("not-callable", message, expression.span, at))
            return Constant(at.frame.spot(expression.span), name)
        raise ArchError(self._unknown(name, expression, at))

    def _find(self, name: str, at: At) -> type[Component] | None:
        for base in at.expect.components:
            component = registry.find(base.kind, name)
            if component is not None and issubclass(component, base):
                return component
        return None

    def make(
        self,
        component: type[Component],
        name: str,
        expression: ast.Component,
        at: At,
        calls: tuple[Call, ...],
    ) -> Term:
        """A component with its arguments, and with its body where layers stand."""
        made = self._made(component, name, expression, at, calls)
        complete = self._required(component, name, expression, at, made.arguments)
        if issubclass(component, Layer):
            return self._layer(component, made, expression, at, calls, complete)
        if any(call.body is not None for call in calls):
            raise ArchError(self._no_body(expression, at))
        return made if complete else Broken(made.span)

    def settle(
        self,
        model: type[BaseModel],
        name: str,
        expression: ast.Component,
        at: At,
        calls: tuple[Call, ...],
    ) -> Term:
        """Something with arguments that is no component: a cost."""
        made = self._made(model, name, expression, at, calls)
        complete = self._required(model, name, expression, at, made.arguments)
        return made if complete else Broken(made.span)

    def _made(
        self,
        model: type[BaseModel],
        name: str,
        expression: ast.Component,
        at: At,
        calls: tuple[Call, ...],
    ) -> Make:
        expected = fields(model)
        given = bind(name, list(expected), calls, self.report)
        arguments = {
            field: self.term(
                bound.argument.value,
                At(
                    bound.call.frame, (*bound.call.path, field), expected[field],
                    f"`{field}` of `{name}`", fixed=at.fixed,
                ),
            )
            for field, bound in given.items()
        }  # fmt: skip
        return Make(at.frame.spot(expression.name_span), model, name, arguments, at.frame.trail)

    def _required(
        self,
        component: type[BaseModel],
        name: str,
        expression: ast.Component,
        at: At,
        arguments: dict[str, Term],
    ) -> bool:
        lacking = [
            field
            for field, info in component.model_fields.items()
            if info.is_required() and field not in arguments and field != "equations"
        ]
        for field in lacking:
            self.report.add(self._missing(expression, field, at))
        return not lacking and not any(isinstance(term, Broken) for term in arguments.values())

    def _missing(self, expression: ast.Component, name: str, at: At) -> Diagnostic:
        title = expression.text
        return self._diagnostic(
            "missing-argument",
            f"`{title}` needs `{name}`",
            expression.name_span,
            at,
            help=f"write `{title}({name} = …)`",
        )

    def _layer(
        self,
        component: type[Layer],
        made: Make,
        expression: ast.Component,
        at: At,
        calls: tuple[Call, ...],
        complete: bool,
    ) -> Term:
        call = next((call for call in reversed(calls) if call.body is not None), None)
        children: tuple[Child, ...] = ()
        if component.body == "none":
            if call is not None:
                raise ArchError(self._no_body(expression, at))
        elif call is None or call.body is None:
            raise ArchError(self._needs_body(component, made.name, expression, at))
        elif component.body == "equations":
            complete = cells.body(self, made, call, at) and complete
        else:
            inner = At(call.frame, call.path, LAYERS, f"the body of `{made.name}`", fixed=at.fixed)
            children = self.body(call.body, inner, labelled=component.body == "labelled")
        if not complete:
            return Broken(made.span)
        return LayerTerm(made.span, made, children) if at.expect.layers else made

    def body(self, body: ast.Body, at: At, *, labelled: bool) -> tuple[Child, ...]:
        """The children of a body."""
        if not body.items:
            raise ArchError(self._diagnostic("empty-body", "this body is empty", body.span, at))
        self._check_labels(body, at, labelled)
        return tuple(Child(getattr(item, "label", None), self._item(item, at)) for item in body.items)

    def _item(self, item: ast.Layer | ast.Equation, at: At) -> Term:
        if isinstance(item, ast.Equation):
            message = f"an equation belongs in the body of a cell, not in {at.what}"
            self.report.add(self._diagnostic("misplaced-equation", message, item.span, at))
            return Broken(at.frame.spot(item.span))
        name = item.label or ("layer" if isinstance(item.value, ast.Choice) else None)
        path = at.path if name is None else (*at.path, name)
        return self.term(item.value, replace(at, path=path, what="a body"))

    def _check_labels(self, body: ast.Body, at: At, labelled: bool) -> None:
        seen: dict[str, Span] = {}
        layers = [item for item in body.items if isinstance(item, ast.Layer)]
        mixed = any(item.label for item in layers)
        for item in layers:
            span = item.label_span or item.span
            if item.label is None and mixed and labelled:
                message = "either every child of this body has a label, or none"
                self.report.add(self._diagnostic("missing-label", message, item.span, at))
            elif item.label is not None and not labelled:
                message = f"labels mean nothing in {at.what}"
                self.report.add(self._diagnostic("unexpected-label", message, span, at))
            elif item.label is not None and item.label in seen:
                message = f"two children have the label `{item.label}`"
                related = ((seen[item.label], "first used here"),)
                self.report.add(
                    self._diagnostic("duplicate-label", message, span, at, related=related)
                )
            elif item.label is not None:
                seen[item.label] = span

    # --- what is wrong with a name ----------------------------------------------------------------

    def _no_body(self, expression: ast.Component, at: At) -> Diagnostic:
        span = expression.body.span if expression.body else expression.span
        message = f"`{expression.text}` has no body"
        return self._diagnostic("unexpected-body", message, span, at, help="remove the braces")

    def _needs_body(
        self, component: type[Layer], name: str, expression: ast.Component, at: At
    ) -> Diagnostic:
        inside = "h = tanh(linear(x, h))" if component.body == "equations" else "…"
        return self._diagnostic(
            "missing-body",
            f"`{name}` needs a body",
            expression.name_span,
            at,
            help=f"write `{name} {{ {inside} }}`",
        )

    def _unknown_dotted(self, expression: ast.Component, at: At) -> Diagnostic:
        first, rest = expression.name[0], ".".join(expression.name[1:])
        used = at.frame.scope.used.get(first)
        if used is None:
            known = list(at.frame.scope.used)
            message = f"there is no `use` with the name `{first}`"
            label = did_you_mean(first, known)
        else:
            message, label = f"`{first}` defines no `{rest}`", did_you_mean(rest, used.definitions)
        return self._diagnostic("unknown-name", message, expression.name_span, at, label=label)

    def _unknown(self, name: str, expression: ast.Component, at: At) -> Diagnostic:
        """A name that means nothing here: it may mean something elsewhere."""
        kinds = registry.kinds_of(name)
        found = standard(name)
        if kinds or found is not None:
            what = f"`{name}`, {listed_kinds(kinds or ['layer'])}"
            return values.wrong_type(at, expression.span, what)
        known = self.in_scope(at)
        message = f"`{name}` is not defined" if expression.arguments is not None or at.expect.layers else (
            f"{at.what} takes {at.expect}, and `{name}` is not defined"
        )
        return self._diagnostic(
            "unknown-name", message, expression.name_span, at, label=did_you_mean(name, known)
        )

    def in_scope(self, at: At) -> list[str]:
        """Every name that could stand in a place."""
        kinds = [base.kind for base in at.expect.components]
        registered = [name for kind in kinds for name in registry.names(kind)]
        library = list(standard_names()) if at.expect.components else []
        own = [*at.frame.parameters, *at.frame.scope.names(), *at.frame.locals]
        return [*own, *at.expect.symbols, *library, *registered]


class TooMuch(Exception):
    """The file is too large or too deep to go on; the diagnostic is in the report."""


def listed_kinds(kinds: Sequence[str]) -> str:
    """``a layer``, ``a bias or a retention``."""
    return " or ".join(map(article, kinds))


def short(expression: ast.Expression) -> str:
    """An alternative's text in one line."""
    text = " ".join(expression.span.text.split())
    return text if len(text) <= 48 else f"{text[:47]}…"


