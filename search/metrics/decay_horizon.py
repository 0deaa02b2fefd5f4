"""How many steps back a model's gradient still reaches."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class DecayHorizon(TrainingFree):
    """Mean distance of the tokens that the last loss hangs on, weighted by their squared gradients.

    For a gradient that falls as ``a^n`` it is ``a² / (1 - a²)`` steps.
    """

    name: ClassVar[str] = "decay_horizon"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.JACOBIAN})

    def measure(self, evidence: Evidence) -> float:
        """In tokens; -1 where no token counts."""
        if evidence.reach is None:
            return nan
        energy = evidence.reach.square()
        total = float(energy.sum())
        if not total:
            return -1.0
        return sum(lag * float(part) for lag, part in enumerate(energy)) / total
