"""How differently a model's activations fire on different sequences."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import FLOOR, Need, TrainingFree

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.search.metrics.evidence import Evidence


class ActivationDistance(TrainingFree):
    """ln det K, where K_ij is the share of activations whose sign agrees on sequences i and j.

    "Neural Architecture Search without Training" (Mellor et al., ICML 2021, NWOT). Two corrections:
    K is divided by the number of activations, which the published code is not, so that width and
    depth do not decide; and the determinant is that of K + 1e-5, which is finite where two sequences
    fire alike and ``slogdet`` is minus infinity. The codes are the signs of the outputs of all mixers
    and cells.

    Args:
        published: the paper's K and determinant, without the corrections.
    """

    name: ClassVar[str] = "activation_distance"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SIGNS})

    published: bool = False

    def measure(self, evidence: Evidence) -> float:
        """Ln det K; at most 0 unless as published."""
        import torch

        if evidence.codes is None:
            return nan
        bits, count = agreeing(evidence.codes.float()), evidence.codes.shape[1]
        if self.published:
            return float(torch.linalg.slogdet(bits)[1])
        agreement = bits.div_(count)
        agreement.diagonal().add_(FLOOR)
        return 2 * float(torch.linalg.cholesky(agreement).diagonal().log().sum())


def agreeing(code: Tensor) -> Tensor:
    """How many bits of 0 or 1 agree between rows [B, bits], in float64: [B, B]."""
    both = (code @ code.T).double()
    ones = both.diagonal()
    return both * 2 - ones - ones[:, None] + code.shape[1]
