"""Training-free metrics: one file a metric, each a component that the registry names.

To add a metric: write a subclass of :class:`archdsl.search.metrics.base.TrainingFree` in a file here
that says what it ``needs`` and how it is measured, add its line to
``archdsl.blocks.registry.BUILT_IN``, its name to :data:`DEFAULT` if every search should report it, and
to ``archdsl.search.validation.scoring.ARGUMENTS``, so that it is judged on published results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archdsl.search.metrics.base import TrainingFree

DEFAULT = (
    "archdsl_rank",
    "hidden_covariance",
    "jacobian_covariance",
    "gradient_reach",
    "spectral_capacity",
    "snip",
    "grad_norm",
    "activation_distance",
    "params",
    "flops",
    "state_bytes",
)
"""What every candidate is scored with: all that one forward and one backward pass show, and costs."""


def chosen(rank: TrainingFree | None) -> list[TrainingFree]:
    """The default metrics, and the one that decides where it is not among them."""
    from archdsl.blocks.registry import find

    classes = [find("metric", name) for name in DEFAULT]
    metrics: list[TrainingFree] = [cls() for cls in classes if cls is not None]  # type: ignore[misc]
    known = {metric.label for metric in metrics}
    return metrics if rank is None or rank.label in known else [*metrics, rank]
