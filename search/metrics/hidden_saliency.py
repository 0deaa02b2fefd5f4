"""How much the loss hangs on what the mixers give."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class HiddenSaliency(TrainingFree):
    """Σ|h·∂L/∂h| over the outputs of all mixers and cells.

    "Hidden synaptic saliency" of Serianni and Kalita (ACL 2023, §3.2).
    """

    name: ClassVar[str] = "hidden_saliency"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN, Need.HIDDEN_GRADIENTS})

    def measure(self, evidence: Evidence) -> float:
        """The sum, in nats."""
        pairs = zip(evidence.hidden, evidence.hidden_gradients, strict=True)
        return sum(float((hidden * gradient).abs().sum()) for hidden, gradient in pairs)
