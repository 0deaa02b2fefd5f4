"""Why nothing keeps the requirements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.diagnostics import Diagnostic

if TYPE_CHECKING:
    from archdsl.compiler.space import Space


def nothing_feasible(space: Space, tries: int) -> Diagnostic:
    """The diagnostic for a space of which nothing keeps the requirements."""
    return Diagnostic("nothing-feasible", f"0 of {space.count():,} architectures keep the requirements")
