"""A whole program: the model, its tasks, its training, what is required and what is sought."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

from pydantic import BaseModel

from archdsl.blocks.asking import SearchSection, Task, TrainSection
from archdsl.blocks.equations import spellable
from archdsl.compiler.reading import quantities as q
from archdsl.compiler.reading.components import body as body_of
from archdsl.compiler.reading.components import settle
from archdsl.compiler.reading.context import At, Call
from archdsl.compiler.reading.elaborate import Elaborator
from archdsl.compiler.reading.values import unspellable
from archdsl.compiler.terms.built import Built
from archdsl.compiler.terms.expect import LAYERS, NUMBER, Expect, Number, fields
from archdsl.compiler.terms.explore import no_choice
from archdsl.compiler.terms.term import Broken, Choice, Constant, Make, Run, Series, Term
from archdsl.diagnostics import ArchError, Diagnostic, Report, Severity, Span, did_you_mean
from archdsl.grammar import ast

TASK = Expect(components=(Task,))


@dataclass(frozen=True, eq=False)
class Plan:
    """The terms of a program.

    Args:
        model: the model's layers; ``None`` in a file that has no model.
        tasks: each task by name.
        train: the settings of ``train``.
        search: the ``search`` section, which has no choices.
        objectives: a :class:`Term` of :class:`quantities.Objective` each.
        requirements: a :class:`Term` of :class:`quantities.Requirement` each.
    """

    model: Series | None
    tasks: Mapping[str, Term]
    train: Term
    search: SearchSection
    objectives: tuple[Term, ...]
    requirements: tuple[Term, ...]

    def terms(self) -> Iterator[Term]:
        """Every term an architecture evaluates, in the order in which choices are asked."""
        if self.model is not None:
            yield self.model
        yield from self.tasks.values()
        yield self.train
        yield from self.requirements
        yield from self.objectives


class Planner:
    """Elaborates the items of a program.

    Args:
        elaborator: of the main file.
        report: takes the diagnostics.
    """

    def __init__(self, elaborator: Elaborator, report: Report) -> None:
        self.elaborator, self.report = elaborator, report
        self.frame = elaborator.root
        self.items = self.frame.scope.program.items
        self.tasks: dict[str, Term] = {}

    def plan(self) -> Plan:
        """The terms of the program; some are broken where the report has errors.

        Raises:
            TooMuch: the file is too large or too deep.
        """
        model = self._model()
        self._tasks()
        train = self._section("train", TrainSection, fixed=False)
        search = self._section("search", SearchSection, fixed=True)
        objectives = [self._objective(item) for item in self._settings("search", ast.Objective)]
        for item in self._settings("train", ast.Objective):
            self._say("misplaced-objective", "objectives belong in `search`", item.span)
        return Plan(
            model=model,
            tasks=self.tasks,
            train=train,
            search=self._closed_search(search),
            objectives=tuple(objectives),
            requirements=tuple(map(self._requirement, self._of(ast.Require))),
        )

    def _of(self, kind: type[Any]) -> list[Any]:
        return [item for item in self.items if isinstance(item, kind)]

    def _say(self, id: str, message: str, span: Span, **more: Any) -> None:
        self.report.add(Diagnostic(id, message, span, **more))

    # --- the model and its tasks ------------------------------------------------------------------

    def _model(self) -> Series | None:
        models = self._of(ast.Model)
        for extra in models[1:]:
            related = ((opening(models[0], "model"), "the first is here"),)
            span = opening(extra, "model")
            self._say("two-models", "a file has one `model`", span, related=related)
        if not models:
            return None
        body: ast.Body = models[0].body
        if not body.items:
            self._say(
                "empty-model", "this model has no layers", models[0].span,
                help="write `model { embed(dim = 64)  …  lm_head }`",
            )  # fmt: skip
            return None
        at = At(self.frame, ("model",), LAYERS, "the body of `model`")
        children = body_of(self.elaborator, body, at, labelled=False)
        return Series(opening(models[0], "model"), tuple(child.term for child in children))

    def _tasks(self) -> None:
        for item in self._of(ast.Task):
            if item.name in self.tasks:
                self._say("duplicate-name", f"there are two tasks `{item.name}`", item.name_span)
                continue
            at = At(self.frame, (item.name,), TASK, f"the task `{item.name}`")
            self.tasks[item.name] = self.elaborator.term(item.value, at)

    # --- sections ---------------------------------------------------------------------------------

    def _sections(self, name: str) -> list[ast.Section]:
        return [section for section in self._of(ast.Section) if section.name == name]

    def _settings(self, section: str, kind: type[Any]) -> list[Any]:
        return [
            item
            for s in self._sections(section)[:1]
            for item in s.settings
            if isinstance(item, kind)
        ]

    def _section(self, name: str, model: type[BaseModel], *, fixed: bool) -> Make:
        sections = self._sections(name)
        for extra in sections[1:]:
            related = ((opening(sections[0], name), "the first is here"),)
            message = f"a file has one `{name}` section"
            self._say("two-sections", message, opening(extra, name), related=related)
        span = sections[0].span if sections else self.frame.scope.program.span
        arguments: dict[str, Term] = {}
        for item in self._settings(name, ast.Setting):
            self._setting(name, item, fields(model), arguments, fixed)
        return Make(span, model, name, arguments)

    def _setting(
        self,
        section: str,
        item: ast.Setting,
        expected: Mapping[str, Expect],
        arguments: dict[str, Term],
        fixed: bool,
    ) -> None:
        if item.name not in expected:
            help = f"settings of `{section}`: {', '.join(expected)}"
            message = f"`{section}` has no setting `{item.name}`"
            label = did_you_mean(item.name, expected)
            self._say("unknown-setting", message, item.name_span, label=label, help=help)
        elif item.name in arguments:
            message = f"`{item.name}` of `{section}` is given twice"
            self._say("duplicate-argument", message, item.name_span, help="remove one of them")
        else:
            what = f"`{item.name}` in `{section}`"
            at = At(self.frame, (section, item.name), expected[item.name], what, fixed=fixed)
            arguments[item.name] = self.elaborator.term(item.value, at)

    def _closed_search(self, make: Make) -> SearchSection:
        if any(term.broken for term in make.arguments.values()):
            return SearchSection()
        try:
            section: SearchSection = Run(no_choice).value(make)
        except ArchError as error:
            for diagnostic in error.diagnostics:
                self.report.add(diagnostic)
            return SearchSection()
        return section

    # --- quantities -------------------------------------------------------------------------------

    def _objective(self, item: ast.Objective) -> Term:
        at = At(self.frame, ("search", item.direction), NUMBER, f"`{item.direction}`", fixed=True)
        quantity = self._quantity(item.value, at, measures=True)
        return Built(
            item.span, (quantity,), lambda value: q.Objective(item.direction, value, item.span)
        )

    def _requirement(self, item: ast.Require) -> Term:
        condition = item.condition
        at = At(self.frame, ("require",), NUMBER, "`require`", fixed=True)
        if not isinstance(condition, ast.Compare):
            self._say(
                "wrong-type", "`require` takes a comparison such as `params <= 4M`", condition.span
            )
            return Broken(condition.span)
        left = self._quantity(condition.left, at, measures=False)
        right = self._quantity(condition.right, at, measures=False)
        text = " ".join(condition.span.text.split())
        return Built(
            condition.span,
            (left, right),
            lambda a, b: q.Requirement(condition.operator, a, b, text, item.span),
        )

    def _quantity(self, expression: ast.Expression, at: At, *, measures: bool) -> Term:
        try:
            return self._quantity_term(expression, at, measures=measures)
        except ArchError as error:
            for diagnostic in error.diagnostics:
                self.report.add(diagnostic)
            return Broken(expression.span)

    def _quantity_term(self, expression: ast.Expression, at: At, *, measures: bool) -> Term:
        match expression:
            case ast.Group(value=value):
                return self._quantity(value, at, measures=measures)
            case ast.Unary(operator="-", operand=operand):
                inner = self._quantity(operand, at, measures=measures)
                zero = Constant(expression.span, q.Figure(0))
                return self._combined("-", zero, inner, expression)
            case ast.Binary(operator=sign):
                left = self._quantity(expression.left, at, measures=measures)
                right = self._quantity(expression.right, at, measures=measures)
                return self._combined(sign, left, right, expression)
            case ast.Component():
                return self._named_quantity(expression, at, measures=measures)
        term = self.elaborator.term(expression, at)
        return Built(expression.span, (term,), partial(_figure, expression.span))

    def _combined(self, sign: Any, left: Term, right: Term, expression: ast.Expression) -> Term:
        return Built(expression.span, (left, right), lambda a, b: q.Combined(sign, a, b))

    def _named_quantity(self, expression: ast.Component, at: At, *, measures: bool) -> Term:
        if len(expression.name) > 1 and expression.name[0] not in at.frame.scope.used:
            return self._measure(expression, at, measures=measures)
        found = at.frame.scope.find(expression.name)
        if found is not None:
            scope, definition = found
            if isinstance(definition, ast.Let) and expression.arguments is None:
                frame = self.elaborator.frame_of(scope)
                inner = replace(at, frame=frame, path=(definition.name,), fixed=measures)
                if id(definition) in self.elaborator.recursive:
                    return Broken(expression.span)
                if isinstance(definition.value, ast.Component | ast.Binary | ast.Unary | ast.Group):
                    return self._quantity(definition.value, inner, measures=measures)
            term = self.elaborator.term(expression, at)
            return Built(expression.span, (term,), partial(_figure, expression.span))
        cost = q.COSTS.get(expression.text)
        if cost is None:
            raise ArchError(self._unknown_cost(expression, at))
        return self._cost(cost, expression, at, measures=measures)

    def _cost(
        self, cost: type[q.CostCall], expression: ast.Component, at: At, *, measures: bool
    ) -> Term:
        calls: tuple[Call, ...] = ()
        if expression.arguments is not None:
            call = Call(
                expression.arguments, None, at.frame, (*at.path, cost.title), expression.span
            )
            calls = (call,)
        if not (measures or cost.known):
            message = f"`{cost.title}` is measured, so this does not keep anything from being built"
            help = "an architecture that does not keep it is given up once it is measured"
            span = expression.span
            self._say("measured-requirement", message, span, help=help, severity=Severity.WARNING)
        made = settle(self.elaborator, cost, cost.title, expression, at, calls)
        return Built(expression.span, (made,), q.Asked) if not made.broken else made

    def _measure(self, expression: ast.Component, at: At, *, measures: bool) -> Term:
        task, measure = expression.name[0], ".".join(expression.name[1:])
        if not measures:
            message = (
                f"`{expression.text}` is only known after training, and `require` is decided before"
            )
            help = f"write `maximize {expression.text}` or `minimize {expression.text}` in `search`"
            raise ArchError(Diagnostic("measure-required", message, expression.span, help=help))
        if task not in self.tasks:
            message = f"there is no task `{task}`"
            label = did_you_mean(task, self.tasks)
            raise ArchError(Diagnostic("unknown-task", message, expression.name_span, label=label))
        known = sorted({name for model in _models(self.tasks[task]) for name in model.measures})
        if measure not in known and known:
            message = f"the task `{task}` has no measure `{measure}`"
            raise ArchError(
                Diagnostic(
                    "unknown-measure", message, expression.name_span,
                    label=did_you_mean(measure, known), help=f"measures of `{task}`: {', '.join(known)}",
                )
            )  # fmt: skip
        return Constant(expression.span, q.Measure(task, measure))

    def _unknown_cost(self, expression: ast.Component, at: At) -> Diagnostic:
        known = [*q.COSTS, *at.frame.scope.definitions]
        return Diagnostic(
            "unknown-cost",
            f"there is no cost `{expression.text}`",
            expression.name_span,
            label=did_you_mean(expression.text, known),
            help=f"costs: {', '.join(q.COSTS)}",
        )


def _figure(span: Span, number: Number) -> q.Figure:
    """A number in a requirement or an objective."""
    if not spellable(Fraction(number)):
        raise ArchError(unspellable("this", span))
    return q.Figure(number)


def opening(item: ast.Node, word: str) -> Span:
    """The word an item begins with."""
    return Span(item.span.source, item.span.start, item.span.start + len(word))


def _models(term: Term) -> Iterator[type[Task]]:
    """Every task class a term may be."""
    if isinstance(term, Make):
        if issubclass(term.model, Task):
            yield term.model
    elif isinstance(term, Choice):
        for alternative in term.alternatives:
            yield from _models(alternative)
