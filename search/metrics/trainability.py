"""How evenly gradients pass from one mixer to the one before it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.search.metrics.evidence import Evidence


class Trainability(TrainingFree):
    """Mean over neighbouring mixers of ``2 - s - 1/s``, s the spectral norm of the map of gradients.

    "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search" (Lee and Ham, CVPR 2024,
    §3.2): the map that takes the gradients behind a block to those before it, fitted over all positions
    by least squares with a ridge of a thousandth. 0 is best.
    """

    name: ClassVar[str] = "trainability"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN, Need.HIDDEN_GRADIENTS})

    def measure(self, evidence: Evidence) -> float:
        """At most 0."""
        gradients = [gradient.flatten(0, 1).double() for gradient in evidence.hidden_gradients]
        if len(gradients) < 2:
            return 0.0
        norms = [_norm(one, two) for one, two in pairwise(gradients)]
        return sum(2 - s - 1 / max(s, 1e-12) for s in norms) / len(norms)


def _norm(before: Tensor, behind: Tensor) -> float:
    import torch

    if len(before) != len(behind):
        return 0.0
    gram = behind.T @ behind
    ridge = 1e-3 * gram.diagonal().mean().clamp_min(1e-300)
    fitted = torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), behind.T @ before)
    return float(torch.linalg.matrix_norm(fitted, 2))
