"""How much the loss hangs on the weights, with or without their signs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class SynapticSaliency(TrainingFree):
    """Σ w·∂L/∂w over all matrices but the tables of tokens.

    Serianni and Kalita (ACL 2023, §3.2) after Tanaka et al. (NeurIPS 2020). Their code keeps the
    signs, which cancel; and it leaves out the weight of every ``linear``'s first input. With
    ``signed = false`` the terms are taken as they are large, and their mean is given, so that size
    does not decide.
    """

    name: ClassVar[str] = "synaptic_saliency"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENTS})

    signed: bool = False

    def measure(self, evidence: Evidence) -> float:
        """The sum with signs, or the mean without, in nats."""
        gradients = dict(zip(evidence.names, evidence.gradients, strict=True))
        terms = [(weight * gradients[name]) for name, weight in evidence.matrices.items()]
        if self.signed:
            return sum(float(term.sum()) for term in terms)
        count = sum(term.numel() for term in terms)
        return sum(float(term.abs().sum()) for term in terms) / max(count, 1)
