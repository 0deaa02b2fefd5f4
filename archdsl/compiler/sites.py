"""The choices of a space, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from archdsl.compiler.explore import Layout
from archdsl.compiler.program import Plan
from archdsl.compiler.terms import Choice, Copies, LayerTerm, Points, Site, Term

Layouts = Callable[[LayerTerm], Sequence[Layout]]


def all_sites(plan: Plan, layouts: Layouts) -> Iterator[Site]:
    """Every site that is active in some architecture, each copy of an ``each`` on its own."""
    walk = _Walk(layouts)
    for term in plan.terms():
        yield from walk.sites(term, ())


class _Walk:
    """Goes through terms, each once (in each copy, where copies differ)."""

    def __init__(self, layouts: Layouts) -> None:
        self.layouts = layouts
        self.seen: set[tuple[Term, Copies]] = set()
        self.paths: set[str] = set()

    def sites(self, term: Term, copies: Copies) -> Iterator[Site]:
        key = (term, copies if term.each else ())
        if key in self.seen:
            return
        self.seen.add(key)
        if isinstance(term, Choice | Points):
            site = term.site.at(copies)
            if site.path not in self.paths:
                self.paths.add(site.path)
                yield site
        if isinstance(term, LayerTerm) and term.body:
            yield from self.sites(term.make, copies)
            for child, inner in self.visits(term, copies):
                yield from self.sites(child, inner)
            return
        for child in term.children():
            yield from self.sites(child, copies)

    def visits(self, term: LayerTerm, copies: Copies) -> Iterator[tuple[Term, Copies]]:
        """The children a container may run, in every copy."""
        for layout in self.layouts(term):
            for visit, numbers in layout.groups.items():
                for number in numbers if layout.copying and term.each else [0]:
                    inner = (*copies, (term, number)) if layout.copying else copies
                    for child in visit:
                        yield term.body[child].term, inner
