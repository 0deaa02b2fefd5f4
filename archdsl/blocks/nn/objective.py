"""A user's own inner loss, as the learner family takes it: its value and its gradient.

The gradient is found beside the value, by the chain rule for elementwise functions, so that it is made of
ordinary operations and can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from archdsl.blocks.equations import Apply, Constant, Expression, Name
from archdsl.blocks.nn.functions import FUNCTIONS
from archdsl.kernels.learner.activations import ACTIVATIONS
from archdsl.kernels.learner.biases import Bias
from archdsl.kernels.learner.rule import Loss

SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: slope for name, (_, slope) in ACTIVATIONS.items()},
    "exp": torch.exp,
    "expm1": torch.exp,
    "log": torch.reciprocal,
    "cos": lambda x: -torch.sin(x),
    "sin": torch.cos,
    "sqrt": lambda x: 0.5 * torch.rsqrt(x),
    "abs": torch.sign,
    "neg": lambda x: -torch.ones_like(x),
}
"""Derivatives of the functions of one argument; at a kink one of its sides."""

Pair = tuple[Tensor, Tensor]
"""A value, and its derivative by the prediction."""


def objective(loss: Loss) -> tuple[Bias, Bias] | None:
    """Gradient and value of an ``expression``; ``None`` for a loss the family has itself."""
    if loss.form != "expression":
        return None

    def pair(prediction: Tensor, target: Tensor) -> Pair:
        zero = torch.zeros_like(prediction)
        known = {"prediction": (prediction, zero + 1), "target": (target, zero)}
        return derived(loss.expression, known)

    return lambda p, v, _: pair(p, v)[1], lambda p, v, _: pair(p, v)[0].sum(-1)


def derived(expression: Expression, known: dict[str, Pair]) -> Pair:
    """An elementwise expression over what is known, and its derivative."""
    match expression:
        case Name(name):
            return known[name]
        case Constant(number):
            zero = known["prediction"][1] * 0
            return zero + float(number), zero
        case Apply(function, (argument,)):
            x, dx = derived(argument, known)
            return FUNCTIONS[function](x), SLOPES[function](x) * dx
        case Apply(function, (left, right)):
            return _joined(function, derived(left, known), derived(right, known))
    raise AssertionError(f"{expression} is not elementwise")


def _joined(function: str, left: Pair, right: Pair) -> Pair:
    (a, da), (b, db) = left, right
    value = FUNCTIONS[function](a, b)
    match function:
        case "add":
            return value, da + db
        case "sub":
            return value, da - db
        case "mul":
            return value, da * b + a * db
        case "div":
            return value, (da - value * db) / b
        case "max":
            return value, torch.where(a >= b, da, db)
        case _:
            return value, torch.where(a <= b, da, db)
