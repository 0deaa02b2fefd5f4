"""What is wrong, and for which choices: one diagnostic for many combinations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from archdsl.compiler.terms.explore import Outcome
from archdsl.compiler.terms.term import Site
from archdsl.diagnostics import Diagnostic, Report, Severity, Span

Decided = Mapping[str, int]

NONE: Decided = {}
NO_SITES: Mapping[str, Site] = {}


class Findings:
    """Collects diagnostics that hold for some combinations of choices.

    The first combination of each is named; how many others there are is added at the end.

    Args:
        report: takes them.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self._first: dict[tuple[str, Span | None], Diagnostic] = {}

    def outcome(
        self,
        outcome: Outcome[Any],
        witness: Decided = NONE,
        sites: Mapping[str, Site] = NO_SITES,
    ) -> None:
        """What went wrong in one combination, if something did; ``witness`` led there."""
        for diagnostic in outcome.error.diagnostics if outcome.error else ():
            self.add(diagnostic, {**witness, **outcome.decided}, {**sites, **outcome.sites})

    def add(self, diagnostic: Diagnostic, decided: Decided, sites: Mapping[str, Site]) -> None:
        """One diagnostic for one combination."""
        key = (diagnostic.id, diagnostic.span)
        if key not in self._first:
            self._first[key] = conditional(diagnostic, decided, sites)
            self.report.add(self._first[key])

    @property
    def errors(self) -> bool:
        """Whether something is an error."""
        return any(d.severity is Severity.ERROR for d in self._first.values())


def conditional(diagnostic: Diagnostic, decided: Decided, sites: Mapping[str, Site]) -> Diagnostic:
    """A diagnostic that says for which choices it holds."""
    found = list(_conditions(diagnostic, decided, sites))
    if not found:
        return diagnostic
    texts = [f"{chosen(site, decided[path])} (line {site.span.line})" for path, site in found]
    return replace(
        diagnostic,
        message=f"{diagnostic.message} when {' and '.join(texts)}",
        related=(*diagnostic.related, *((site.span, "this choice") for _, site in found)),
    )


def chosen(site: Site, index: int) -> str:
    """A choice made, in words: ```width = 128```, or of a part of a calculation ```1 | 2` is 2``."""
    text = site.text(index)
    return f"`{site.name} = {text}`" if site.name.isidentifier() else f"`{site.name}` is {text}"


def _conditions(
    diagnostic: Diagnostic, decided: Decided, sites: Mapping[str, Site]
) -> Iterator[tuple[str, Site]]:
    """The choices worth naming: not the one the diagnostic points at."""
    for path, site in sites.items():
        if path in decided and not (diagnostic.span and covers(site.span, diagnostic.span)):
            yield path, site


def covers(outer: Span, inner: Span) -> bool:
    """Whether one span lies within another."""
    return (
        outer.source.name == inner.source.name
        and outer.start <= inner.start
        and inner.end <= outer.end
    )
