"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "silu": F.silu,
    "gelu": F.gelu,
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "elu1": lambda x: F.elu(x) + 1,
    "softplus": F.softplus,
    "leaky_relu": F.leaky_relu,
}


def activate(name: str, x: Tensor) -> Tensor:
    """One of the language's activations, elementwise."""
    return ACTIVATIONS[name](x)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    **ACTIVATIONS,
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "neg": torch.neg,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "cos": torch.cos,
    "sin": torch.sin,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "max": torch.maximum,
    "min": torch.minimum,
}
"""Elementwise functions of a cell's equations, arithmetic among them."""
