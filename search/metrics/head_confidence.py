"""How far the mixers' projections stand out at some position."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class HeadConfidence(TrainingFree):
    """Σ over what mixers are given of the mean over channels of its largest value over time.

    Serianni and Kalita (ACL 2023, §3.3) name it after "Analyzing Multi-Head Self-Attention" (Voita et
    al., ACL 2019), whose confidence is of attention weights; their code takes the projections'
    outputs, and the sum grows with depth. ``mean`` is over projections; see
    :mod:`.softmax_confidence` for the weights.
    """

    name: ClassVar[str] = "head_confidence"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN})

    mean: bool = False

    def measure(self, evidence: Evidence) -> float:
        """In units of the projections."""
        given = [part.float() for mixer in evidence.mixers for part in mixer.inputs]
        terms = [float(part.flatten(2).amax(1).mean()) for part in given if part.dim() > 2]
        return sum(terms) / (max(len(terms), 1) if self.mean else 1)
