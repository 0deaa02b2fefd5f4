"""A relaxed recursive model that starts from a trained one (arXiv 2410.20672 §2.3).

``loop(B, adapter = r) { stack(depth = K) { block } }`` takes the weights of ``stack(depth = K·B) { block }``:
each tied matrix is made of those that share its place, and each run's low-rank part is the best one for
what is left over. At full rank the matrices are the trained model's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from archdsl.blocks.nn.adapted import AdaptedLinear

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.compiler.models.model import Model

How = Literal["average", "stepwise", "lower"]

LOW_RANK = ("down", "up")


def tie(
    model: Model,
    donor: Model,
    how: How = "average",
    *,
    tied: str = "loop.body.0.stack",
    layers: str = "stack",
) -> None:
    """Give a looped model the weights of a deeper one, in place.

    Args:
        model: of ``K`` layers that run ``B`` times.
        donor: of ``K·B`` layers of the same form; what stands outside its layers is copied by name.
        how: a tied weight is the ``average`` of those in its place, that of evenly spaced layers with
            the first and the last (``stepwise``), or that of the first ``K`` (``lower``).
        tied: where the model's layers are, in names of weights.
        layers: where the donor's are.

    Raises:
        ValueError: the layers of the one are not a multiple of the other's.
    """
    source, target = donor.state_dict(), model.state_dict()
    deep, few = _depth(source, layers), _depth(target, tied)
    if not few or not deep or deep % few:
        raise ValueError(f"{deep} layers below `{layers}` do not fill {few} layers below `{tied}`")
    adapted = {n for n, module in model.named_modules() if isinstance(module, AdaptedLinear)}
    made: dict[str, Tensor] = {}
    for name, weight in target.items():
        owner, _, last = name.rpartition(".")
        if not name.startswith(f"{tied}."):
            made[name] = source[name]
        elif owner not in adapted or last not in LOW_RANK:
            place, _, rest = name.removeprefix(f"{tied}.").partition(".")
            several = [source[f"{layers}.{layer}.{rest}"] for layer in range(deep)]
            made[name] = _shared(several, int(place), few, how).to(weight.dtype)
            if owner in adapted and last == "weight":
                rank = target[f"{owner}.down"].shape[1]
                left = torch.stack(several[int(place) :: few]) - made[name]
                made[f"{owner}.up"], made[f"{owner}.down"] = _low_rank(left, rank)
    model.load_state_dict(made)


def _depth(weights: dict[str, Tensor], prefix: str) -> int:
    """How many layers stand below a name."""
    below = (name.removeprefix(f"{prefix}.") for name in weights if name.startswith(f"{prefix}."))
    return len({name.partition(".")[0] for name in below})


def _shared(several: list[Tensor], place: int, few: int, how: How) -> Tensor:
    """The weight that layers ``place``, ``place + few``, … share."""
    if how == "average":
        return torch.stack(several[place::few]).mean(0)
    if how == "lower":
        return several[place]
    return several[round(place * (len(several) - 1) / max(few - 1, 1))]


def _low_rank(left: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``U S`` and ``Vᵀ`` of the largest singular values of matrices ``[B, out, in]``."""
    u, s, v = torch.linalg.svd(left.double(), full_matrices=False)
    up, down = (u * s[:, None])[..., :rank], v[:, :rank]
    short = rank - up.shape[-1]  # a rank beyond the matrix's own has nothing more to say
    up = torch.nn.functional.pad(up, (0, max(0, short)))
    down = torch.nn.functional.pad(down, (0, 0, 0, max(0, short)))
    return up.to(left.dtype), down.to(left.dtype)
