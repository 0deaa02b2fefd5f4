"""How much the loss hangs on each channel of the mixers' outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class Fisher(TrainingFree):
    """Σ over channels of the mean over sequences of ``½ (Σ_t h·∂L/∂h)²``.

    "Faster gaze prediction with dense networks and Fisher pruning" (Theis et al., 2018), eq. 8, over
    the network as in "BlockSwap" (Turner et al., ICLR 2020); the sum over positions stands where
    images have pixels.
    """

    name: ClassVar[str] = "fisher"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN, Need.HIDDEN_GRADIENTS})

    def measure(self, evidence: Evidence) -> float:
        """The sum, in squared nats."""
        pairs = zip(evidence.hidden, evidence.hidden_gradients, strict=True)
        return sum(float((h * g).double().sum(1).square().mean(0).sum()) / 2 for h, g in pairs)
