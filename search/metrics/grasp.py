"""How much the gradient's flow hangs on the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class Grasp(TrainingFree):
    """−Σ w·(H g) over all matrices, H the Hessian and g the gradient of one batch's loss.

    "Picking Winning Tickets Before Training by Preserving Gradient Flow" (Wang et al., ICLR 2020,
    eq. 7). ``H g`` is a difference of two gradients, so that it needs no second derivative.
    """

    name: ClassVar[str] = "grasp"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENTS, Need.SECOND, Need.CURVATURE})

    def measure(self, evidence: Evidence) -> float:
        """In nats."""
        return -sum(
            float((weight * evidence.curved[name]).sum())
            for name, weight in evidence.matrices.items()
        )
