"""Terms: what is left of a file when every name is resolved and every choice is kept.

Terms form a directed acyclic graph: what a ``let`` or an argument names is one term however often it
is used, and its choices are drawn once. A :class:`Run` evaluates terms with the choices decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from archdsl.blocks.base import Invalid, Layer
from archdsl.compiler.terms.answers import Answers, Question
from archdsl.compiler.terms.calculation import Operator, calculate
from archdsl.compiler.terms.elements import Element, Visit
from archdsl.compiler.terms.expect import Number, whole
from archdsl.compiler.terms.wording import worded
from archdsl.diagnostics import ArchError, Diagnostic, Span

if TYPE_CHECKING:
    from archdsl.compiler.terms.origin import Argument, Origin


@dataclass(eq=False)
class Site:
    """One choice or range of a space, drawn once (``each``: once for every copy).

    Args:
        path: a stable readable name (``memory``, ``model.stack.linear.block.gla.heads``).
        span: where it is written.
        kind: what is written there.
        size: how many alternatives it has.
        texts: what alternative ``i`` is, in a few words.
        each: whether every copy draws its own.
        key: tells the choices of one text apart; copies of one choice share it.
        name: what it is called in messages.
        wanders: whether it is met in several containers, so that a copy has to name its own.
    """

    path: str
    span: Span
    kind: Literal["choice", "range"]
    size: int
    texts: Callable[[int], str] = field(repr=False)
    each: bool = False
    key: int = -1
    name: str = ""
    wanders: bool = False

    def text(self, index: int) -> str:
        """A short text of alternative ``index``."""
        return self.texts(index)

    def at(self, copies: Copies) -> Site:
        """The site of one copy."""
        if not (self.each and copies):
            return self
        marks = [f"{term.title}:{visit}" if self.wanders else visit for term, visit in copies]
        return replace(self, path=self.path + "".join(f"[{mark}]" for mark in marks))


Copies = tuple[tuple["LayerTerm", int], ...]
"""The containers that run their children several times, outermost first, and which run this is."""

Choose = Callable[[Site], int]
"""Decides a site: the index of the alternative to take."""

Asked = tuple[tuple[str, "Question"], ...]
"""The choices that were asked for, by path, in their order."""

Found = TypeVar("Found")


class Run:
    """One walk through terms: asks for each choice once; equal ``elements``, of any walk, are one."""

    def __init__(self, choose: Choose, elements: dict[Any, Any] | None = None) -> None:
        self._choose = choose
        self.decided: dict[str, int] = {}
        self.sites: dict[str, Site] = {}
        self.memo: dict[tuple[Term, Copies], tuple[Any, Asked]] = {}
        self.asked: list[tuple[str, Question]] = []
        self.elements = {} if elements is None else elements
        self.lasting = elements is not None

    def decide(self, site: Site, copies: Copies) -> int:
        """The alternative taken at a site, in one copy."""
        own = site.at(copies)
        if self.lasting:
            self.asked.append((own.path, (site, copies)))
        if own.path not in self.decided:
            index = self._choose(own)
            assert 0 <= index < own.size, (own.path, index)
            self.decided[own.path], self.sites[own.path] = index, own
        return self.decided[own.path]

    def value(self, term: Term, copies: Copies = ()) -> Any:
        """What a term is."""
        if isinstance(term, Constant):
            return term.value
        if term.settled and self.lasting:
            return self.shared(term, lambda: term.evaluate(self, ()))
        key = (term, copies if term.each else ())
        known = self.memo.get(key)
        if known is None:
            begin, made = len(self.asked), partial(term.evaluate, self, copies)
            found = self.remembered(key, made) if term.lasts else made()
            self.memo[key] = found, self._since(begin)
            return found
        self.asked += known[1]
        return known[0]

    def remembered(self, key: Any, make: Callable[[], Found]) -> Found:
        """What ``make`` gives, made once for all walks that decide alike what it asks for."""
        if not self.lasting:
            return make()
        answers: Answers = self.shared((Answers, key), Answers)
        known = answers.find(self.decide)
        if known is not None:
            return known.value  # type: ignore[no-any-return]
        begin, made = len(self.asked), make()
        questions = self._since(begin)
        answers.keep([(each, self.decided[path]) for path, each in questions], made)
        return made

    def _since(self, begin: int) -> Asked:
        """What was asked for from one place on, each choice once."""
        return tuple(dict(self.asked[begin:]).items()) if self.lasting else ()

    def shared(self, key: Any, make: Callable[[], Any]) -> Any:
        """One object for all that are equal."""
        found = self.elements.get(key)
        return self.elements.setdefault(key, make()) if found is None else found


@dataclass(eq=False)
class Term:
    """Anything that stands for a value, layers, or an equation.

    Args:
        span: where it is written, in the user's own files.

    Attributes:
        each: whether copies of it may differ.
        broken: whether a mistake in it is reported already, so that it has no value.
        settled: whether it asks for no choice, and so is the same in every architecture.
        lasts: whether what it is in one architecture is kept for others that decide alike.
    """

    lasts: ClassVar[bool] = False
    span: Span
    each: bool = field(default=False, init=False)
    broken: bool = field(default=False, init=False)
    settled: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        for child in self.children():
            self.each = self.each or child.each
            self.broken = self.broken or child.broken
            self.settled = self.settled and child.settled

    def children(self) -> Iterator[Term]:
        """The terms it is made of."""
        return iter(())

    def evaluate(self, run: Run, copies: Copies) -> Any:
        """What it is when choices are decided; ask :meth:`Run.value` instead, which remembers."""
        raise AssertionError(type(self).__name__)


@dataclass(eq=False)
class Constant(Term):
    """A value."""

    value: Any


@dataclass(eq=False)
class Broken(Term):
    """What a mistake leaves behind; it is reported already, and nothing evaluates it."""

    def __post_init__(self) -> None:
        self.broken = True


@dataclass(eq=False)
class Choice(Term):
    """``a | b``."""

    site: Site
    alternatives: tuple[Term, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.each = self.each or self.site.each
        self.settled = False

    def children(self) -> Iterator[Term]:
        """What it is made of."""
        return iter(self.alternatives)

    def evaluate(self, run: Run, copies: Copies) -> Any:
        """Its value in one run."""
        return run.value(self.alternatives[run.decide(self.site, copies)], copies)


@dataclass(frozen=True)
class Progression:
    """The numbers of a range, never written out: ``first + i · step`` or ``first · 2^i``."""

    first: Number
    step: Number | None
    count: int

    def __getitem__(self, index: int) -> Number:
        if self.step is None:
            return whole(Fraction(self.first) * 2**index)
        return whole(Fraction(self.first) + index * Fraction(self.step))


@dataclass(eq=False)
class Points(Term):
    """``low .. high``; ``typed`` makes a number what the field takes, or complains."""

    site: Site
    points: Progression
    typed: Callable[[Number], Any]

    def __post_init__(self) -> None:
        self.each = self.site.each
        self.settled = False

    def evaluate(self, run: Run, copies: Copies) -> Any:
        """Its value in one run."""
        return self.typed(self.points[run.decide(self.site, copies)])


@dataclass(eq=False)
class Arithmetic(Term):
    """``a + b`` and its kin, on exact numbers."""

    operator: Operator
    left: Term
    right: Term

    def children(self) -> Iterator[Term]:
        """What it is made of."""
        return iter((self.left, self.right))

    def evaluate(self, run: Run, copies: Copies) -> Number:
        """Its value in one run."""
        left, right = run.value(self.left, copies), run.value(self.right, copies)
        return calculate(self.operator, left, right, self.span, self.right.span)


@dataclass(eq=False)
class Typed(Term):
    """A calculated number, made what the field takes."""

    number: Term
    typed: Callable[[Number], Any]

    def children(self) -> Iterator[Term]:
        """What it is made of."""
        return iter((self.number,))

    def evaluate(self, run: Run, copies: Copies) -> Any:
        """Its value in one run."""
        return self.typed(run.value(self.number, copies))


@dataclass(eq=False)
class Listing(Term):
    """``[a, b]``."""

    items: tuple[Term, ...]

    def children(self) -> Iterator[Term]:
        """What it is made of."""
        return iter(self.items)

    def evaluate(self, run: Run, copies: Copies) -> tuple[Any, ...]:
        """Its value in one run."""
        return tuple(run.value(item, copies) for item in self.items)


@dataclass(eq=False)
class Make(Term):
    """A component (or a section's settings) with its arguments.

    ``word`` is the name the user wrote, and ``given`` what that definition of the library was given.
    """

    model: type[BaseModel]
    name: str
    arguments: dict[str, Term]
    trail: tuple[Span, ...] = ()
    word: str = ""
    given: tuple[Argument, ...] = ()

    @property
    def title(self) -> str:
        """What the user knows it by."""
        return self.word or self.name

    def children(self) -> Iterator[Term]:
        """What it is made of."""
        return iter(self.arguments.values())

    def evaluate(self, run: Run, copies: Copies) -> BaseModel:
        """Its value in one run."""
        values = {name: run.value(term, copies) for name, term in self.arguments.items()}
        if not run.lasting:
            return self.made(values)
        key = (self, *((type(value), value) for value in values.values()))
        return run.shared(key, lambda: self.made(values))  # type: ignore[no-any-return]

    def made(self, values: Mapping[str, Any]) -> BaseModel:
        """The component of its arguments' values.

        Raises:
            ArchError: a validator of its own does not accept one.
        """
        try:
            return self.model(**values)
        except ValidationError as error:
            raise ArchError(self.refused(error)) from None

    def refused(self, error: ValidationError) -> Diagnostic:
        """What a validator of the component's own does not accept, in our words."""
        argument = next((str(part) for part in error.errors()[0]["loc"]), "")
        at = self.arguments.get(argument)
        return Diagnostic(
            "wrong-type",
            f"`{self.title}` does not accept this `{argument}`"
            if at
            else f"`{self.title}` does not accept this",
            at.span if at else self.span,
        )

    def place(self, argument: str | None, decided: Mapping[str, int]) -> Span:
        """Where an argument is given, of this component or of one inside it; else its name."""
        found = self.find(argument, decided) if argument else None
        return taken(found, decided).span if found else self.span

    def spoken(self, argument: str | None, decided: Mapping[str, int]) -> str:
        """What the user knows an argument by."""
        found = self.find(argument, decided) if argument else None
        names = (a.name for a in self.given if any(term is found for term in a.terms.values()))
        return next(names, argument or "")

    def find(self, argument: str, decided: Mapping[str, int]) -> Term | None:
        """The term of an argument, of this component first."""
        if argument in self.arguments:
            return self.arguments[argument]
        made = (taken(term, decided) for term in self.arguments.values())
        inner = (term.find(argument, decided) for term in made if isinstance(term, Make))
        return next((term for term in inner if term), None)


@dataclass(frozen=True)
class Child:
    """One entry of a body: its label, if it has one, and the layers it stands for."""

    label: str | None
    term: Term


@dataclass(eq=False)
class LayerTerm(Term):
    """A layer in a body, with its own body if it is a container."""

    lasts: ClassVar[bool] = True
    make: Make
    body: tuple[Child, ...]
    origin: Origin | None = None
    title: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.origin.arguments if self.origin else ()
        terms = (term for argument in given for term in argument.terms.values())
        self.settled = self.settled and all(term.settled for term in terms)

    def children(self) -> Iterator[Term]:
        """What it is made of."""
        yield self.make
        yield from (child.term for child in self.body)

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The label of each child."""
        return tuple(child.label for child in self.body)

    def evaluate(self, run: Run, copies: Copies) -> tuple[Element, ...]:
        """Its value in one run."""
        component: Layer = run.value(self.make, copies)
        visits = self.visits(component, run) if self.body else ()
        copying = repeats(component, visits)
        made = tuple(self.visit(run, copies, n, v, copying) for n, v in enumerate(visits))
        if self.body and not any(visit.elements for visit in made):
            return ()
        origin = self.origin.text(run, copies) if self.origin else None
        key = (component, tuple(map(id, made)), origin)
        return run.shared(key, lambda: (Element(component, made, self.span, origin),))  # type: ignore[no-any-return]

    def visit(
        self, run: Run, copies: Copies, number: int, children: tuple[int, ...], copying: bool
    ) -> Visit:
        """One visit: the layers of its children in sequence."""
        inner = (*copies, (self, number)) if copying else copies
        elements = tuple(
            element for i in children for element in run.value(self.body[i].term, inner)
        )
        label = self.body[children[0]].label if len(children) == 1 else None
        key = (label, tuple(map(id, elements)))
        return run.shared(key, lambda: Visit(label, elements))  # type: ignore[no-any-return]

    def visits(self, component: Layer, run: Run) -> Sequence[tuple[int, ...]]:
        """What the container runs; raises ArchError where its arguments do not fit its children."""
        try:
            return component.visits(self.labels)
        except Invalid as problem:
            raise ArchError(located(problem, self.make, run.decided)) from None


def repeats(component: Layer, visits: Sequence[tuple[int, ...]]) -> bool:
    """Whether a container runs its children more than once, so that ``each`` tells runs apart."""
    if len(visits) < 2:
        return False
    try:
        return len(component.visits((None,))) > 1
    except Invalid:
        return len(set(visits)) < len(visits)


@dataclass(eq=False)
class Series(Term):
    """Layers one after the other, in place."""

    items: tuple[Term, ...]

    def children(self) -> Iterator[Term]:
        """What it is made of."""
        return iter(self.items)

    def evaluate(self, run: Run, copies: Copies) -> tuple[Element, ...]:
        """Its value in one run."""
        return tuple(element for item in self.items for element in run.value(item, copies))


# --- helpers --------------------------------------------------------------------------------------


def taken(term: Term, decided: Mapping[str, int]) -> Term:
    """The alternative of a term that was taken, as far as it is decided."""
    while isinstance(term, Choice) and term.site.path in decided:
        term = term.alternatives[decided[term.site.path]]
    return term


def located(problem: Invalid, make: Make, decided: Mapping[str, int]) -> Diagnostic:
    """A component's complaint, at the place in the text it is about and in the words of the text."""
    words = {make.name: make.title}
    if problem.argument:
        words[problem.argument] = make.spoken(problem.argument, decided)
    said = partial(worded, words=words)
    return Diagnostic(
        problem.id,
        said(problem.message),
        make.place(problem.argument, decided),
        label=said(problem.label),
        help=said(problem.help),
        related=tuple((span, "used here") for span in make.trail),
    )
