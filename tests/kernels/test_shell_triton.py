"""The shell's Triton kernels in Triton's interpreter against their plain forms.

The interpreter must be asked for before Triton is imported, so the cases run in a process of their own:
this file as a script, which prints the worst error of every case.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from archdsl.kernels.shell.convolution import short_convolution
from archdsl.kernels.shell.gate import gated_unit
from archdsl.kernels.shell.loss import linear_cross_entropy
from archdsl.kernels.shell.norm import add_norm, gated_norm, rms_norm

LIMIT = 5e-6
"""Relative to the largest element: rows of up to 200 numbers, five roundings of float32 a number."""

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

Call = Callable[..., Tensor]


def norm(backend: str, *x: Tensor) -> Tensor:
    return rms_norm(*x, 1e-6, backend)


def added(backend: str, *x: Tensor) -> Tensor:
    return torch.cat(add_norm(*x, 1e-6, backend))


def gated(function: str, first: bool) -> Call:
    return lambda backend, *x: gated_norm(*x, 1e-6, function, first, backend)


def unit(function: str, swapped: bool) -> Call:
    return lambda backend, x: gated_unit(x, function, swapped, backend)


def convolution(function: str, heads: int) -> Call:
    return lambda backend, *x: short_convolution(*x, function, heads, backend)


def loss(backend: str, *x: Tensor) -> Tensor:
    targets = torch.arange(37) % 19
    targets[::5] = -100
    return linear_cross_entropy(*x, targets, 200, backend == "triton") * 3


CASES: dict[str, tuple[Call, list[tuple[int, ...]]]] = {
    "norm": (norm, [(37, 20), (20,)]),
    "wide norm": (norm, [(3, 130), (130,)]),
    "add, norm": (added, [(37, 24), (37, 24), (24,)]),
    "norm, silu gate": (gated("silu", False), [(5, 7, 24), (5, 7, 24), (24,)]),
    "sigmoid gate, norm": (gated("sigmoid", True), [(37, 24), (37, 24), (24,)]),
    "swiglu": (unit("silu", False), [(5, 7, 48)]),
    "linear unit, swapped": (unit("none", True), [(9, 10)]),
    "convolution": (convolution("none", 0), [(2, 40, 12), (12, 4), (12,)]),
    "wide convolution": (convolution("sigmoid", 0), [(1, 9, 200), (200, 3), (200,)]),
    "convolution, silu, unit": (convolution("silu", 3), [(2, 70, 60), (60, 4), (60,)]),
    "cross-entropy": (loss, [(37, 8), (19, 8), (19,)]),
}


def evidence(call: Call, shapes: list[tuple[int, ...]], backend: str) -> list[Tensor]:
    """Output and gradients, from fixed inputs."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    output = call(backend, *inputs)
    weights = torch.randn(output.shape, generator=generator)
    return [output, *torch.autograd.grad((output * weights).sum(), inputs)]


def errors() -> dict[str, float]:
    found = {}
    for name, (call, shapes) in CASES.items():
        pairs = zip(evidence(call, shapes, "triton"), evidence(call, shapes, "plain"), strict=True)
        found[name] = max(float(((a - b).abs().max() / b.abs().max()).detach()) for a, b in pairs)
    return found


@needs_triton
def test_interpreted_kernels_agree_with_the_plain_forms() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(CASES)
    for name, error in found.items():
        assert error <= LIMIT, (name, error)


if __name__ == "__main__":
    print(json.dumps(errors()))
