"""The choices of a space, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from archdsl.compiler.reading.program import Plan
from archdsl.compiler.terms.explore import Layout
from archdsl.compiler.terms.sharing import Sharing
from archdsl.compiler.terms.term import Choice, Copies, LayerTerm, Points, Site, Term

Layouts = Callable[[LayerTerm], Sequence[Layout]]
Decided = Mapping[str, int]


def all_sites(plan: Plan, layouts: Layouts) -> Iterator[Site]:
    """Every site that is active in some architecture, each copy of an ``each`` on its own."""
    walk = _Walk(layouts, Sharing(plan.terms()))
    for term in plan.terms():
        yield from walk.sites(term, (), {})


class _Walk:
    """Goes through terms, each once (in each copy, and for each way it depends on what is shared)."""

    def __init__(self, layouts: Layouts, sharing: Sharing) -> None:
        self.layouts, self.sharing = layouts, sharing
        self.seen: set[tuple[Term, Copies, frozenset[tuple[str, int]]]] = set()
        self.paths: set[str] = set()

    def sites(self, term: Term, copies: Copies, when: Decided) -> Iterator[Site]:
        """The sites below a term, where some are decided."""
        below = self.sharing.below(term)
        known = frozenset(item for item in when.items() if item[0] in below)
        key = (term, copies if term.each else (), known)
        if key not in self.seen:
            self.seen.add(key)
            yield from self._sites(term, copies, when)

    def _sites(self, term: Term, copies: Copies, when: Decided) -> Iterator[Site]:
        if isinstance(term, Choice | Points):
            site = term.site.at(copies)
            if site.path not in self.paths:
                self.paths.add(site.path)
                yield site
        if isinstance(term, Choice):
            yield from self._alternatives(term, copies, when)
        elif isinstance(term, LayerTerm) and term.body:
            yield from self.sites(term.make, copies, when)
            for child, inner, also in self._visits(term, copies, when):
                yield from self.sites(child, inner, also)
        else:
            for child in term.children():
                yield from self.sites(child, copies, when)

    def _alternatives(self, term: Choice, copies: Copies, when: Decided) -> Iterator[Site]:
        path = term.site.path
        for index, alternative in enumerate(term.alternatives):
            if term.site.each:
                yield from self.sites(alternative, copies, when)
            elif when.get(path, index) == index:
                yield from self.sites(alternative, copies, {**when, path: index})

    def _visits(
        self, term: LayerTerm, copies: Copies, when: Decided
    ) -> Iterator[tuple[Term, Copies, Decided]]:
        """The children a container may run, in every copy."""
        for layout in self.layouts(term):
            decided = {site.path: index for site, index in layout.when if not site.each}
            if any(when.get(path, index) != index for path, index in decided.items()):
                continue
            for visit, numbers in layout.groups.items():
                for number in numbers if layout.copying and term.each else [0]:
                    inner = (*copies, (term, number)) if layout.copying else copies
                    for child in visit:
                        yield term.body[child].term, inner, {**when, **decided}


MOST_MEETINGS = 20_000
"""Up to so many places in containers are looked at to find the sites that are met in several."""

# --- draws that are met in several containers -----------------------------------------------------


def name_wanderers(plan: Plan, layouts: Layouts) -> None:
    """Mark the sites of ``each`` that are met in several containers, and name the containers."""
    found: dict[Site, set[tuple[LayerTerm, ...]]] = {}
    titles: dict[str, int] = {}
    seen: set[tuple[Term, tuple[LayerTerm, ...]]] = set()
    todo: list[tuple[Term, tuple[LayerTerm, ...]]] = []
    todo += [(term, ()) for term in plan.terms() if term.each][::-1]
    while todo:
        term, chain = todo.pop()
        if (term, chain) in seen:
            continue
        seen.add((term, chain))
        if isinstance(term, Choice | Points) and term.site.each:
            found.setdefault(term.site, set()).add(chain)
        inner = chain
        if isinstance(term, LayerTerm) and any(layout.copying for layout in layouts(term)):
            inner = (*chain, _titled(term, titles))
        make = term.make if isinstance(term, LayerTerm) else None
        below = [(child, chain if child is make else inner) for child in term.children()]
        todo += [item for item in below if item[0].each][::-1]
        if len(seen) > MOST_MEETINGS:
            for site in found:
                site.wanders = True
            return
    for site, chains in found.items():
        site.wanders = len(chains) > 1


def _titled(term: LayerTerm, titles: dict[str, int]) -> LayerTerm:
    if not term.title:
        number = titles[term.make.name] = titles.get(term.make.name, 0) + 1
        term.title = term.make.name if number == 1 else f"{term.make.name}#{number}"
    return term
