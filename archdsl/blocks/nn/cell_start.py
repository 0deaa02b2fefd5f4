"""How a cell starts: the draws of its weights, and the equations of its parameters' initial values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from archdsl.blocks.cell_analysis import Analysis, Learned
from archdsl.blocks.equations import DRAWS, Apply, Constant, Expression, Name
from archdsl.blocks.nn.base import Seeded
from archdsl.blocks.nn.functions import FUNCTIONS


def fill(weight: Tensor, how: str, size: float, generator: torch.Generator) -> None:
    """Normal of a standard deviation, uniform within a bound, or zeros."""
    if how == "zeros":
        weight.zero_()
    elif how == "uniform":
        weight.uniform_(-size, size, generator=generator)
    else:
        weight.normal_(std=size, generator=generator)


class Starts:
    """Evaluates the equations of initial values; every random number is seeded by its parameter."""

    def __init__(self, analysis: Analysis, cell: nn.Module, seeded: Seeded) -> None:
        self.analysis, self.cell, self.seeded = analysis, cell, seeded
        self.names = {learned.call: learned for learned in analysis.vectors}

    def value_of(self, learned: Learned) -> Tensor:
        """Where one parameter starts."""
        self.like = self.cell.get_parameter(learned.name)
        self.generator = self.seeded(learned.name)
        return self.value(learned.start).expand_as(self.like)

    def value(self, expression: Expression) -> Tensor:
        """An expression of numbers, draws and parameters above."""
        match expression:
            case Constant(value):
                return self.like.new_tensor(float(value))
            case Name(name):
                return self.value(self.analysis.assignments[name])
            case Apply("parameter"):
                found = self.cell.get_parameter(self.names[expression].name)
                return found[:, None] if found.dim() < self.like.dim() else found
            case Apply(draw, arguments) if draw in DRAWS:
                return self.draw(draw, [float(self.value(argument)) for argument in arguments])
            case Apply(function, arguments):
                return FUNCTIONS[function](*map(self.value, arguments))

    def draw(self, function: str, ends: list[float]) -> Tensor:
        """One of the functions that only a start may call; those that count, over the last axis."""
        shape, count = self.like.shape, self.like.shape[-1]
        if function == "uniform":
            return torch.rand(shape, generator=self.generator) * (ends[1] - ends[0]) + ends[0]
        if function == "normal":
            return torch.randn(shape, generator=self.generator)
        if function == "linspace":
            return torch.linspace(ends[0], ends[1], count)
        return COUNTED[function](count)


def s4d_inv(count: int) -> Tensor:
    """S4D-Inv's frequencies of twice as many states, falling: ``[count]``."""
    return 2 * count / torch.pi * (2 * count / (2 * torch.arange(count) + 1) - 1)


@cache
def hippo(count: int) -> Tensor:
    """Positive frequencies of HiPPO-LegS's normal part of twice the size, rising: ``[count]``."""
    n = torch.arange(2 * count, dtype=torch.float64)
    root = torch.sqrt(n + 0.5)
    skew = torch.tril(torch.outer(root, root), -1)
    frequencies: Tensor = torch.linalg.eigvalsh(
        torch.complex(torch.zeros_like(skew), skew.T - skew)
    )
    return frequencies[count:].float()


COUNTED: dict[str, Callable[[int], Tensor]] = {
    "index": lambda count: torch.arange(count).float(),
    "hippo": hippo,
    "s4d_lin": lambda count: torch.pi * torch.arange(count),
    "s4d_inv": s4d_inv,
}
"""Functions whose values are the same whatever the seed, by how many there are."""
