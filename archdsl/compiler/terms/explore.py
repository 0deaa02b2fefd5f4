"""Which choices a question depends on, found by asking it.

:func:`explore` runs a function again and again, each time with other decisions, until every
combination of the choices *it asked for* is seen. A component whose arguments are decided only when
they are read (:func:`lazy`) makes that few: a type rule that never reads ``bias`` is asked once,
however many biases there are.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from time import thread_time
from typing import Any, Generic, TypeVar, overload

from pydantic import BaseModel

from archdsl.blocks.base import Invalid, Layer
from archdsl.compiler.terms.term import Choice, LayerTerm, Make, Run, Site, Term, located, repeats
from archdsl.diagnostics import ArchError, Diagnostic, Span

T = TypeVar("T")

STEPS, SECONDS = 20_000, 0.5
"""In how many ways the arguments of one container may be combined, and how long that may take."""

UNTIMED = 1000
"""Steps that may always be taken: a slow machine never refuses a small file."""

TERMS_A_STEP = 12
"""How many terms are worked out in the time of one step."""

VISITS_A_STEP = 50
"""How many visits of a container are as much work as one way to combine its arguments."""


NO_SITES: Mapping[str, Site] = {}


class Exhausted(Exception):
    """There are more combinations than the budget allows.

    Attributes:
        sites: the choices of the question that was asked last.
    """

    sites: Mapping[str, Site] = NO_SITES


class Budget:
    """How much may be asked.

    Args:
        steps: runs of a function.
        seconds: of this thread, so that a busy machine changes nothing.
    """

    def __init__(self, steps: int, seconds: float) -> None:
        self.steps, self.end = steps, thread_time() + seconds
        self.timed = steps - min(steps, UNTIMED)

    def spend(self, steps: int = 1) -> None:
        """Count one run.

        Raises:
            Exhausted: nothing is left.
        """
        self.steps -= steps
        if self.steps < 0 or (self.steps < self.timed and thread_time() > self.end):
            raise Exhausted


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """One combination: what was decided, in the order it was asked, and what came out."""

    decided: Mapping[str, int]
    sites: Mapping[str, Site]
    result: T | None
    error: ArchError | None = None


def explore(
    action: Callable[[Run], T],
    budget: Budget,
    given: Mapping[str, int] | None = None,
    sites: Mapping[str, Site] = NO_SITES,
) -> Iterator[Outcome[T]]:
    """Every combination of what ``action`` decides, with ``given`` decided beforehand.

    What is given and asked again is part of the outcome; ``sites`` are those of ``given``.

    Raises:
        Exhausted: the budget is spent.
    """
    prefix: list[int] | None = []
    known = given or {}
    run = Run(lambda site: 0)
    while prefix is not None:
        try:
            budget.spend()
            path = _Path(prefix, known)
            run = Run(path.choose)
            outcome = _outcome(action, run)
            budget.spend(len(run.memo) // TERMS_A_STEP)
        except Exhausted as problem:
            problem.sites = {path: sites[path] for path in known if path in sites} | run.sites
            raise
        yield outcome
        prefix = path.next()


def no_choice(site: Site) -> int:
    """Decides nothing, for terms in which there is nothing to decide."""
    raise AssertionError(f"{site.path} is a choice")


def _outcome(action: Callable[[Run], T], run: Run) -> Outcome[T]:
    """What comes of one run. Nothing else of the run is kept, nor left for the collector of cycles."""
    try:
        return Outcome(run.decided, run.sites, action(run))
    except ArchError as problem:
        return Outcome(run.decided, run.sites, None, problem.with_traceback(None))
    finally:
        run.elements.clear()


class _Path:
    """One way through the decisions: a prefix, and the first alternative behind it."""

    def __init__(self, prefix: list[int], given: Mapping[str, int]) -> None:
        self.prefix, self.given = prefix, given
        self.taken: list[int] = []
        self.sizes: list[int] = []

    def choose(self, site: Site) -> int:
        if site.path in self.given:
            return self.given[site.path]
        position = len(self.taken)
        index = self.prefix[position] if position < len(self.prefix) else 0
        self.taken.append(index)
        self.sizes.append(site.size)
        return index

    def next(self) -> list[int] | None:
        """The next way: the last decision that has an alternative left takes it."""
        while self.taken:
            index, size = self.taken.pop(), self.sizes.pop()
            if index + 1 < size:
                return [*self.taken, index + 1]
        return None


# --- components whose arguments are decided when they are read ------------------------------------


@cache
def _lazy_class(model: type[BaseModel]) -> type[BaseModel]:
    """A subclass that evaluates an argument when it is first read.

    Pydantic's own way to make a subclass builds a validator, which this one never needs.
    """

    def read(self: BaseModel, name: str) -> Any:
        try:
            make, run = self.__dict__["<make>"]
            term = make.arguments[name]
        except KeyError:
            raise AttributeError(name) from None
        value = self.__dict__[name] = _read(term, run)
        return value

    def equal(self: BaseModel, other: object) -> bool:
        return bool(_whole(self) == _whole(other))

    namespace = {
        "__getattr__": read,
        "__eq__": equal,
        "__hash__": lambda self: hash(_whole(self)),
        "__module__": model.__module__,
        "__slots__": (),
    }
    return ABCMeta.__new__(type(model), model.__name__, (model,), namespace)


def _read(term: Term, run: Run) -> Any:
    """What a term is; a component as one that has still to decide its own arguments."""
    while isinstance(term, Choice):
        term = term.alternatives[run.decide(term.site, ())]
    return lazy(term, run) if isinstance(term, Make) else run.value(term)


def _whole(value: Any) -> Any:
    """A component with every argument decided."""
    if isinstance(value, BaseModel) and "<make>" in value.__dict__:
        make, run = value.__dict__["<make>"]
        return run.value(make)
    return value


@cache
def _defaults(model: type[BaseModel], given: tuple[str, ...]) -> Mapping[str, Any]:
    """The arguments that are not given."""
    return {
        name: info.get_default(call_default_factory=True)
        for name, info in model.model_fields.items()
        if not info.is_required() and name not in given
    }


def lazy(make: Make, run: Run) -> Any:
    """The component of ``make``, each argument decided by ``run`` when it is read."""
    key = ("lazy", make)
    if key not in run.elements:
        cls = _lazy_class(make.model)
        found = cls.__new__(cls)
        defaults = _defaults(make.model, tuple(make.arguments))
        object.__setattr__(found, "__dict__", {**defaults, "<make>": (make, run)})
        object.__setattr__(found, "__pydantic_fields_set__", set(make.arguments))
        object.__setattr__(found, "__pydantic_extra__", None)
        object.__setattr__(found, "__pydantic_private__", None)
        run.elements[key] = found
    return run.elements[key]


def ask(make: Make, question: Callable[[Any], T], run: Run) -> T:
    """Put a question to a lazy component; its complaint becomes a located one.

    Raises:
        ArchError: the component complains.
    """
    try:
        return question(lazy(make, run))
    except Invalid as problem:
        raise ArchError(located(problem, make, run.decided)) from None


# --- what a container runs ------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """What a container runs where its arguments are so.

    Args:
        when: the choices that decide it, and the alternative of each.
        groups: the distinct visits, and the numbers of the visits that are so.
        copying: whether ``each`` tells the visits apart.
    """

    when: tuple[tuple[Site, int], ...]
    groups: Mapping[tuple[int, ...], Sequence[int]]
    copying: bool

    @property
    def visited(self) -> list[int]:
        """The children that run, each once."""
        return sorted({child for visit in self.groups for child in visit})


@dataclass(frozen=True)
class Layouts(Sequence[Layout]):
    """Everything one container may run.

    Args:
        found: for each combination of the arguments that decide it.
        refused: the combinations that do not fit the container's children.
    """

    found: tuple[Layout, ...] = ()
    refused: tuple[Outcome[Any], ...] = ()

    def __len__(self) -> int:
        return len(self.found)

    @overload
    def __getitem__(self, index: int) -> Layout: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Layout]: ...

    def __getitem__(self, index: int | slice) -> Layout | Sequence[Layout]:
        return self.found[index]


def layouts(term: LayerTerm, budget: Budget | None = None) -> Layouts:
    """Everything a container may run.

    Args:
        term: the container.
        budget: what finding out is taken from; else one of its own.

    Raises:
        ArchError: its arguments can be combined in too many ways.
    """
    if not term.body:
        return Layouts()
    own = budget or Budget(STEPS, SECONDS)

    def question(component: Layer) -> tuple[Sequence[tuple[int, ...]], bool]:
        visits = component.visits(term.labels)
        own.spend(len(visits) // VISITS_A_STEP)
        return visits, repeats(component, visits)

    try:
        outcomes = list(explore(lambda run: ask(term.make, question, run), own))
    except Exhausted as problem:
        raise ArchError(too_many_orders(term, problem)) from None
    found = [_layout(outcome) for outcome in outcomes if outcome.result is not None]
    return Layouts(tuple(found), tuple(outcome for outcome in outcomes if outcome.error))


def too_many_orders(term: LayerTerm, problem: Exhausted) -> Diagnostic:
    """The complaint about a container that may run too many things."""
    return Diagnostic(
        "too-many-orders",
        f"the arguments of `{term.make.title}` can be combined in too many ways",
        term.span,
        help="use fewer alternatives, a larger `by`, or `log`",
        related=widest(problem.sites),
    )


def widest(sites: Mapping[str, Site], count: int = 3) -> tuple[tuple[Span, str], ...]:
    """Where the choices with the most alternatives are written, and how many they have."""
    largest = sorted(sites.values(), key=lambda site: -site.size)[:count]
    return tuple((site.span, f"one of {site.size:,}") for site in largest)


def _layout(outcome: Outcome[tuple[Sequence[tuple[int, ...]], bool]]) -> Layout:
    assert outcome.result is not None
    visits, copying = outcome.result
    when = tuple((outcome.sites[path], index) for path, index in outcome.decided.items())
    return Layout(when, _grouped(visits), copying)


def _grouped(visits: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, visit in enumerate(visits):
        groups.setdefault(tuple(visit), []).append(number)
    return groups
