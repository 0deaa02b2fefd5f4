"""How much flows through the weights' absolute values."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class Synflow(TrainingFree):
    """log Σ|w·∂R/∂w| with absolute weights; see :func:`archdsl.search.metrics.passes.synflow`.

    The logarithm keeps values that reach 1e61 comparable.

    It is not among the default metrics, which together cost less than a third of the pass they share:
    absolute weights need a pass of their own, and however short its one sequence is, that is a fifth of
    the shared pass for the candidates of ``specs/hybrid.arch`` and most of it for a recurrent cell
    (``python -m tests.studies.throughput``).
    """

    name: ClassVar[str] = "synflow"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SYNFLOW})

    def measure(self, evidence: Evidence) -> float:
        """The logarithm of the flow."""
        return evidence.synflow
