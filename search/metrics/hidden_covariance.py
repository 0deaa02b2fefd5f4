"""How different a memory's hidden units are before training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from archdsl.search.metrics.base import Need, TrainingFree, spectral_score

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.search.metrics.evidence import Evidence


class HiddenCovariance(TrainingFree):
    """S(R) of the correlation R between hidden units, over all sequences and positions.

    "Training-free Neural Architecture Search for RNNs and Transformers" (Serianni and Kalita, ACL
    2023, §4.1): the hidden states of the first layer, stacked to [D, B·T]. Larger is better: units
    that move independently. In effect it counts, with a minus sign, hidden directions that are dead or
    depend on others. Constant units, which the paper's code drops with their architecture, count as
    dead. The paper starts from a zero state and takes states; we take the outputs of any mixer or
    cell, which every architecture has.

    Args:
        layer: which mixers: the first, the last, or the mean over all.
    """

    name: ClassVar[str] = "hidden_covariance"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN})

    layer: Literal["first", "last", "mean"] = "first"

    def measure(self, evidence: Evidence) -> float:
        """S(R), in nats and reciprocals; at most −D."""
        places = {"first": [0], "last": [-1]}.get(self.layer, range(len(evidence.spectra)))
        scores = [spectral_score(evidence.spectra[place]) for place in places]
        return sum(scores) / len(scores)


def units(hidden: Tensor) -> Tensor:
    """Each hidden unit's values: [B, T, D] → [D, B·T]."""
    return hidden.flatten(0, -2).T
