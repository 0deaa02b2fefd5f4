"""Attentional biases: the inner loss of prediction and target, and its gradient to the prediction.

p, v are [..., D]; a threshold is [...]. "It's All Connected" (arXiv 2504.13173) §5.1, but for what
is said beside a function.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from archdsl.kernels.learner.rule import Loss

SMOOTH = 1e-6
"""Below p = 2 the p-th power of an error has no second derivative at 0, so e² + SMOOTH is taken."""

TINY = 1e-24

Bias = Callable[[Tensor, Tensor, Tensor], Tensor]


def norm(x: Tensor) -> Tensor:
    """|x| over the last axis [..., 1], with derivative 0 at 0."""
    return (x.square().sum(-1, keepdim=True) + TINY).sqrt()


def _lp_slope(e: Tensor, power: float) -> Tensor:
    """P sign(e) |e|^(p-1)."""
    if power >= 2:
        size = e.abs()
        return power * e * (size if power == 3 else size.pow(power - 2))
    return power * e * (e.square() + SMOOTH).pow(power / 2 - 1)


def _lp_value(e: Tensor, power: float) -> Tensor:
    return e.abs().pow(power) if power >= 2 else (e.square() + SMOOTH).pow(power / 2)


def _huber_value(e: Tensor, delta: Tensor) -> Tensor:
    return torch.where(e.abs() <= delta, e.square() / 2, delta * (e.abs() - delta / 2))


def _huber_norm(e: Tensor, delta: Tensor) -> Tensor:
    """Huber's loss of the error's length: e inside, delta e / |e| outside."""
    return e * (delta / norm(e)).clamp(max=1)


def _huber_mixed(e: Tensor, delta: Tensor) -> Tensor:
    """Yaad: e while |e| <= delta, else delta sign(e) (arXiv 2504.13173 eq. 25, its three cases)."""
    return torch.where(norm(e) <= delta, e, delta * torch.sign(e))


def gradients(loss: Loss) -> Bias:
    """The gradient dL/dp of p, v and a threshold [..., 1]."""
    table: dict[str, Bias] = {
        "dot": lambda p, v, d: -v + 0 * p,
        "l2": lambda p, v, d: p - v,
        "lp": lambda p, v, d: _lp_slope(p - v, loss.power),
        "huber": lambda p, v, d: (p - v).clamp(-d, d),
        "huber_norm": lambda p, v, d: _huber_norm(p - v, d),
        "huber_mixed": lambda p, v, d: _huber_mixed(p - v, d),
        "robust": lambda p, v, d: (p - v) * (1 + d / norm(p - v)),
        "kl": lambda p, v, d: torch.softmax(p, -1) * v.sum(-1, keepdim=True) - v,
    }
    return table[loss.form]


def values(loss: Loss) -> Bias:
    """The loss [...] itself, which the reference differentiates.

    Robust: the worst case over shifts of the value of length at most D, e²/2 + D |e| + D²/2. KL: of the
    distribution v from the softmax of p, without v's own entropy. The mixed Huber loss is the sum of its
    parts; it is not continuous, and its gradient is that of the part it is in.
    """
    table: dict[str, Bias] = {
        "dot": lambda p, v, d: -(p * v).sum(-1),
        "l2": lambda p, v, d: (p - v).square().sum(-1) / 2,
        "lp": lambda p, v, d: _lp_value(p - v, loss.power).sum(-1),
        "huber": lambda p, v, d: _huber_value(p - v, d).sum(-1),
        "huber_norm": lambda p, v, d: _huber_value(norm(p - v), d)[..., 0],
        "huber_mixed": lambda p, v, d: torch.where(
            norm(p - v) <= d, (p - v).square() / 2, d * (p - v).abs()
        ).sum(-1),
        "robust": lambda p, v, d: ((p - v).square().sum(-1, keepdim=True) / 2 + d * norm(p - v))[..., 0],
        "kl": lambda p, v, d: -(v * torch.log_softmax(p, -1)).sum(-1),
    }  # fmt: skip
    return table[loss.form]


def pair(loss: Loss) -> tuple[Bias, Bias]:
    """Gradient and value."""
    return gradients(loss), values(loss)


def read(loss: Loss, prediction: Tensor) -> Tensor:
    """What is read of a prediction: of a distribution's logits the distribution."""
    return torch.softmax(prediction, -1) if loss.form == "kl" else prediction
