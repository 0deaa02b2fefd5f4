"""The named memories of ``blocks/std`` that learn are the published ones: same outputs and gradients.

With ``bound = none``: what bounds steps by default has no part in the papers' equations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from blocks import published_miras as published
from blocks.probe import gradients, probe, random_inputs, weigher
from tolerances import EXACT, assert_close
from torch import Tensor

WIDTH = 8
LENGTH = 11
"""Two chunks of four tokens, and a part of a third."""

SHAPE = {"heads": 2, "chunk": 4}

MIXERS: dict[str, Callable[..., Tensor]] = {
    "ttt_linear(heads = 2, chunk = 4, rate = 1/64, bound = none)": partial(
        published.ttt, **SHAPE, rate=1 / 64
    ),
    "ttt_mlp(heads = 2, expand = 2, chunk = 4, rate = 1/80, bound = none)": partial(
        published.ttt, **SHAPE, rate=1 / 80
    ),
    "titans(heads = 2, expand = 2, chunk = 4, rate = 1/2, bound = none)": partial(
        published.titans, **SHAPE, rate=0.5
    ),
    "titans_mac(heads = 2, segment = 4, persistent = 2, expand = 2, bound = false)": partial(
        published.titans_mac, **SHAPE
    ),
    "titans_mag(heads = 2, window = 3, persistent = 2, chunk = 4, bound = none)": partial(
        published.titans_mag, **SHAPE, window=3
    ),
    "titans_mal(heads = 2, window = 3, persistent = 2, chunk = 4, bound = none)": partial(
        published.titans_mal, **SHAPE, window=3
    ),
    "moneta(heads = 2, floor = 1/100, expand = 2, chunk = 4, rank = 3, rate = 1/64, bound = none)": partial(
        published.moneta, **SHAPE, rate=1 / 64
    ),
    "yaad(heads = 2, expand = 2, chunk = 4, rank = 3, rate = 1/64, bound = none)": partial(
        published.yaad, **SHAPE, rate=1 / 64
    ),
    "memora(heads = 2, expand = 2, chunk = 4, rank = 3, rate = 1/1024, bound = none)": partial(
        published.memora, **SHAPE, rate=1 / 1024
    ),
    "omeganet(heads = 2, expand = 1, window = 3, chunk = 4, rate = 1/8, bound = none)": partial(
        published.atlas, **SHAPE, rate=1 / 8, window=3
    ),
    "atlas(heads = 2, expand = 1, window = 3, newton = 2, chunk = 4, bound = none)": partial(
        published.atlas, **SHAPE, rate=1.0, window=3, newton=2
    ),
    "deep_transformer(heads = 2, degree = 3, expand = 1, chunk = 4, rate = 1/8, bound = none)": partial(
        published.atlas, **SHAPE, rate=1 / 8
    ),
    "lattice(heads = 2, count = 3, chunk = 4, bound = none)": partial(published.lattice, **SHAPE),
}


@pytest.mark.parametrize("layer", MIXERS)
def test_equals_its_published_definition(layer: str) -> None:
    found = probe(layer, random_inputs(1, LENGTH, WIDTH), dtype="float64")
    weights = {name: w.requires_grad_() for name, w in found.weights().items()}
    inputs = random_inputs(1, LENGTH, WIDTH).requires_grad_()
    expected = MIXERS[layer](weights, inputs[0])[None]
    assert_close(found.output(), expected, EXACT, "output")

    weigh = weigher()
    weigh(expected).backward()
    grads = gradients(found.model, weigh(found.output()))
    assert_close(grads["embed.weight"][:LENGTH].view_as(inputs), inputs.grad, EXACT, "inputs")
    for name, weight in weights.items():
        [full] = [n for n in grads if n.partition(".")[2] == name and not n.startswith("lm_head")]
        wanted = torch.zeros_like(weight) if weight.grad is None else weight.grad
        assert_close(grads[full], wanted, EXACT, name)
