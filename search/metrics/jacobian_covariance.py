"""How differently a model answers to different sequences."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class JacobianCovariance(TrainingFree):
    """S(R) of the correlation R between sequences of the gradient at the embedded tokens.

    "Neural Architecture Search without Training" (Mellor et al., ICML 2021), as Serianni and Kalita
    (ACL 2023) use it on embeddings. They pull back ones from the outputs; we pull back the task's loss,
    which other metrics need as well, so that one backward pass serves all.
    """

    name: ClassVar[str] = "jacobian_covariance"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.JACOBIAN})

    def measure(self, evidence: Evidence) -> float:
        """S(R); at most −B for B sequences."""
        return nan if evidence.angles is None else evidence.angles
