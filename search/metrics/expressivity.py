"""How evenly the mixers' outputs fill their channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class Expressivity(TrainingFree):
    """Σ over mixers of the entropy of the eigenvalues of their outputs' covariance.

    "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search" (Lee and Ham, CVPR 2024,
    §3.1). Larger where more directions carry variance.
    """

    name: ClassVar[str] = "expressivity"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN})

    def measure(self, evidence: Evidence) -> float:
        """In nats."""
        import torch

        from archdsl.search.metrics.hidden_covariance import units

        total = 0.0
        for hidden in evidence.hidden:
            rows = torch.nan_to_num(units(hidden).double(), nan=0.0, posinf=0.0, neginf=0.0)
            rows = rows - rows.mean(1, keepdim=True)
            values = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0)
            share = values / values.sum().clamp_min(1e-300)
            total -= float((share * share.clamp_min(1e-300).log()).sum())
        return total
