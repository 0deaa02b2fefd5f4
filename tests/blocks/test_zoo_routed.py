"""The mixtures of ``specs/zoo`` are whole plain models, written out (``published_routed``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from blocks import published_routed as published
from blocks.published_mixers import attention, width_norm
from tolerances import assert_close
from torch import Tensor

import archdsl

ZOO = Path(__file__).parents[2] / "specs" / "zoo"
LENGTH = 12
EXACT = 1e-10
"""In float64; a signal passes at most 1e4 roundings here, of 1e-16 each."""

Weights = published.Weights
Layer = Callable[[Weights, Tensor], Tensor]


def under(w: Weights, prefix: str) -> Weights:
    return {name[len(prefix) :]: value for name, value in w.items() if name.startswith(prefix)}


def swiglu(w: Weights, x: Tensor) -> Tensor:
    return torch.stack([published.swiglu(w, row) for row in x])


def logits(w: Weights, tokens: Tensor, layers: dict[str, Layer]) -> Tensor:
    """Embedding, four blocks of two pre-norm residuals, a norm, the table again; ``tokens [T]``."""
    x = w["embed.weight"][tokens]
    for block in range(4):
        for name, (inner, layer) in zip(("residual", "residual_1"), layers.items(), strict=True):
            own = under(w, f"stack.{block}.{name}.")
            x = x + layer(under(own, f"{inner}."), width_norm(x, own["rms_norm.weight"]))
    return width_norm(x, w["rms_norm.weight"]) @ w["embed.weight"].T


def assert_is(name: str, layers: Callable[[Weights], dict[str, Layer]]) -> None:
    model = archdsl.load(ZOO / f"{name}.arch").sample(0).compile(dtype="float64")
    tokens = torch.randint(256, (2, LENGTH), generator=torch.Generator().manual_seed(3))
    w = model.state_dict()
    with torch.no_grad():
        assert_close(model(tokens), torch.stack([logits(w, t, layers(w)) for t in tokens]), EXACT)


def test_mixture_of_memories_over_gla() -> None:
    plain = published.MIXERS["gla(heads = 2, rank = 3)"]
    mixture: Layer = lambda w, x: published.memories(w, x, plain, 2, True)  # noqa: E731
    assert_is("mom_gla", lambda w: {"mom": mixture, "swiglu": swiglu})


def test_mixture_of_memories_over_gated_deltanet() -> None:
    plain = published.MIXERS["gated_deltanet(heads = 2, expand_k = 1)"]
    mixture: Layer = lambda w, x: published.memories(  # noqa: E731
        w, x, plain, 2, True, neighbours="routed"
    )
    assert_is("mom_gated_deltanet", lambda w: {"mom": mixture, "swiglu": swiglu})


def test_experts_with_a_recurrent_router() -> None:
    def layers(w: Weights) -> dict[str, Layer]:
        gru = {n.rpartition(".")[2]: v for n, v in w.items() if ".gru." in n}
        state = [torch.zeros(LENGTH, 64, dtype=torch.float64)]

        def mixture(w: Weights, x: Tensor) -> Tensor:
            inner = x @ w["router.down"].T
            pairs = zip(inner, state[0], strict=True)
            state[0] = torch.stack([published.gru_cell(gru, a, b) for a, b in pairs])
            return published.experts(w, x, 2, 0, state[0] @ w["router.weight"].T)

        def attend(w: Weights, x: Tensor) -> Tensor:
            return attention(w, x, heads=4, position="rope")

        return {"attention": attend, "moe": mixture}

    assert_is("rmoe", layers)
