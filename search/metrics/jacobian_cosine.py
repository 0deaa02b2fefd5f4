"""How differently a model answers to different sequences, by the angles between its gradients."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree, cosine_score

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class JacobianCosine(TrainingFree):
    """One minus the mean of ``|cos|^(1/20)`` over pairs of sequences, of gradients at embedded tokens.

    Serianni and Kalita (ACL 2023, §3.2), whose code counts each pair by half: their value is between
    0.5 and 1, and orders models as ours does.
    """

    name: ClassVar[str] = "jacobian_cosine"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.JACOBIAN})

    def measure(self, evidence: Evidence) -> float:
        """Between 0 (all alike) and 1."""
        return nan if evidence.jacobian is None else cosine_score(evidence.jacobian)
