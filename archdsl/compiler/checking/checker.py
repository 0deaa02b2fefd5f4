"""Checks the terms of a program: whatever is accepted here, runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial

from archdsl.blocks.base import Component, Layer, Rule
from archdsl.compiler.checking.alike import Shapes
from archdsl.compiler.checking.conditions import Findings
from archdsl.compiler.checking.flow import Flow
from archdsl.compiler.reading.program import Plan
from archdsl.compiler.terms.built import Built
from archdsl.compiler.terms.explore import Budget, Exhausted, Layouts, ask, explore, widest
from archdsl.compiler.terms.sharing import Sharing
from archdsl.compiler.terms.term import Arithmetic, LayerTerm, Make, Run, Term, Typed, located
from archdsl.diagnostics import Diagnostic, Report, Severity

MOST_LAYERS = 100_000
"""How many layers an architecture may have."""

STEPS, SECONDS = 6_000, 3.0
"""How much checking may ask, and for how long; the steps run out first, so that machines agree."""


class Checker:
    """Checks the terms of a program.

    Args:
        plan: the terms.
        layouts: what each container may run, within a budget.
        report: takes the diagnostics.
    """

    def __init__(
        self, plan: Plan, layouts: Callable[[LayerTerm, Budget | None], Layouts], report: Report
    ) -> None:
        self.plan, self.report = plan, report
        self.findings = Findings(report)
        self.budget = Budget(STEPS, SECONDS)
        self.layouts: Callable[[LayerTerm], Layouts] = lambda term: layouts(term, self.budget)
        self.terms = list(_all_terms(plan))
        self.shapes = Shapes()
        self.fitting: set[Hashable] = set()

    def check(self) -> None:
        """Report everything that is wrong; what cannot be looked at whole is refused."""
        try:
            self._check()
        except Exhausted as problem:
            self.report.add(self._too_much(problem))

    def _check(self) -> None:
        for term in self.terms:
            self._term(term)
        if not self.report.errors:
            self._sizes()
        if not self.report.errors and self.plan.model is not None:
            sharing = Sharing(self.plan.terms())
            Flow(self.plan, sharing, self.layouts, self.budget, self.findings, self.shapes).check()
        if not self.report.errors:
            self._warnings()

    def _term(self, term: Term) -> None:
        """What is wrong with one term, whatever stands around it."""
        if isinstance(term, Typed | Arithmetic):
            for outcome in explore(lambda run: run.value(term), self.budget):
                self.findings.outcome(outcome)
        elif isinstance(term, Make) and issubclass(term.model, Component):
            self._component(term, term.model)
        elif isinstance(term, LayerTerm) and term.body:
            for refused in self.layouts(term).refused:
                self.findings.outcome(refused)
        elif isinstance(term, Built):
            for built in explore(lambda run: run.value(term), self.budget):
                self.findings.outcome(built)

    def _component(self, make: Make, model: type[Component]) -> None:
        """What arguments do not fit each other, asked once of components that are alike."""
        shape = self.shapes.of(make)
        if shape in self.fitting:
            return
        fits = True
        for question in [_asking(rule) for rule in model.rules()] or [_verify]:
            for outcome in explore(partial(ask, make, question), self.budget):
                self.findings.outcome(outcome)
                fits = fits and outcome.error is None
        if fits and shape is not None:
            self.fitting.add(shape)

    def _warnings(self) -> None:
        for term in self.terms:
            if isinstance(term, LayerTerm):
                self._warned(term)

    def _warned(self, term: LayerTerm) -> None:
        def question(run: Run) -> list[Diagnostic]:
            found = ask(term.make, lambda layer: layer.warnings(term.labels), run)
            return [warning(located(problem, term.make, run.decided)) for problem in found]

        if getattr(term.make.model, "warnings", None) is Layer.warnings:
            return
        for outcome in explore(question, self.budget):
            for diagnostic in outcome.result or ():
                self.findings.add(diagnostic, outcome.decided, outcome.sites)

    # --- size -------------------------------------------------------------------------------------

    def _sizes(self) -> None:
        known: dict[Term, int] = {}
        for term in reversed(self.terms):
            known[term] = self._size(term, known)
            if known[term] > MOST_LAYERS:
                message = (
                    f"this is {known[term]:,} layers, and at most {MOST_LAYERS:,} are possible"
                )
                self.report.add(Diagnostic("too-many-layers", message, term.span))
                return

    def _size(self, term: Term, known: Mapping[Term, int]) -> int:
        """The most layers a term may be."""
        if isinstance(term, LayerTerm):
            inner = [
                sum(
                    len(numbers) * sum(known[term.body[child].term] for child in visit)
                    for visit, numbers in layout.groups.items()
                )
                for layout in self.layouts(term)
            ]
            return 1 + max(inner, default=0)
        sizes = [known[child] for child in term.children()]
        if type(term).__name__ == "Series":
            return sum(sizes)
        return max(sizes, default=0)

    def _too_much(self, problem: Exhausted) -> Diagnostic:
        """The complaint about more combinations than can be checked, at the widest choice."""
        related = widest(problem.sites)
        place, label = related[0] if related else ((self.plan.model or self.plan.train).span, "")
        return Diagnostic(
            "too-many-combinations",
            "the choices of this file can be combined in too many ways to check them all",
            place,
            label,
            help="use fewer alternatives, a larger `by`, or `log`",
            related=related[1:],
        )


def _verify(component: Component) -> None:
    component.verify()


def _asking(rule: Rule) -> Callable[[Component], None]:
    def question(component: Component) -> None:
        for complaint in rule(component):
            raise complaint

    return question


def warning(diagnostic: Diagnostic) -> Diagnostic:
    """The diagnostic as a warning."""
    return Diagnostic(
        diagnostic.id,
        diagnostic.message,
        diagnostic.span,
        diagnostic.label,
        diagnostic.help,
        diagnostic.notes,
        diagnostic.related,
        Severity.WARNING,
    )


def _all_terms(plan: Plan) -> Iterator[Term]:
    """Every term of a program once, users before what they use."""
    done: dict[Term, None] = {}
    stack: list[tuple[Term, bool]] = [(term, False) for term in plan.terms()]
    while stack:
        term, left = stack.pop()
        if left:
            done.setdefault(term)
        elif term not in done:
            stack.append((term, True))
            stack += [(child, False) for child in term.children() if child not in done]
    return reversed(list(done))
