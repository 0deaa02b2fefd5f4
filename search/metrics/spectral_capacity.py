"""How many bits random matrices of a model's shapes let through."""

from __future__ import annotations

from math import log, sqrt
from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree, norms

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence


class SpectralCapacity(TrainingFree):
    """Σ over matrices of the expected ``ln det(I + WᵀW)``, tables of tokens aside.

    For a random ``W [m, n]`` with entries of variance ``v`` the eigenvalues of ``WᵀW`` follow the law of
    Marchenko and Pastur, and the sum has the closed form of "Spectral Efficiency of CDMA with Random
    Spreading" (Verdú and Shamai, 1999, eq. 9). A stack of matrices counts each.
    """

    name: ClassVar[str] = "spectral_capacity"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.WEIGHTS})

    def measure(self, evidence: Evidence) -> float:
        """In nats."""
        total = 0.0
        matrices = list(evidence.matrices.values())
        for weight, length in zip(matrices, norms(matrices), strict=True):
            rows, columns = weight.shape[-2:]
            count = weight.numel() // (rows * columns)
            total += count * capacity(rows, columns, length**2 / weight.numel())
        return total


def capacity(rows: int, columns: int, variance: float) -> float:
    """Expected ``ln det(I + WᵀW)`` of a large random matrix, in nats."""
    ratio, power = columns / rows, variance * rows
    if power <= 0:
        return 0.0
    root = sqrt(power * (1 + sqrt(ratio)) ** 2 + 1) - sqrt(power * (1 - sqrt(ratio)) ** 2 + 1)
    edge = root**2 / 4
    return rows * (ratio * log(1 + power - edge) + log(1 + power * ratio - edge) - edge / power)
