"""How much the loss hangs on the weights of the mixers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree, saliency

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class HeadImportance(TrainingFree):
    """Σ|w·∂L/∂w| over the matrices around mixers: queries, keys, values, outputs.

    Serianni and Kalita (ACL 2023, §3.3) after "Are Sixteen Heads Really Better than One?" (Michel et
    al., NeurIPS 2019). ``mean`` divides by the number of weights, so that size does not decide.
    """

    name: ClassVar[str] = "head_importance"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN, Need.GRADIENTS})

    mean: bool = False

    def measure(self, evidence: Evidence) -> float:
        """In nats."""
        pairs = evidence.mixer_matrices
        total = saliency([weight for weight, _ in pairs], [gradient for _, gradient in pairs])
        return total / max(sum(weight.numel() for weight, _ in pairs), 1) if self.mean else total
