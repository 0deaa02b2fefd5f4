"""The combined score: how much a model can hold, and whether its cells can be trained to hold it."""

from __future__ import annotations

import math
from math import inf, log, log10
from typing import TYPE_CHECKING, ClassVar

from archdsl.search.metrics.base import Need, TrainingFree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archdsl.search.metrics.evidence import Evidence, Mixer

ALIVE = 3e-3
"""Variance, as a share of a unit's own, from which a direction of the hidden units counts."""

FLAT = 1e-9
"""A gradient at the current token below this share of all has not arrived there."""

CUT_OFF = -100.0
"""Added to a model whose output does not see its current token."""


class ArchdslRank(TrainingFree):
    """Size, depth and width in proportion; and, without a residual stream, the health of the cells.

    Capacity is ``⅔ ln Σ_j w_j (m_j n_j)^¾ + ln d + 2 ln min(L, log₃ d) + mean ln heads / 20`` over the
    matrices ``m_j × n_j`` of ``L`` layers ``d`` wide; ``w_j`` falls from 1.5 for the first matrix to 0.5
    for the last. Depth counts up to the logarithm of the width, where "Limits to Depth Efficiencies of
    Self-Attention" (Levine et al., NeurIPS 2020) finds that it stops to be worth more than width.

    A residual stream carries every token whatever a mixer does. Without one, the score adds
    ``8 C + ½ J + S + 1½ M``: the share ``C`` of directions of the first layer's hidden units that are
    alive (after :mod:`.hidden_covariance`); ``J = -log₁₀`` of the mean score of the correlation between
    the sequences' gradients (:mod:`.jacobian_covariance`); the relative ``S`` of
    :mod:`.state_capacity`; and ``M = 1`` where the output is reached through a product of two values of
    the sequence, as gates are ("Multiplicative Interactions and Where to Find Them", Jayakumar et al.,
    ICLR 2020). A cell whose output does not see its own token comes behind all others, and what is not
    finite last of all.

    The terms and factors were chosen on the development data of ``archdsl validate metrics``; none is
    fitted to labels when a model is scored.
    """

    name: ClassVar[str] = "archdsl_rank"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.HIDDEN, Need.JACOBIAN, Need.WEIGHTS})

    def measure(self, evidence: Evidence) -> float:
        """A sum of logarithms and shares; about 10 to 40."""
        capacity = size(evidence)
        return capacity if evidence.residual else capacity + health(evidence)


def size(evidence: Evidence) -> float:
    """The capacity of the class's first paragraph, in nats."""
    layers = grouped(evidence.mixers)
    shapes = [weight.shape for weight in evidence.matrices.values()]
    last = max(len(shapes) - 1, 1)
    weighted = sum(
        (1.5 - place / last) * shape[:-2].numel() * (shape[-2] * shape[-1]) ** 0.75
        for place, shape in enumerate(shapes)
    )
    width = sum(mixer.output.shape[-1] for mixer in evidence.mixers) / len(layers)
    depth = min(len(layers), log(max(width, 3), 3))
    heads = sum(log(max(1, sum(map(_heads, layer)))) for layer in layers) / len(layers)
    return 2 / 3 * log(max(weighted, 1)) + log(width) + 2 * log(depth) + heads / 20


def grouped(mixers: Sequence[Mixer]) -> list[list[Mixer]]:
    """Mixers by layer: those of one component that ran one behind the other."""
    layers: list[list[Mixer]] = []
    for mixer in mixers:
        parent = mixer.name.rpartition(".")[0]
        last = layers[-1] if layers else []
        beside = bool(parent) and any(m.name.rpartition(".")[0] == parent for m in last)
        if beside and all(m.name != mixer.name for m in last):
            last.append(mixer)
        else:
            layers.append([mixer])
    return layers


def _heads(mixer: Mixer) -> int:
    return int(getattr(getattr(mixer.module, "op", None), "heads", 1))


def health(evidence: Evidence) -> float:
    """What cells add: see the class's second paragraph; not a number where the pass was not finite."""
    jacobian, angles, reach = evidence.jacobian, evidence.angles, evidence.reach
    if jacobian is None or angles is None or reach is None:
        return -inf
    if not all(math.isfinite(float(part.sum())) for part in (*evidence.hidden, jacobian)):
        return -inf
    first = evidence.spectra[0]
    alive = int((first > ALIVE).sum()) / len(first)
    spread = -log10(-angles / len(jacobian))
    score = 8 * alive + spread / 2 + recalled(evidence)
    score += 1.5 * any(multiplies(mixer) for mixer in evidence.mixers)
    now, *before = reach.tolist()
    return score if now > FLAT * (now + sum(before)) else score + CUT_OFF


def recalled(evidence: Evidence) -> float:
    """The relative state capacity."""
    from archdsl.search.metrics.state_capacity import StateCapacity

    return StateCapacity(relative=True).measure(evidence)


def multiplies(mixer: Mixer) -> bool:
    """Whether a mixer's output is reached through a product of values of the sequence.

    All but cells: attention and memories multiply queries, keys and values.
    """
    from archdsl.blocks.nn.cell import CellRecurrence

    if not isinstance(mixer.module, CellRecurrence):
        return True
    return mixer.module.op.analysis.multiplies
