"""How much of the past the loss hangs on, beside the present."""

from __future__ import annotations

from math import log10, nan
from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence

CUT_OFF = -30.0
"""The score of a model whose output does not see the current token."""


class GradientReach(TrainingFree):
    """``log10`` of the gradient at the token before the last loss over that at its own token.

    A cell whose output cannot see its own input ranks last: every layer of such cells delays the
    sequence by a step.
    """

    name: ClassVar[str] = "gradient_reach"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.JACOBIAN})

    def measure(self, evidence: Evidence) -> float:
        """At least :data:`CUT_OFF`."""
        if evidence.reach is None:
            return nan
        now, before = (float(part) for part in evidence.reach[:2])
        if now <= 0:
            return CUT_OFF
        return max(log10(before / now), CUT_OFF) if before > 0 else CUT_OFF / 2
