"""How much one token's write disturbs another's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.search.metrics.evidence import Evidence, Mixer


class WriteInterference(TrainingFree):
    """Minus the mean squared cosine between what different tokens write, over mixers.

    A memory of outer products reads ``Σ (k·k_j) v_j``: every other key adds its cosine. Keys where a
    mixer takes queries, keys and values, else its outputs. ``-1/D`` for random ones ``D`` wide, ``-1``
    where all tokens write alike.
    """

    name: ClassVar[str] = "write_interference"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN})

    def measure(self, evidence: Evidence) -> float:
        """Between -1 and 0."""
        found = [overlap(written(mixer)) for mixer in evidence.mixers]
        return -sum(found) / len(found)


def written(mixer: Mixer) -> Tensor:
    """What a mixer's tokens write: ``[B, T, D]``."""
    keyed = len(mixer.inputs) >= 3 and mixer.inputs[1].dim() == 3
    return mixer.inputs[1] if keyed else mixer.output.detach()


def overlap(x: Tensor) -> float:
    """Mean squared cosine between different positions of a sequence; 1 where all is zero."""
    import torch

    wide = torch.nan_to_num(x.double(), nan=0.0, posinf=0.0, neginf=0.0)
    unit = wide / wide.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    length = x.shape[1]
    if length < 2 or not bool(wide.any()):
        return 1.0
    cosines = (unit @ unit.transpose(1, 2)).square()
    apart = cosines.sum((1, 2)) - cosines.diagonal(dim1=1, dim2=2).sum(-1)
    return float(apart.mean() / (length * (length - 1)))
