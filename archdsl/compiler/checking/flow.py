"""Whether the layers fit each other, for every combination of choices that can occur.

The type of the stream is carried through the model together with the choices it depends on. A layer's
rule is asked with its arguments decided only when it reads them (see :mod:`explore`), so independent
choices do not multiply, and choices that are shared stay together.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from archdsl.blocks.base import Layer
from archdsl.blocks.op import Type
from archdsl.compiler.checking.alike import Shapes
from archdsl.compiler.checking.conditions import Findings
from archdsl.compiler.reading.program import Plan
from archdsl.compiler.terms.explore import Budget, Layout, Outcome, ask, explore
from archdsl.compiler.terms.sharing import Sharing
from archdsl.compiler.terms.term import Choice, LayerTerm, Make, Run, Series, Site, Term
from archdsl.diagnostics import Diagnostic

Decided = Mapping[str, int]


@dataclass(frozen=True)
class State:
    """A type of the stream and where it occurs.

    Args:
        type: what flows.
        when: the shared choices it depends on; their other alternatives may give other types.
        sites: the sites of ``when``, and of whatever else led here, by path.
        witness: one way to get here, for messages.
        empty: whether there is no layer on the way; a container of nothing is nothing.
    """

    type: Type
    when: Decided = field(default_factory=dict)
    sites: Mapping[str, Site] = field(default_factory=dict)
    witness: Decided = field(default_factory=dict)
    empty: bool = True

    def then(self, other: State) -> State:
        """What ``other`` found, having started here."""
        return State(
            other.type,
            {**self.when, **other.when},
            {**self.sites, **other.sites},
            {**self.witness, **other.witness},
            self.empty and other.empty,
        )

    @property
    def key(self) -> tuple[Type, bool, frozenset[tuple[str, int]]]:
        """What tells states apart."""
        return self.type, self.empty, frozenset(self.when.items())


class Flow:
    """Carries types through the terms of a model.

    Args:
        plan: the program.
        sharing: which choices are used where.
        layouts: what each container may run.
        budget: how much may be asked.
        findings: takes the diagnostics.
        shapes: which components are alike.
    """

    def __init__(
        self,
        plan: Plan,
        sharing: Sharing,
        layouts: Any,
        budget: Budget,
        findings: Findings,
        shapes: Shapes,
    ) -> None:
        self.plan, self.sharing, self.layouts = plan, sharing, layouts
        self.budget, self.findings, self.shapes = budget, findings, shapes
        self.plain: dict[Hashable, Type] = {}
        self.known: dict[tuple[Term, Type, frozenset[tuple[str, int]]], list[State]] = {}

    def check(self) -> None:
        """Report everything that does not fit.

        Raises:
            Exhausted: the budget is spent.
        """
        assert self.plan.model is not None
        for start in self._start():
            for end in self.through(self.plan.model, start):
                self._check_end(start.then(end))

    def _start(self) -> list[State]:
        """The tokens of the tasks."""

        def symbols(run: Run) -> Type:
            tasks = [run.value(term) for term in self.plan.tasks.values()]
            return Type("tokens", max((task.symbols for task in tasks), default=0))

        return self._states(explore(symbols, self.budget))

    def _check_end(self, state: State) -> None:
        model = self.plan.model
        if not self.plan.tasks or model is None or state.type.kind == "logits":
            return
        task = next(iter(self.plan.tasks))
        self.findings.add(
            Diagnostic(
                "no-logits",
                f"the model ends in {state.type}, and the task `{task}` needs logits",
                model.items[-1].span if model.items else model.span,
                help="end the model with `lm_head`",
            ),
            state.witness,
            state.sites,
        )

    # --- terms ------------------------------------------------------------------------------------

    def through(self, term: Term, start: State) -> list[State]:
        """What comes out of a term for what goes in; only what it adds to ``start``."""
        relevant = self.sharing.below(term)
        when = {path: index for path, index in start.when.items() if path in relevant}
        key = (term, start.type, frozenset(when.items()))
        if key not in self.known:
            self.known[key] = distinct(
                self._through(term, State(start.type, when, start.sites, start.witness))
            )
        return self.known[key]

    def _through(self, term: Term, start: State) -> list[State]:
        if isinstance(term, Series):
            return self.sequence(term.items, start)
        if isinstance(term, Choice):
            return self._choice(term, start)
        if isinstance(term, LayerTerm):
            return self._container(term, start) if term.body else self._leaf(term, start)
        return []

    def sequence(self, terms: Iterable[Term], start: State) -> list[State]:
        """Terms one after the other."""
        states = [State(start.type)]
        for term in terms:
            states = distinct(
                [s.then(end) for s in states for end in self.through(term, start.then(s))]
            )
        return states

    def _choice(self, term: Choice, start: State) -> list[State]:
        path = term.site.path
        chosen = start.when.get(path)
        found: list[State] = []
        for index, alternative in enumerate(term.alternatives):
            if chosen in (None, index):
                own = {path: index} if chosen is None else {}
                here = State(start.type, self.sharing.kept(own), {path: term.site}, own)
                found += [here.then(s) for s in self.through(alternative, start.then(here))]
        return self._merged(found, {path})

    def _leaf(self, term: LayerTerm, start: State) -> list[State]:
        return [
            replace(state, empty=False) for state in self._inferred(term.make, start, despite=True)
        ]

    def _inferred(self, make: Make, start: State, *, despite: bool = False) -> list[State]:
        """What a layer's rule makes of a type, or ``despite`` a mistake; of layers alike one is asked.

        Only a plain answer, one type without a complaint, is taken over from another layer.
        """
        key = self._question(make, start)
        if key in self.plain:
            return [State(self.plain[key])]
        outcomes = list(
            explore(
                lambda run: ask(make, lambda layer: layer.enter(start.type), run),
                self.budget,
                start.when,
                start.sites,
            )
        )
        answers = {outcome.result for outcome in outcomes}
        if key is not None and len(answers) == 1 and outcomes[0].result is not None:
            self.plain[key] = outcomes[0].result
        if despite and any(outcome.error for outcome in outcomes):
            return self._states(self._despite(make, start, outcomes), start)
        return self._states(outcomes, start)

    def _despite(
        self, make: Make, start: State, outcomes: Sequence[Outcome[Type]]
    ) -> Iterator[Outcome[Type]]:
        """A layer's answers, with what is known to be behind it where it does not fit.

        So one mistake does not hide the next.
        """
        for outcome in outcomes:
            yield outcome
            if outcome.error is not None:
                known = ({**start.when, **outcome.decided}, {**start.sites, **outcome.sites})
                for other in explore(
                    lambda run: ask(make, lambda layer: layer.otherwise(start.type), run),
                    self.budget,
                    *known,
                ):
                    decided = {**outcome.decided, **other.decided}
                    yield replace(other, decided=decided, sites={**outcome.sites, **other.sites})

    def _question(self, make: Make, start: State) -> Hashable:
        """What a layer is asked, in the same words for all that are alike; ``None`` if none may be."""
        found = self.shapes.of(make)
        if found is None:
            return None
        shape, paths = found
        return shape, start.type, tuple(start.when.get(path) for path in paths)

    def _states(
        self, outcomes: Iterable[Outcome[Type]], start: State | None = None, *, empty: bool = True
    ) -> list[State]:
        """The states of a rule's answers; its complaints are reported."""
        found = []
        asked: set[str] = set()
        for outcome in outcomes:
            if start is None:
                self.findings.outcome(outcome)
            else:
                self.findings.outcome(outcome, start.witness, start.sites)
            asked |= outcome.decided.keys()
            if outcome.result is not None:
                when = self.sharing.kept(outcome.decided)
                found.append(State(outcome.result, when, outcome.sites, outcome.decided, empty))
        return self._merged(found, asked)

    def _merged(self, states: list[State], asked: set[str]) -> list[State]:
        """One state where every answer is the same: it does not depend on what was asked."""
        answers = {(state.type, state.empty) for state in states}
        if len(answers) == 1 and all(state.when.keys() <= asked for state in states):
            return [State(states[0].type, empty=states[0].empty)]
        return states

    # --- containers -------------------------------------------------------------------------------

    def _container(self, term: LayerTerm, start: State) -> list[State]:
        entrances = self._inferred(term.make, start)
        differ = len({entrance.type for entrance in entrances}) > 1
        found = []
        for entrance in entrances:
            decided = entrance.witness if differ else {}
            for layout in self.layouts(term):
                when = {**decided, **{site.path: index for site, index in layout.when}}
                if agrees(when, start.when) and agrees(when, decided):
                    sites = {site.path: site for site, _ in layout.when}
                    chosen = State(entrance.type, self.sharing.kept(when), sites, when)
                    here = entrance.then(chosen)
                    found += [here.then(s) for s in self._layout(term, layout, start, here, when)]
        asked = {site.path for layout in self.layouts(term) for site, _ in layout.when}
        return self._merged(found, asked)

    def _layout(
        self, term: LayerTerm, layout: Layout, start: State, entrance: State, when: Decided
    ) -> list[State]:
        """The visits of one layout, each on the entrance's type, and what the container makes of them.

        Where nothing inside fits, the stream goes on behind a container that keeps it: one mistake does not
        hide the next.
        """
        inner = start.then(entrance)
        partial: list[tuple[State, dict[tuple[int, ...], Type]]] = [(State(inner.type), {})]
        for visit in layout.groups:
            children = [term.body[child].term for child in visit]
            extended = []
            for state, outputs in partial:
                for end in self.sequence(children, inner.then(state)):
                    then = replace(state.then(self._left(end, layout)), type=inner.type)
                    extended.append((then, {**outputs, visit: end.type}))
            partial = extended
        outer = replace(inner, type=start.type)
        found = []
        for state, outputs in partial:
            here = outer.then(replace(state, type=start.type))
            ends = (
                [State(start.type)]
                if state.empty
                else self._combined(term, layout, here, outputs, when)
            )
            found += [state.then(end) for end in ends]
        if not found and start.type.routed is None and getattr(term.make.model, "keeps", False):
            return [State(start.type, empty=False)]
        return distinct(found)

    def _left(self, state: State, layout: Layout) -> State:
        """What is left of a state behind a copy: its own draws end with it."""
        if not layout.copying:
            return state
        when = {p: i for p, i in state.when.items() if not self.sharing.each(p)}
        return replace(state, when=when)

    def _combined(
        self,
        term: LayerTerm,
        layout: Layout,
        start: State,
        outputs: Mapping[tuple[int, ...], Type],
        when: Decided,
    ) -> list[State]:
        total = sum(map(len, layout.groups.values()))
        ordered: list[Type] = [start.type] * total
        for visit, numbers in layout.groups.items():
            for number in numbers:
                ordered[number] = outputs[visit]

        def combine(layer: Layer) -> Type:
            return layer.combine(start.type, ordered)

        given = {**start.when, **when}
        sites = {**start.sites, **{site.path: site for site, _ in layout.when}}
        outcomes = explore(lambda run: ask(term.make, combine, run), self.budget, given, sites)
        return self._states(outcomes, start, empty=False)


def agrees(a: Decided, b: Decided) -> bool:
    """Whether two sets of decisions can be made together."""
    return all(b.get(path, index) == index for path, index in a.items())


def distinct(states: Sequence[State]) -> list[State]:
    """The states without repetitions."""
    return list({state.key: state for state in reversed(states)}.values())[::-1]
