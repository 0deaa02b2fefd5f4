"""The hybrid stacks of ``specs/zoo`` are the published ones: which layer stands where, in plain float64.

A stack is written as its paper has it, a list of mixers and channel mixers, each of them pre-norm and
added; what a mixer computes is in ``published_mixers``, ``published_more`` and ``published_routed``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from blocks import published_mixers as mixers
from blocks import published_more as more
from blocks import published_routed as routed
from blocks.published_depth import (
    Weights,
    layer_norm,
    part,
    rms_rows,
    slstm,
    swiglu,
)
from tolerances import EXACT, assert_close
from torch import Tensor

import archdsl

ZOO = Path(__file__).parents[2] / "specs" / "zoo"
LENGTH = 5

Part = tuple[str, Callable[[Weights, Tensor], Tensor]]


def geglu(w: Weights, x: Tensor) -> Tensor:
    gate, up = (x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0) for name in ("gate", "up"))
    return (more.gelu(gate) * up) @ w["down.weight"].T + w.get("down.bias", 0.0)


def relu2(w: Weights, x: Tensor) -> Tensor:
    return (x @ w["up.weight"].T).clamp(min=0) ** 2 @ w["down.weight"].T


def attention(**how: object) -> Part:
    return "attention", partial(mixers.attention, heads=4, **how)  # type: ignore[arg-type]


def experts(shared: int, **how: object) -> Part:
    return "moe", partial(routed.experts, top=2, shared=shared, **how)  # type: ignore[arg-type]


SWIGLU: Part = "swiglu", swiglu
GEGLU: Part = "swiglu", geglu
RG_LRU: Part = "rg_lru", more.rg_lru
MAMBA: Part = "mamba", more.mamba
MAMBA2: Part = "mamba2", partial(mixers.mamba2, heads=4, groups=2)
DELTA: Part = "gated_deltanet", partial(mixers.gated_deltanet, heads=4, key_heads=2)
SCORED_EXPERTS = experts(1, score="sigmoid", scale=2.446)
LATENT: Part = "latent_attention", partial(mixers.latent_attention, heads=4, sizes=(32, 16, 32))
GATED_EXPERTS = experts(1, shared_gate=True)
KDA: Part = "kda", partial(mixers.kda, heads=4)
MLSTM: Part = "mlstm_block", partial(more.mlstm_block, heads=4)
CAPPED_MLSTM: Part = "mlstm", partial(more.mlstm, heads=4)
SLSTM: Part = "slstm", partial(slstm, heads=4)
RELU2: Part = "mlp", relu2
LOCAL = attention(kv_heads=1, position="rope", rotary=0.5, window=64)
GROUPED = attention(kv_heads=2)

Branch = tuple[Part, ...]
"""What one residual holds behind its norm."""


def layer(*parts: Part) -> list[Branch]:
    """A residual for each part."""
    return [(one,) for one in parts]


STACKS: dict[str, list[list[Branch]]] = {
    "griffin": [layer(RG_LRU, GEGLU), layer(RG_LRU, GEGLU), layer(LOCAL, GEGLU)] * 2,
    "hawk": [layer(RG_LRU, GEGLU)] * 4,
    "jamba": [
        layer(
            GROUPED if n % 8 == 4 else MAMBA, experts(0, weights="probability") if n % 2 == 1 else SWIGLU
        )
        for n in range(8)
    ],
    "nemotron_h": [
        layer({"M": MAMBA2, "-": RELU2, "*": GROUPED}[symbol]) for symbol in "M-M-M*-M-M*-"
    ],
    "qwen3_next": [
        *[layer(DELTA, GATED_EXPERTS)] * 3,
        layer(attention(kv_heads=2, position="rope", rotary=0.25, qk_norm=True), GATED_EXPERTS),
    ],
    "kimi_linear": [
        layer(KDA, SWIGLU), *[layer(KDA, SCORED_EXPERTS)] * 2, layer(LATENT, SCORED_EXPERTS),
    ],
    "mlstm": [layer(CAPPED_MLSTM, SWIGLU)] * 4,
    "samba": [layer(MAMBA, SWIGLU, attention(position="rope", window=64), SWIGLU)] * 2,
    "xlstm": [layer(MLSTM), layer(SLSTM, GEGLU), *[layer(MLSTM)] * 6],
}  # fmt: skip


def normed(w: Weights, x: Tensor) -> Tensor:
    """Behind the norm that there is: RMS, or a layer norm."""
    if "rms_norm.weight" in w:
        return rms_rows(x, w["rms_norm.weight"])
    return layer_norm(x, part(w, "layer_norm"))


CAPS = {"mlstm": 30.0}
"""What bounds the logits of a stack."""


def logits(w: Weights, tokens: Tensor, stack: list[list[Branch]], cap: float | None) -> Tensor:
    """Pre-norm residuals one after the other, a last norm, and the head."""
    x = w["embed.weight"][tokens]
    for number, branches in enumerate(stack):
        for place, branch in enumerate(branches):
            own = part(w, f"stack.{number}.residual" + (f"_{place}" if place else ""))
            y = normed(own, x)
            for name, function in branch:
                y = function(part(own, name), y)
            x = x + y
    found = normed(w, x) @ w.get("lm_head.weight", w["embed.weight"]).T
    return found if cap is None else cap * torch.tanh(found / cap)


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_is_its_paper(name: str) -> None:
    model = archdsl.load(ZOO / f"{name}.arch").sample(0).compile(dtype="float64")
    tokens = torch.randint(256, (LENGTH,), generator=torch.Generator().manual_seed(0))
    weights = dict(model.state_dict())
    kinds = sum(len(branches) for branches in STACKS[name])
    norms = re.compile(r"\.residual(_\d+)?\.(rms|layer)_norm\.weight$")
    assert kinds == sum(bool(norms.search(weight)) for weight in weights)
    with torch.no_grad():
        assert_close(
            model(tokens[None])[0], logits(weights, tokens, STACKS[name], CAPS.get(name)), EXACT
        )
