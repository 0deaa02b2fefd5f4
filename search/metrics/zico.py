"""How steady the gradients are from batch to batch."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class ZiCo(TrainingFree):
    """Σ over layers of ``log Σ E|g| / σ(|g|)`` over two batches.

    "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients" (Li et al., ICLR 2023,
    eq. 14). A weight whose gradient is the same in both batches counts as σ = its size · 1e-6.
    """

    name: ClassVar[str] = "zico"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENTS, Need.SECOND})

    def measure(self, evidence: Evidence) -> float:
        """A sum of logarithms."""
        first = dict(zip(evidence.names, evidence.gradients, strict=True))
        total = 0.0
        for name in evidence.matrices:
            one, two = first[name].abs().double(), evidence.second[name].abs().double()
            mean, spread = (one + two) / 2, (one - two).abs() / 2
            alive = mean > 0
            ratio = mean[alive] / (spread[alive] + 1e-6 * mean[alive])
            total += log(float(ratio.sum())) if alive.any() else 0.0
        return total
