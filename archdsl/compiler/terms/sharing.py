"""Which choices are used where, and which in more than one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from archdsl.compiler.terms.term import Choice, LayerTerm, Points, Site, Term


class Sharing:
    """The sites below each term of a program.

    Args:
        roots: its terms.
    """

    def __init__(self, roots: Iterable[Term]) -> None:
        self._below: dict[Term, frozenset[str]] = {}
        self._sites: dict[str, Site] = {}
        self._uses: dict[Term, int] = {}
        self._terms: dict[str, int] = {}
        for root in roots:
            self._visit(root)
        self._shared = self._find_shared()

    def below(self, term: Term) -> frozenset[str]:
        """The paths of the sites a term may ask for."""
        return frozenset() if term.settled else self._below[term]

    def each(self, path: str) -> bool:
        """Whether every copy draws a site anew."""
        return path in self._sites and self._sites[path].each

    def kept(self, decided: Mapping[str, int]) -> dict[str, int]:
        """The decisions that something else may depend on as well."""
        return {path: index for path, index in decided.items() if path in self._shared}

    def _visit(self, term: Term) -> frozenset[str]:
        if term.settled:
            return frozenset()
        self._uses[term] = self._uses.get(term, 0) + 1
        if term not in self._below:
            own: frozenset[str] = frozenset()
            if isinstance(term, Choice | Points):
                own = frozenset({term.site.path})
                self._sites[term.site.path] = term.site
                self._terms[term.site.path] = self._terms.get(term.site.path, 0) + 1
            self._below[term] = own.union(*map(self._visit, term.children()))
        return self._below[term]

    def _find_shared(self) -> frozenset[str]:
        """Sites of several terms, sites below a term with several users, and what decides orders."""
        found = {path for path, count in self._terms.items() if count > 1}
        for term, uses in self._uses.items():
            if uses > 1:
                found |= self._below[term]
            if isinstance(term, LayerTerm) and term.body:
                found |= self.below(term.make)
        return frozenset(found)
