"""How steady a model's gradients are under noise on its tokens."""

from __future__ import annotations

from collections.abc import Callable
from math import nan, prod
from typing import TYPE_CHECKING, ClassVar, Literal

from archdsl.search.metrics.base import Need, TrainingFree, cosine_score, covariance_score

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.search.metrics.evidence import Evidence

SCORES: dict[str, Callable[[Tensor], float]] = {
    "covariance": covariance_score,
    "cosine": cosine_score,
}


class NoisedJacobian(TrainingFree):
    """The score of the gradients at the embedded tokens, with and without noise.

    Serianni and Kalita (ACL 2023, §3.2). ``large`` is ``1 - |score - score with noise 10|``; ``more``
    is the product of the scores without noise and with 0.1, 10 and 100.

    Args:
        noise: which of the two.
        score_of: of the gradients: ``covariance`` as in :mod:`.jacobian_covariance`, or ``cosine``.
    """

    name: ClassVar[str] = "noised_jacobian"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.JACOBIAN, Need.NOISE})

    noise: Literal["large", "more"] = "more"
    score_of: Literal["covariance", "cosine"] = "cosine"

    def measure(self, evidence: Evidence) -> float:
        """As the class says."""
        if evidence.jacobian is None or not evidence.noised:
            return nan
        score = SCORES[self.score_of]
        plain = score(evidence.jacobian)
        if self.noise == "large":
            return 1 - abs(plain - score(evidence.noised[10.0]))
        return plain * prod(score(rows) for rows in evidence.noised.values())
