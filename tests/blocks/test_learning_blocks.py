"""Parts of memories that learn: written losses, polynomial features, learned keys, where they may stand."""

from __future__ import annotations

from math import factorial

import pytest
import torch
from blocks.written import arch, built
from tolerances import EXACT, assert_close
from torch import Tensor

import archdsl
from archdsl.blocks.nn.learner import PolynomialFeatures
from archdsl.blocks.nn.objective import derived
from archdsl.blocks.ops import learner as ops

AROUND = "learner = gd(rate = token, chunk = 4), query = l2_norm, key = l2_norm"


def output(bias: str) -> Tensor:
    layer = f"miras(mlp(heads = 2, expand = 2), bias = {bias}, {AROUND})"
    model = built(f"embed(dim = 8, vocab = 5) {layer} lm_head", dtype="float64")
    return model(torch.randint(5, (2, 13), generator=torch.Generator().manual_seed(0)))


SAME = {
    "l2": "written(0.5 * (prediction - target) * (prediction - target))",
    "written(prediction)": "written(prediction - target)",
    "huber(delta = 1/2)": (
        "written(min(abs(prediction - target), 0.5) * (abs(prediction - target)"
        " - 0.5 * min(abs(prediction - target), 0.5)))"
    ),
}


@pytest.mark.parametrize("bias", SAME)
def test_a_written_loss_is_the_one_that_has_a_name(bias: str) -> None:
    assert_close(output(SAME[bias]), output(bias), EXACT)


FUNCTIONS = (
    "tanh(prediction) / (1 + exp(-target))",
    "log(1 + prediction * prediction) - sqrt(2 + cos(prediction))",
    "max(prediction, target) * silu(prediction) + min(sin(prediction), softplus(target))",
    "expm1(prediction) * sigmoid(prediction) + gelu(prediction) - elu1(prediction)",
)


@pytest.mark.parametrize("text", FUNCTIONS)
def test_the_gradient_of_a_written_loss_is_its_own(text: str) -> None:
    layer = f"miras(matrix(heads = 2), bias = written({text}))"
    expression = (
        arch(f"embed(dim = 8, vocab = 5) {layer} lm_head").root[1].component.bias.expression
    )
    generator = torch.Generator().manual_seed(0)
    p, t = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    p.requires_grad_()
    one, zero = torch.ones_like(p), torch.zeros_like(p)
    value, slope = derived(expression, {"prediction": (p, one), "target": (t, zero)})
    assert_close(slope, torch.autograd.grad(value.sum(), p)[0], EXACT)


def test_a_written_loss_survives_its_closed_text() -> None:
    text = f"miras(mlp(heads = 2), bias = written(abs(prediction - target) | tanh(prediction)), {AROUND})"
    space = archdsl.loads(f"model {{ embed(dim = 8, vocab = 5) {text} lm_head }}")
    assert space.count() == 2
    for seed in range(3):
        one = space.sample(seed)
        assert archdsl.loads(one.text).sample(0).hash == one.hash


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_polynomial_features_are_those_of_a_polynomial_kernel(degree: int) -> None:
    op = ops.PolynomialFeatures(heads=2, width=8, degree=degree)
    features = PolynomialFeatures(op).double()
    x = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q, k = features(x).view(2, 2, -1)
    product = (x[0].view(2, 4) * x[1].view(2, 4)).sum(-1)
    powers = range(degree + 1)
    kernel = sum(product**i / factorial(i) for i in powers) / sum(1 / factorial(i) for i in powers)
    assert_close((q * k).sum(-1), kernel, 1e-6)
    assert features(x).shape[-1] == op.outputs([ops.Type("features", 8)])[0].width
