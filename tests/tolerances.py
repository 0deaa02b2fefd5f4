"""How far two right answers may be apart, derived once.

Two programs that compute one formula differ in the order of their sums. A sum of ``n`` terms of size
one, in floating point of precision ``eps``, carries a rounding error whose size is that of a random
walk, ``eps · √n``. Through ``depth`` such operations one behind the other the errors add, since norms
and gates keep a signal's size. The largest of the (at most a million) elements that a test looks at is
five standard deviations out. Hence, relative to the size of the tensor,

    bound = 5 · eps · √n · depth

A bound is never loosened to let a test pass: a test that needs a larger one states its ``n`` and depth.
"""

from math import sqrt

import torch
from torch import Tensor

EXACT = 1e-9
"""In float64, against a plain definition: 4e6 roundings, more than any test here does in a row."""

DEVIATIONS = 5


def bound(dtype: torch.dtype, terms: int, depth: int) -> float:
    """The relative bound of the derivation above."""
    return DEVIATIONS * torch.finfo(dtype).eps * sqrt(terms) * depth


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the larger of one and the largest expected element."""
    if expected.numel() == 0:
        return 0.0
    wide, right = found.detach().double(), expected.detach().double()
    return float((wide - right).abs().max() / right.abs().max().clamp(min=1))


def assert_close(found: Tensor, expected: Tensor, limit: float, what: str = "") -> None:
    """Equal shapes, everything finite, and nothing further apart than the limit."""
    assert found.shape == expected.shape, f"{what}: {found.shape} is not {expected.shape}"
    assert bool(torch.isfinite(found).all()), f"{what} is not finite"
    assert apart(found, expected) <= limit, f"{what}: {apart(found, expected):.1e} > {limit:.1e}"
