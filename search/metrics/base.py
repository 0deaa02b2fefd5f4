"""What a training-free metric is: what it needs to see, and what it makes of it."""

from __future__ import annotations

from enum import Enum
from math import isfinite
from typing import TYPE_CHECKING, ClassVar

from archdsl.blocks.asking import Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from archdsl.search.metrics.evidence import Evidence

LOWEST = -1e30
"""The score of a model that gives no finite one: ranked last, never dropped."""

FLOOR = 1e-5
"""k in the covariance score: what keeps the logarithm of a vanished eigenvalue finite."""


class Need(Enum):
    """What a metric must see. What no chosen metric needs is not gathered."""

    HIDDEN = "inputs and outputs of the mixers"
    JACOBIAN = "gradient with respect to the embedded tokens"
    WEIGHTS = "every parameter"
    GRADIENTS = "gradient of every parameter"
    HIDDEN_GRADIENTS = "gradient with respect to the mixers' outputs"
    SIGNS = "signs of the mixers' outputs"
    SYNFLOW = "a pass of its own with absolute weights"
    SECOND = "a pass of its own on a second batch"
    CURVATURE = "a pass of its own with displaced weights"
    NOISE = "passes of its own with noise on the embedded tokens"


class TrainingFree(Metric):
    """A score of an untrained model. Larger is better, except for costs, which are only baselines."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    baseline: ClassVar[bool] = False

    def measure(self, evidence: Evidence) -> float:
        """The score; may be infinite or NaN where the model is broken."""
        raise AssertionError(f"{type(self).__name__} does not say how it is measured")

    def score(self, evidence: Evidence) -> float:
        """The score, finite for every architecture: the lowest where it cannot be had."""
        import torch

        try:
            value = float(self.measure(evidence))
        except (torch.linalg.LinAlgError, ArithmeticError, ValueError):  # type: ignore[attr-defined]
            return LOWEST
        return value if isfinite(value) else LOWEST

    @property
    def label(self) -> str:
        """Its name, with the arguments that are not the defaults."""
        given = self.model_dump(exclude_defaults=True, mode="json")
        arguments = ", ".join(f"{key} = {_written(value)}" for key, value in given.items())
        return f"{self.name}({arguments})" if arguments else self.name


def _written(value: object) -> str:
    """An argument as the language spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def norms(tensors: Sequence[torch.Tensor], order: int = 2) -> list[float]:
    """The vector norm of each tensor, in a few operations however many there are."""
    import torch

    if not tensors:
        return []
    found: list[float] = torch.stack(torch._foreach_norm(list(tensors), order)).double().tolist()
    return found


def saliency(weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> float:
    """``Σ|w·g|`` over the elements of weights and of their gradients."""
    import torch

    if not weights:
        return 0.0
    return sum(norms(torch._foreach_mul(list(weights), list(gradients)), 1))


def covariance_score(rows: torch.Tensor) -> float:
    """S(R) = −Σ_i [ln(v_i + k) + 1/(v_i + k)] over the eigenvalues v of the rows' correlation R.

    The sum is ``ln det(R + k) + tr (R + k)⁻¹``, which takes no eigenvalues but a Cholesky factor.
    Largest (−n) where the rows are uncorrelated; each dead or dependent row costs about 1/k = 1e5. (Mellor
    et al., "Neural Architecture Search without Training", ICML 2021; on hidden units: Serianni and
    Kalita, ACL 2023.) A constant row, whose correlation is not defined, and a row with a value that is
    not finite count as dead: correlated with nothing, itself included.

    Args:
        rows: [n, samples].
    """
    import torch

    raised = correlation(rows)
    raised.diagonal().add_(FLOOR)
    factor = torch.linalg.cholesky(raised)
    logarithm = 2 * factor.diagonal().log().sum()
    return -float(logarithm + torch.cholesky_inverse(factor).diagonal().sum())


def spectrum(rows: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of the correlation between rows [n, samples], rising, in float64: [n]."""
    import torch

    values: torch.Tensor = torch.linalg.eigvalsh(correlation(rows))
    return values.clamp_min(0)


def spectral_score(values: torch.Tensor) -> float:
    """S(R) of R's eigenvalues, where they are known; see :func:`covariance_score`."""
    raised = values + FLOOR
    return float(-(raised.log() + 1 / raised).sum())


def correlation(rows: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation between rows [n, samples], in float64; dead rows are zero: [n, n]."""
    import torch

    wide = rows.double()
    mean = wide.mean(1, keepdim=True)
    if not isfinite(float(mean.sum())):  # a row holds what is no number: it is dead
        wide = torch.where(mean.isfinite(), wide, 0.0)
        mean = wide.mean(1, keepdim=True)
    centred = wide - mean
    product = centred @ centred.T
    size = product.diagonal()
    whole = torch.addcmul(size, mean[:, 0], mean[:, 0], value=rows.shape[1])
    dead = size <= whole.clamp_(min=1e-24).mul_(1e-24)
    scale = size.clamp_min(1e-300).rsqrt_().masked_fill_(dead, 0.0)
    return product.mul_(scale[:, None]).mul_(scale)


def cosine_score(rows: torch.Tensor) -> float:
    """One minus the mean of ``|cos|^(1/20)`` between different rows [n, samples]; 0 where all are dead."""
    import torch

    wide = torch.nan_to_num(rows.double(), nan=0.0, posinf=0.0, neginf=0.0)
    unit = wide / wide.norm(dim=1, keepdim=True).clamp_min(1e-300)
    if len(rows) < 2 or not bool(wide.any()):
        return 0.0
    near = (unit @ unit.T).abs() ** (1 / 20)
    near.fill_diagonal_(0)
    return 1 - float(near.sum()) / (len(rows) ** 2 - len(rows))
