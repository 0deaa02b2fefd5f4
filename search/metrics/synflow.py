"""How much flows through the weights' absolute values."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class Synflow(TrainingFree):
    """log Σ|w·∂R/∂w| with absolute weights; see :func:`archdsl.search.metrics.evidence.synflow`.

    The logarithm keeps values that reach 1e61 comparable.
    """

    name: ClassVar[str] = "synflow"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SYNFLOW})

    def measure(self, evidence: Evidence) -> float:
        """The logarithm of the flow."""
        return evidence.synflow
