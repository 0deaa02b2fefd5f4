"""The named mixers of ``blocks/std`` are the published ones: same weights, same outputs and gradients.

Definitions and their stated deviations are in ``published_mixers``.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from blocks import published_mixers as published
from blocks.probe import gradients, probe, random_inputs, weigher
from tolerances import EXACT, assert_close

WIDTH = 8

MIXERS = {
    "gla(heads = 2)": partial(published.gla, heads=2),
    "gla(heads = 2, expand_k = 1, conv = 4, rank = 3)": partial(published.gla, heads=2),
    "retnet(heads = 2)": partial(published.retnet, heads=2),
    "retnet(heads = 4, expand_v = 1)": partial(published.retnet, heads=4),
    "mamba2(heads = 2, state = 5)": partial(published.mamba2, heads=2),
    "mamba2(heads = 4, state = 3, expand = 1, conv = 2)": partial(published.mamba2, heads=4),
    "mamba2(heads = 4, state = 3, groups = 2)": partial(published.mamba2, heads=4, groups=2),
    "hgrn": published.hgrn,
    "hgrn(expand = 2, lower = 0.25)": partial(published.hgrn, lower=0.25),
    "hgrn2(heads = 2)": partial(published.hgrn2, heads=2),
    "hgrn2(heads = 1, lower = 0.5)": partial(published.hgrn2, heads=1, lower=0.5),
    "linear_attention(heads = 2)": partial(published.linear_attention, heads=2),
    "deltanet(heads = 2)": partial(published.deltanet, heads=2),
    "deltanet(heads = 2, beta_max = 2, conv = 3)": partial(
        published.deltanet, heads=2, beta_max=2.0
    ),
    "deltanet(heads = 2, conv = none)": partial(published.deltanet, heads=2),
    "gated_deltanet(heads = 2, expand_k = 1, conv = none)": partial(
        published.gated_deltanet, heads=2
    ),
    "kda(heads = 2, rank = 3, conv = none)": partial(published.kda, heads=2),
    "gated_deltanet(heads = 2, expand_k = 1)": partial(published.gated_deltanet, heads=2),
    "gated_deltanet(heads = 3, beta_max = 2)": partial(
        published.gated_deltanet, heads=3, beta_max=2.0
    ),
    "gated_deltanet(heads = 4, key_heads = 2, expand_k = 1, expand_v = 1)": partial(
        published.gated_deltanet, heads=4, key_heads=2
    ),
    "kda(heads = 2, rank = 3)": partial(published.kda, heads=2),
    "kda(heads = 2, expand_k = 1/2, expand_v = 2, rank = 3, gate_bias = false)": partial(
        published.kda, heads=2
    ),
    "kda(heads = 4, rank = 5, beta_max = 2)": partial(published.kda, heads=4, beta_max=2.0),
}

ATTENTION = {
    "attention(heads = 2)": {"heads": 2},
    'attention(heads = 2, position = rope, base = 100)': {
        "heads": 2, "position": "rope", "base": 100.0,
    },
    "attention(heads = 4, position = alibi)": {"heads": 4, "position": "alibi"},
    "attention(heads = 3, head_dim = 2, position = alibi)": {"heads": 3, "position": "alibi"},
    "attention(heads = 6, head_dim = 2, position = alibi, window = 4)": {
        "heads": 6, "position": "alibi", "window": 4,
    },
    "attention(heads = 2, window = 1)": {"heads": 2, "window": 1},
    "attention(heads = 2, window = 5, position = rope)": {
        "heads": 2, "window": 5, "position": "rope",
    },
    "attention(heads = 4, kv_heads = 2)": {"heads": 4, "kv_heads": 2},
    "attention(heads = 4, kv_heads = 1, position = rope)": {
        "heads": 4, "kv_heads": 1, "position": "rope",
    },
    "attention(heads = 2, qk_norm = true, position = rope)": {
        "heads": 2, "qk_norm": True, "position": "rope",
    },
    "attention(heads = 2, bias = true)": {"heads": 2},
    "attention(heads = 1, bias = query_key, position = rope, rotary = 1/4)": {
        "heads": 1, "position": "rope", "rotary": 0.25,
    },
    "attention(heads = 2, kv_heads = 1, bias = out, gate = sigmoid)": {"heads": 2, "kv_heads": 1},
    "attention(heads = 2, causal = false)": {"heads": 2, "causal": False},
    "attention(heads = 2, causal = false, window = 3, position = alibi)": {
        "heads": 2, "causal": False, "window": 3, "position": "alibi",
    },
}  # fmt: skip

LATENT = {
    "latent_attention(heads = 2)": {"heads": 2, "sizes": (4, 2, 4)},
    "latent_attention(heads = 2, latent = 3, query_latent = 5, position = rope, base = 100)": {
        "heads": 2, "sizes": (4, 2, 4), "base": 100.0,
    },
    "latent_attention(heads = 3, latent = 3, head_dim = 2, value_dim = 7, shared_dim = 3, window = 5)": {
        "heads": 3, "sizes": (2, 3, 7), "window": 5,
    },
}  # fmt: skip

DEFINITIONS = (
    MIXERS
    | {text: partial(published.attention, **how) for text, how in ATTENTION.items()}
    | {text: partial(published.latent_attention, **how) for text, how in LATENT.items()}
)

LENGTHS = (1, 2, 17, 70)
"""One token, fewer than a convolution's taps, one chunk, and more than the largest chunk of 64."""


def width_for(layer: str) -> int:
    """Three heads need a width that three and the default expansions of 3/4 and 3/2 divide."""
    return 16 if "heads = 3, beta" in layer else WIDTH


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every mixer at every length; attention, which has no chunks, at two."""
    if "layer" in metafunc.fixturenames:
        cases = [
            (layer, length)
            for layer in DEFINITIONS
            for length in (LENGTHS if layer in MIXERS else (2, 13))
        ]
        metafunc.parametrize(("layer", "length"), cases)


def test_equals_its_published_definition(layer: str, length: int) -> None:
    found = probe(layer, random_inputs(2, length, width_for(layer)), dtype="float64")
    weights = {name: w.requires_grad_() for name, w in found.weights().items()}
    inputs = random_inputs(2, length, width_for(layer)).requires_grad_()
    expected = torch.stack([DEFINITIONS[layer](weights, row) for row in inputs])
    assert_close(found.output(), expected, EXACT, "output")

    weigh = weigher()
    weigh(expected).backward()
    grads = gradients(found.model, weigh(found.output()))
    assert_close(grads["embed.weight"][: 2 * length].view_as(inputs), inputs.grad, EXACT, "inputs")
    for name, weight in weights.items():
        [full] = [n for n in grads if n.partition(".")[2] == name and not n.startswith("lm_head")]
        assert_close(grads[full], weight.grad, EXACT, name)
