"""Retentions: the map from what updates accumulate (A) to the weights that are used (W).

Mirror descent: A is linear in all gradients, W = map(A). Where `Keep.fed_back` the next chunk starts
from W, so that a chunk of one token is the rule as printed. A is [..., out, in]; distributions are over
the inputs of an output. "It's All Connected" (arXiv 2504.13173) §5.2.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from archdsl.kernels.learner.biases import SMOOTH, TINY
from archdsl.kernels.learner.rule import Keep

HALVINGS = 60
"""Of the bracket of a normaliser: below one rounding in float64."""

Pair = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]

DIVERGENCES: dict[str, Pair] = {
    "kl": (torch.exp, torch.exp),
    "chi_squared": (lambda y: (1 + y).clamp(min=0), lambda y: (y > -1).to(y.dtype)),
    "reverse_kl": (lambda y: 1 / (1 - y), lambda y: 1 / (1 - y).square()),
    "hellinger": (lambda y: (1 - y).pow(-2), lambda y: 2 * (1 - y).pow(-3)),
}
"""(f')^-1 and its slope for f(x) = x log x - x, (x-1)²/2, x - log x and (sqrt x - 1)², each 1 at 0."""

OPEN = ("reverse_kl", "hellinger")
"""Divergences whose inverse has a pole at 1."""


def weights(keep: Keep, moved: Tensor, start: Tensor, sparse: Tensor | None) -> Tensor:
    """W of A, of the weights a fed-back rule started with, and of a threshold [..., 1, 1]."""
    match keep.form:
        case "lq":
            return _exact(moved, keep)
        case "lq_printed":
            return moved * _length(moved, keep.power, keep).pow(2 - keep.power)
        case "elastic_net" | "elastic_sum":
            assert sparse is not None
            return moved - moved.clamp(-sparse, sparse)
        case "simplex":
            return keep.total * torch.softmax(moved, -1)
        case "divergence":
            return _divergence(keep, moved - start, start)
        case "bregman":
            return torch.sigmoid(moved) if keep.potential == "logistic" else torch.tanh(moved)
        case "sphere":
            return unit_columns(moved)
    return moved


def beginning(keep: Keep, weights: Tensor) -> Tensor:
    """What a fed-back rule's first chunk starts with, from learned numbers: its own kind of weights."""
    if keep.form == "sphere":
        return unit_columns(weights)
    return keep.total * torch.softmax(weights, -1) if keep.form == "divergence" else weights


def columns(x: Tensor) -> Tensor:
    """The length of each column [..., 1, in]."""
    return (x.square().sum(-2, keepdim=True) + TINY).sqrt()


def unit_columns(x: Tensor) -> Tensor:
    """Every column at unit length."""
    return x / columns(x)


def _length(x: Tensor, power: float, keep: Keep) -> Tensor:
    """The power-norm over a whole matrix [..., 1, 1], at least `floor`."""
    size = (x.square() + TINY).pow(power / 2).sum((-2, -1), keepdim=True)
    return size.clamp(min=keep.floor**power).pow(1 / power)


def _exact(moved: Tensor, keep: Keep) -> Tensor:
    """(q-1) sign(A) |A|^(p-1) / |A|_p^(p-2), p = q/(q-1): the exact minimiser of the lq rule.

    It minimises <A, W> + |W|_q^2 / (2 (q-1)) up to sign; the printed one drops the power of each
    element. |A| is smoothed as in `biases`, for p < 2 has no slope at 0.
    """
    dual = keep.power / (keep.power - 1)
    raised = moved * (moved.square() + SMOOTH).pow(dual / 2 - 1)
    return (keep.power - 1) * raised * _length(moved, dual, keep).pow(2 - dual)


def _divergence(keep: Keep, moved: Tensor, start: Tensor) -> Tensor:
    """W = W' g(U - zeta), g = (f')^-1, zeta such that a row of W sums to what a row of W' does.

    g rises, so zeta is bracketed by the row's extremes; a last Newton step carries the gradient.
    """
    inverse, slope = DIVERGENCES[keep.potential]
    with torch.no_grad():
        zeta = _bracketed(moved, start, inverse, keep.potential in OPEN)
    y = moved - zeta
    excess = (start * inverse(y)).sum(-1, keepdim=True) - start.sum(-1, keepdim=True)
    steep = (start * slope(y)).sum(-1, keepdim=True).clamp(min=TINY)
    zeta = zeta + excess / steep.detach()
    return start * inverse(moved - zeta)


def _bracketed(
    moved: Tensor, start: Tensor, inverse: Callable[[Tensor], Tensor], pole: bool
) -> Tensor:
    """Zeta by bisection [..., out, 1]."""
    high = moved.amax(-1, keepdim=True)
    low = moved.amin(-1, keepdim=True)
    if pole:
        low = torch.maximum(low, high - 1 + 1e-6)
    wanted = start.sum(-1, keepdim=True)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = (start * inverse(moved - middle)).sum(-1, keepdim=True) > wanted
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


def pulled_back(gradient: Tensor, start: Tensor) -> Tensor:
    """Gradients to unit columns W/|W| [..., out, in], as gradients to W (Lattice's orthogonal update).

    Each slot's is (I - u u^T) g / |s|, u = s / |s|: nothing along the slot itself (arXiv 2504.05646).
    """
    length = columns(start)
    unit = start / length
    return (gradient - unit * (unit * gradient).sum(-2, keepdim=True)) / length
