"""How surely attention chooses before training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class SoftmaxConfidence(TrainingFree):
    """Mean over heads, queries and layers of the largest attention weight.

    Serianni and Kalita (ACL 2023, §3.3): confidence as "Analyzing Multi-Head Self-Attention" (Voita et
    al., ACL 2019) defines it. 0 where nothing attends.
    """

    name: ClassVar[str] = "softmax_confidence"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN})

    def measure(self, evidence: Evidence) -> float:
        """Between 0 and 1."""
        import torch

        from archdsl.blocks.nn.attention import SoftmaxAttention

        layers = [m for m in evidence.mixers if isinstance(m.module, SoftmaxAttention)]
        with torch.no_grad():
            found = [
                float(m.module.probabilities(*m.inputs[:2]).amax(-1).mean())  # type: ignore[operator]
                for m in layers
            ]
        return sum(found) / len(found) if found else 0.0
