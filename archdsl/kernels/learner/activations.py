"""Activations of a deep memory, each with its derivative, both differentiable again."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Function = Callable[[Tensor], Tensor]


def _normal(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) * 0.3989422804014327


def _gelu_slope(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x * 0.7071067811865476)) + x * _normal(x)


def _silu_slope(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


def _sigmoid_slope(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * (1 - gate)


ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "none": (lambda x: x, torch.ones_like),
    "gelu": (functional.gelu, _gelu_slope),
    "silu": (functional.silu, _silu_slope),
    "relu": (functional.relu, lambda x: (x > 0).to(x.dtype)),
    "relu2": (lambda x: functional.relu(x).square(), lambda x: 2 * functional.relu(x)),
    "sigmoid": (torch.sigmoid, _sigmoid_slope),
    "tanh": (torch.tanh, lambda x: 1 - torch.tanh(x).square()),
    "elu1": (lambda x: functional.elu(x) + 1, lambda x: torch.exp(x.clamp(max=0))),
    "softplus": (functional.softplus, torch.sigmoid),
    "leaky_relu": (functional.leaky_relu, lambda x: torch.where(x > 0, torch.ones_like(x), 0.01)),
}
"""Value and slope by the language's names."""
