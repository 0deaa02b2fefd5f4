"""How much the loss hangs on the weights of the mixers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

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
        terms = [(weight * gradient).abs() for weight, gradient in evidence.mixer_matrices()]
        total = sum(float(term.sum()) for term in terms)
        return total / max(sum(term.numel() for term in terms), 1) if self.mean else total
