"""A space: every architecture a file describes, with its choices kept. Immutable."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property, partial
from time import thread_time
from typing import TYPE_CHECKING, Any

from archdsl.blocks.asking import SearchSection, Task
from archdsl.compiler.reading.program import Plan
from archdsl.compiler.reading.quantities import Objective, Requirement
from archdsl.compiler.reading.sources import Sources
from archdsl.compiler.spaces.arch import Arch, Assignment
from archdsl.compiler.spaces.counting import ONE, Counter, Draw, Factor, TooEntangled
from archdsl.compiler.spaces.infeasible import Look
from archdsl.compiler.spaces.sites import all_sites
from archdsl.compiler.terms.explore import Budget, Layouts, layouts, no_choice
from archdsl.compiler.terms.term import Choose, LayerTerm, Run, Site
from archdsl.diagnostics import ArchError, Diagnostic, did_you_mean
from archdsl.grammar import ast

if TYPE_CHECKING:
    from archdsl.compiler.graphs.lower import Regions

DRAWS = 200
"""How many draws are rejected before a small space is searched through instead."""

FIRST_DRAWS = 8
"""How many random architectures are looked at before all of them are, in turn."""

MOST_LOOKS = 4_000
"""How many architectures are looked at for one draw before none counts as feasible."""

MOST_OPERATIONS = 40_000
"""How many operations they may have together."""

MOST_PARTS = 10_000
"""How many layers and sequences of layers are remembered, in case another architecture has them too."""


class Space:
    """Every architecture of a file; made by :func:`archdsl.load` and :func:`archdsl.loads`.

    Args:
        plan: the terms of the program.
        sources: its texts, from which the same space is made again.
        program: the main file's syntax tree.
    """

    def __init__(self, plan: Plan, sources: Sources, program: ast.Program) -> None:
        self.plan, self.sources, self.program = plan, sources, program
        self._layouts: dict[LayerTerm, Layouts] = {}
        self._elements: dict[Any, Any] = {}

    @cached_property
    def regions(self) -> Regions:
        """The graphs of parts that architectures have in common: each is lowered and rewritten once."""
        from archdsl.compiler.graphs.lower import Regions

        return Regions()

    # --- what the file says -----------------------------------------------------------------------

    @property
    def search(self) -> SearchSection:
        """The ``search`` section; its defaults where the file has none."""
        return self.plan.search

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """What is made large or small, in the order of the file."""
        run = Run(no_choice)
        return tuple(run.value(term) for term in self.plan.objectives)

    @property
    def text_hash(self) -> str:
        """Changes exactly when the program (with the files it uses) says something else."""
        return self.sources.hash

    @property
    def text(self) -> str:
        """The text of the main file."""
        return self.sources.text

    @property
    def name(self) -> str:
        """The path of the main file as it was given."""
        return self.sources.name

    # --- counting ---------------------------------------------------------------------------------

    def layouts(self, term: LayerTerm, budget: Budget | None = None) -> Layouts:
        """Everything one container of the space may run, found once.

        Raises:
            ArchError: its arguments can be combined in too many ways.
        """
        if term not in self._layouts:
            self._layouts[term] = layouts(term, budget)
        return self._layouts[term]

    @cached_property
    def _factor(self) -> Factor:
        return Counter(list(self.plan.terms()), self.layouts).factor

    @cached_property
    def _count(self) -> int:
        if all(term.settled for term in self.plan.terms()):
            return 1
        try:
            return self._factor.polynomial.get(ONE, 0)
        except TooEntangled:
            raise ArchError(self._too_entangled()) from None

    def count(self) -> int:
        """How many architectures there are, constraints aside: assignments of active choices.

        Raises:
            ArchError: there is no model, or the choices depend on each other in too many ways.
        """
        self.require_model()
        return self._count

    @cached_property
    def _sites(self) -> tuple[Site, ...]:
        return tuple(all_sites(self.plan, self.layouts))

    def sites(self) -> tuple[Site, ...]:
        """Every choice that is active in some architecture, in the order in which they are asked."""
        return self._sites

    # --- single architectures ---------------------------------------------------------------------

    def decide(self, choose: Choose) -> Arch:
        """The architecture of a chooser, asked once for each active choice, in a fixed order.

        One that was decided before is the same object, with all that was found out about it.

        Raises:
            ArchError: there is no model, or the choices do not fit together.
        """
        self.require_model()
        run = Run(choose, self.elements)
        return run.remembered(Arch, partial(self._decided, run))

    def _decided(self, run: Run) -> Arch:
        """The architecture of what a run decides."""
        assert self.plan.model is not None
        root = run.value(self.plan.model)
        tasks: dict[str, Task] = {name: run.value(term) for name, term in self.plan.tasks.items()}
        train = run.value(self.plan.train)
        requirements: tuple[Requirement, ...] = tuple(map(run.value, self.plan.requirements))
        choices = {path: run.sites[path].text(index) for path, index in run.decided.items()}
        return Arch(self, root, run.decided, choices, tasks, train, requirements)

    @property
    def elements(self) -> dict[Any, Any]:
        """The parts of earlier architectures, unless there are too many."""
        if max(len(self._elements), len(self.regions.known)) > MOST_PARTS:
            self._elements.clear()
            self.regions.known.clear()
        return self._elements

    def arch(self, assignment: Assignment) -> Arch:
        """The architecture of an assignment of every active choice.

        Raises:
            ArchError: a choice is missing, unknown, not active, or has no such alternative.
        """
        arch = self.decide(lambda site: self._given(assignment, site))
        idle = [path for path in assignment if path not in arch.assignment]
        if idle:
            raise ArchError([self._idle(path) for path in idle])
        return arch

    def enumerate(self) -> Iterator[Arch]:
        """Every architecture, constraints aside, each once, lazily."""
        prefix: list[int] | None = []
        while prefix is not None:
            taken: list[tuple[int, int]] = []
            yield self.decide(_follow(prefix, taken))
            while taken and taken[-1][0] + 1 == taken[-1][1]:
                taken.pop()
            prefix = [i for i, _ in taken[:-1]] + [taken[-1][0] + 1] if taken else None

    # --- drawing ----------------------------------------------------------------------------------

    def sample(self, seed: int) -> Arch:
        """A uniform draw from the architectures that keep every hard requirement.

        Raises:
            ArchError: there is none (``nothing-feasible``), or none was found.
        """
        rng, look = random.Random(seed), Look()
        for _ in range(DRAWS if self._few else self._affordable):
            arch = self._draw(rng)
            if look.feasible(arch):
                return arch
        if not self._few:
            raise ArchError(look.diagnostic(self, everything=False))
        feasible, look = self._everything
        if not feasible:
            raise ArchError(look.diagnostic(self, everything=True))
        return self.arch(rng.choice(feasible))

    @cached_property
    def _affordable(self) -> int:
        """How many architectures can be looked at for one draw."""
        size = sum(1 for _ in self.decide(lambda site: 0).graph.walk())
        return max(1, min(MOST_LOOKS, MOST_OPERATIONS // max(size, 1)))

    @cached_property
    def _few(self) -> bool:
        """Whether there are so few architectures that all can be looked at."""
        return self.count() <= self._affordable

    @cached_property
    def _everything(self) -> tuple[list[Assignment], Look]:
        """The assignments that keep the requirements, and how near the others came; for few."""
        look = Look()
        return [arch.assignment for arch in self.enumerate() if look.feasible(arch)], look

    def infeasibility(self, seconds: float) -> Diagnostic | None:
        """That nothing keeps the requirements; ``None`` where something does, or time is up.

        Args:
            seconds: of this thread, each time for looking and for finding what it is due to.
        """
        end, look = thread_time() + seconds, Look()
        for seed in range(FIRST_DRAWS if self.count() > FIRST_DRAWS else 0):
            if look.feasible(self.draw(seed)) or thread_time() > end:
                return None
        look = Look()
        for arch in self.enumerate():
            if look.feasible(arch) or thread_time() > end:
                return None
        return look.diagnostic(self, everything=True, seconds=seconds)

    def draw(self, seed: int) -> Arch:
        """A uniform draw, constraints aside."""
        return self._draw(random.Random(seed))

    def _draw(self, rng: random.Random) -> Arch:
        self.count()
        out = Draw(rng)
        self._factor.draw(ONE, out)
        return self.decide(lambda site: out.assignment[site.path])

    def mutate(self, arch: Arch, seed: int) -> Arch:
        """A neighbour: one active choice drawn again, and what that makes active drawn as well.

        It keeps the requirements, and is never the same unless nothing else is feasible.
        """
        rng = random.Random(seed)
        if not arch.assignment:
            return arch
        for _ in range(DRAWS):
            changed = self._changed(arch, rng)
            if changed.feasible:
                return changed
        return self._another(arch, rng)

    def _changed(self, arch: Arch, rng: random.Random) -> Arch:
        path = rng.choice(list(arch.assignment))
        kept = dict(arch.assignment)

        def choose(site: Site) -> int:
            if site.path == path:
                return (kept[path] + rng.randrange(1, site.size)) % site.size
            known = kept.get(site.path)
            return known if known is not None and known < site.size else rng.randrange(site.size)

        return self.decide(choose)

    def _another(self, arch: Arch, rng: random.Random) -> Arch:
        """Any other feasible architecture, else the same."""
        if self._few:
            others = [each for each in self._everything[0] if each != arch.assignment]
            return self.arch(rng.choice(others)) if others else arch
        for _ in range(DRAWS):
            other = self._draw(rng)
            if other.feasible and other != arch:
                return other
        return arch

    def crossover(self, a: Arch, b: Arch, seed: int) -> Arch:
        """A child: each choice from one of the two, and what neither has drawn anew.

        It keeps the requirements; where no child that was tried does, it is one of the two.
        """
        rng = random.Random(seed)
        for _ in range(DRAWS):
            child = self._child(a, b, rng)
            if child.feasible:
                return child
        return rng.choice([a, b])

    def _child(self, a: Arch, b: Arch, rng: random.Random) -> Arch:
        def choose(site: Site) -> int:
            known = [p.assignment[site.path] for p in (a, b) if site.path in p.assignment]
            known = [index for index in known if index < site.size]
            return rng.choice(known) if known else rng.randrange(site.size)

        return self.decide(choose)

    # --- requirements -----------------------------------------------------------------------------

    def feasible(self, arch: Arch) -> bool:
        """Whether an architecture keeps every hard requirement."""
        return arch.feasible

    def violations(self, arch: Arch) -> tuple[Diagnostic, ...]:
        """One diagnostic for each hard requirement an architecture does not keep."""
        return tuple(
            Diagnostic("requirement-broken", f"it does not keep `{each.text}`", each.span)
            for each in arch.requirements
            if not each.holds(arch.cost)
        )

    # --- storing ----------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The texts and bindings as JSON."""
        return self.sources.to_json()

    @classmethod
    def from_json(cls, text: str) -> Space:
        """The space of :meth:`to_json`; reads no file.

        Raises:
            ArchError: the texts are not accepted.
        """
        from archdsl.compiler.spaces.loading import space_of

        return space_of(Sources.from_json(text))

    def __reduce__(self) -> tuple[object, ...]:
        return Space.from_json, (self.to_json(),)

    def __deepcopy__(self, memo: object) -> Space:
        return self

    def __repr__(self) -> str:
        return f"Space({self.name!r})"

    # --- mistakes ---------------------------------------------------------------------------------

    def require_model(self) -> None:
        """Complain where the file has no model.

        Raises:
            ArchError: it has none.
        """
        if self.plan.model is None:
            message = f"`{self.name}` has no `model`, so there is no architecture in it"
            raise ArchError(
                Diagnostic(
                    "missing-model", message, help="write `model { embed(dim = 64)  …  lm_head }`"
                )
            )

    def _given(self, assignment: Assignment, site: Site) -> int:
        index = assignment.get(site.path)
        if index is None:
            message = f"nothing is chosen for `{site.path}`"
            raise ArchError(Diagnostic("wrong-assignment", message, site.span))
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < site.size:
            message = f"`{site.path}` has the alternatives 0 to {site.size - 1}, and not {index!r}"
            raise ArchError(Diagnostic("wrong-assignment", message, site.span))
        return index

    def _idle(self, path: str) -> Diagnostic:
        known = {site.path: site for site in self.sites()}
        if path in known:
            message = f"`{path}` is not drawn in this architecture"
            return Diagnostic("wrong-assignment", message, known[path].span)
        message = f"there is no choice `{path}`"
        return Diagnostic("wrong-assignment", message, label=did_you_mean(path, known))

    def _too_entangled(self) -> Diagnostic:
        model = self.plan.model
        return Diagnostic(
            "too-entangled",
            "the choices of this file depend on each other in too many ways to be counted",
            model.span if model else None,
            help="share fewer choices by `let`, or write some of them where they are used",
        )


def _follow(prefix: list[int], taken: list[tuple[int, int]]) -> Choose:
    """Decide by a prefix, then first alternatives; keeps what was taken and out of how many."""

    def choose(site: Site) -> int:
        index = prefix[len(taken)] if len(taken) < len(prefix) else 0
        taken.append((index, site.size))
        return index

    return choose
