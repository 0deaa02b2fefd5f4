"""How much the loss hangs on the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree, saliency

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class Snip(TrainingFree):
    """Σ|w·∂L/∂w| over all parameters.

    "SNIP: Single-shot Network Pruning based on Connection Sensitivity" (Lee et al., ICLR 2019), summed
    over the network as in "Zero-Cost Proxies for Lightweight NAS" (Abdelfattah et al., ICLR 2021). ``L``
    is the task's loss on one batch; see :func:`archdsl.search.metrics.look.look` for its targets.
    """

    name: ClassVar[str] = "snip"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENTS})

    def measure(self, evidence: Evidence) -> float:
        """The sum, in nats."""
        return saliency(evidence.weights, evidence.gradients)
