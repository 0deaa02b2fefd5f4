"""What a training-free metric is: what it needs to see, and what it makes of it."""

from __future__ import annotations

from enum import Enum
from math import isfinite
from typing import TYPE_CHECKING, ClassVar

from archdsl.blocks.asking import Metric

if TYPE_CHECKING:
    import torch

    from archdsl.search.metrics.evidence import Evidence

LOWEST = -1e30
"""The score of a model that gives no finite one: ranked last, never dropped."""

FLOOR = 1e-5
"""k in the covariance score: what keeps the logarithm of a vanished eigenvalue finite."""


class Need(Enum):
    """What a metric must see. What no chosen metric needs is not gathered."""

    HIDDEN = "outputs of the mixers"
    JACOBIAN = "gradient with respect to the embedded tokens"
    GRADIENTS = "gradient of every parameter"
    SIGNS = "signs of the mixers' outputs"
    SYNFLOW = "a pass of its own with absolute weights"


class TrainingFree(Metric):
    """A score of an untrained model. Larger is better, except for costs, which are only baselines."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    baseline: ClassVar[bool] = False

    def measure(self, evidence: Evidence) -> float:
        """The score; may be infinite or NaN where the model is broken."""
        raise AssertionError(f"{type(self).__name__} does not say how it is measured")

    def score(self, evidence: Evidence) -> float:
        """The score, finite for every architecture."""
        value = float(self.measure(evidence))
        return value if isfinite(value) else LOWEST

    @property
    def label(self) -> str:
        """Its name, with the arguments that are not the defaults."""
        given = self.model_dump(exclude_defaults=True, mode="json")
        arguments = ", ".join(f"{key} = {value}" for key, value in given.items())
        return f"{self.name}({arguments})" if arguments else self.name


def covariance_score(rows: torch.Tensor) -> float:
    """S(R) = −Σ_i [ln(v_i + k) + 1/(v_i + k)] over the eigenvalues v of the rows' correlation R.

    Largest (−n) where the rows are uncorrelated; each dead or dependent row costs about 1/k = 1e5. (Mellor
    et al., "Neural Architecture Search without Training", ICML 2021; on hidden units: Serianni and
    Kalita, ACL 2023.) A constant row, whose correlation is not defined, and a row with a value that is
    not finite count as dead: correlated with nothing, itself included.

    Args:
        rows: [n, samples].
    """
    import torch

    values = torch.linalg.eigvalsh(correlation(rows)).clamp_min(0) + FLOOR
    return float(-(values.log() + 1 / values).sum())


def correlation(rows: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation between rows [n, samples], in float64; dead rows are zero: [n, n]."""
    import torch

    wide = rows.double()
    alive = torch.isfinite(wide).all(1, keepdim=True)
    wide = torch.where(alive, wide, torch.zeros_like(wide))
    centred = wide - wide.mean(1, keepdim=True)
    size = centred.norm(dim=1, keepdim=True)
    dead = size <= 1e-12 * wide.norm(dim=1, keepdim=True).clamp_min(1e-12)
    unit = torch.where(dead, torch.zeros_like(centred), centred / size.clamp_min(1e-300))
    return unit @ unit.T
