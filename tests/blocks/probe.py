"""One layer on inputs of our own: a table of them in front, an identity for a head behind.

So a layer is tested through the public module alone: ``model(tokens)`` looks rows of the table up, runs
the layer, and gives its output as the first channels of the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from blocks.written import built
from torch import Tensor

from archdsl.compiler.models.model import Model

Weights = dict[str, Tensor]


@dataclass
class Probe:
    """A model around one layer, the tokens that stand for its inputs ``[B, T]``, the layer's width."""

    model: Model
    tokens: Tensor
    width: int

    def output(self) -> Tensor:
        """What the layer gives, ``[B, T, width]``."""
        return self.model(self.tokens)[..., : self.width]

    def weights(self) -> Weights:
        """The layer's parameters by their last names: ``query.weight``."""
        own = {
            n: w for n, w in self.model.state_dict().items() if not n.startswith(("embed", "lm_"))
        }
        return {name.partition(".")[2]: weight.clone() for name, weight in own.items()}


def probe(layer: str, inputs: Tensor, width: int | None = None, seed: int = 0, **how: Any) -> Probe:
    """The layer on inputs ``[B, T, D]``; every parameter drawn, so that a forgotten one shows."""
    batch, length, size = inputs.shape
    width = width or size
    symbols = max(batch * length, width)
    model = built(f"embed(dim = {size}, vocab = {symbols}) {layer} lm_head", **how)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += (noise * (0.3 if parameter.dim() == 1 else 0.05)).to(parameter.dtype)
        model.get_parameter("embed.weight")[: batch * length] = inputs.flatten(0, 1)
        model.get_parameter("lm_head.weight").copy_(torch.eye(symbols, width))
    return Probe(model, torch.arange(batch * length).view(batch, length), width)


def random_inputs(batch: int, length: int, width: int, seed: int = 1) -> Tensor:
    """Normal numbers ``[B, T, D]`` in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, width, generator=generator, dtype=torch.float64)


def gradients(model: Model, loss: Tensor) -> Weights:
    """The gradient of a loss by the names parameters are saved under, merged ones apart.

    Found through the public surface alone: the change of ``state_dict`` in one step of size one.
    """
    model.zero_grad()
    loss.backward()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= parameter.grad
    after = {name: before[name] - weight for name, weight in model.state_dict().items()}
    model.load_state_dict(before)
    return after


def weigher(seed: int = 2) -> Callable[[Tensor], Tensor]:
    """A fixed random functional, so that no gradient vanishes by symmetry."""

    def loss(output: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        return (output * weights.to(output.dtype)).sum()

    return loss
