"""How many directions the mixers' weights and their gradients have."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class SynapticDiversity(TrainingFree):
    """Mean over the mixers' matrices of ``‖W‖_* · ‖∂L/∂W‖_*``, nuclear norms.

    DSS's part for attention, "Training-free Transformer Architecture Search" (Zhou et al., CVPR 2022,
    eq. 4). The published sum grows with depth; ``mean = false`` gives it.
    """

    name: ClassVar[str] = "synaptic_diversity"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN, Need.GRADIENTS})

    mean: bool = True

    def measure(self, evidence: Evidence) -> float:
        """In nats."""
        terms = [weight * gradient for weight, gradient in evidence.nuclear]
        return sum(terms) / (max(len(terms), 1) if self.mean else 1)
