"""Comparing a kernel with a token loop: outputs, states and every gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FLOOR = 1e-3
"""Magnitude, against inputs of size one, below which an exact zero is as good."""

Tensors = dict[str, Tensor]
Result = tuple[Tensor, tuple[Tensor, ...]]


@dataclass(frozen=True)
class Member:
    """A published recurrence: inputs, its token loop from the paper, and the kernel call.

    `make(batch, length)` gives float64 inputs; keys that begin with `state` are initial states, and
    `shared` names parameters without a batch axis. `loop` and `kernel` give (output, final states).
    `float32_limit` is above 1e-5 where the token loop itself is, for want of conditioning.
    """

    name: str
    make: Callable[[int, int], Tensors]
    loop: Callable[[Tensors], Result]
    kernel: Callable[..., Result]
    shared: tuple[str, ...] = ()
    float32_limit: float = 1e-5


def randn(*shape: int) -> Tensor:
    """Normal float64 numbers."""
    return torch.randn(*shape, dtype=torch.float64)


def uniform(*shape: int) -> Tensor:
    """Uniform float64 numbers in [0, 1)."""
    return torch.rand(*shape, dtype=torch.float64)


def unit(*shape: int) -> Tensor:
    """Random float64 vectors of length one along the last axis."""
    return torch.nn.functional.normalize(randn(*shape), dim=-1)


def run(function: Callable[..., Result], inputs: Tensors, **options: Any) -> list[Tensor]:
    """Output, states and gradients of a fixed random loss over all of them, in input order."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    out, states = function(leaves, **options)
    loss = sum((_weights(x) * x).sum().real for x in (out, *states))
    assert isinstance(loss, Tensor)
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    filled = [
        torch.zeros_like(x) if g is None else g for x, g in zip(leaves.values(), grads, strict=True)
    ]
    return [out.detach(), *(x.detach() for x in states), *filled]


def _weights(x: Tensor) -> Tensor:
    """Fixed weights in the dtype of x, the same numbers whatever the precision."""
    generator = torch.Generator().manual_seed(x.numel())
    dtype = torch.complex128 if x.is_complex() else torch.float64
    return torch.randn(x.shape, generator=generator, dtype=dtype).to(x.dtype)


def cast(inputs: Tensors, dtype: torch.dtype) -> Tensors:
    """Inputs in another real precision; complex inputs follow."""
    wide = {torch.float32: torch.complex64, torch.float64: torch.complex128}[dtype]
    return {name: x.to(wide if x.is_complex() else dtype) for name, x in inputs.items()}


def error(found: Tensor, expected: Tensor) -> float:
    """RMS of the difference over RMS of the expectation, the worst head where axis 2 is heads."""
    wide = torch.complex128 if expected.is_complex() else torch.float64
    found, expected = found.to(wide), expected.to(wide)
    if expected.dim() >= 3:
        found, expected = found.transpose(0, 2), expected.transpose(0, 2)
    else:
        found, expected = found[None], expected[None]
    difference = (found - expected).flatten(1).abs().pow(2).mean(1).sqrt()
    size = expected.flatten(1).abs().pow(2).mean(1).sqrt()
    return float((difference / (size + FLOOR)).max())


def assert_close(found: Sequence[Tensor], expected: Sequence[Tensor], limit: float) -> None:
    """Every tensor finite and within `limit`."""
    errors = []
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape
        assert bool(torch.isfinite(torch.view_as_real(x) if x.is_complex() else x).all())
        errors.append(error(x, y) if x.numel() else 0.0)
    assert max(errors) <= limit, [f"{e:.1e}" for e in errors]
