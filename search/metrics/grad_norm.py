"""How much the weights would move."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree, norms

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class GradNorm(TrainingFree):
    """Σ‖∂L/∂w‖₂ over parameters.

    "Zero-Cost Proxies for Lightweight NAS" (Abdelfattah et al., ICLR 2021); the loss is that of
    :mod:`.snip`.
    """

    name: ClassVar[str] = "grad_norm"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENTS})

    def measure(self, evidence: Evidence) -> float:
        """The sum of the norms."""
        return sum(norms(evidence.gradients))
