"""Residual policies: several streams begin as one, stay apart, and come back."""

from __future__ import annotations

import pytest
import torch
from blocks.written import built
from tolerances import EXACT, assert_close

from archdsl.blocks.nn.streams import sinkhorn
from archdsl.compiler.models.model import Model

BODY = (
    "stack(depth = 3) { residual { rms_norm attention(heads = 2) }"
    " residual(scale = 1/2) { rms_norm swiglu } }"
)


def model_of(layer: str, dtype: str = "float64") -> Model:
    return built(f"embed(dim = 8, vocab = 11) {layer} rms_norm lm_head", dtype=dtype)


def shared_weights(source: Model, target: Model) -> Model:
    """The branches' weights of a region as those of the plain network."""
    weights = {}
    for name, weight in source.state_dict().items():
        if ".connect." not in name:
            region, _, rest = name.partition(".layers.0.")
            plain = rest.replace(".branch.0.", ".") if rest else region
            weights[plain] = weight
    target.load_state_dict(weights)
    return target


@pytest.mark.parametrize(
    "region", ["hyper", "hyper(streams = 2, dynamic = false)", "hyper(streams = 8)"]
)
def test_fresh_hyper_connections_are_a_plain_network_exactly(region: str) -> None:
    streams = model_of(f"{region} {{ {BODY} }}")
    plain = shared_weights(streams, model_of(BODY))
    x = torch.arange(11)[None]
    assert torch.equal(streams(x), plain(x))


@pytest.mark.parametrize("region", ["mhc", "mhc(streams = 3)", "mhc(dynamic = false, rounds = 1)"])
def test_fresh_constrained_ones_are_too_but_for_rounding(region: str) -> None:
    streams = model_of(f"{region} {{ {BODY} }}")
    plain = shared_weights(streams, model_of(BODY))
    x = torch.arange(11)[None]
    assert_close(streams(x), plain(x), EXACT)


def test_each_branch_starts_on_another_stream() -> None:
    model = model_of(f"hyper(streams = 4) {{ {BODY} }}")
    reads = [p for name, p in model.named_parameters() if name.endswith("connect.read")]
    assert [int(read.argmax()) for read in reads] == [0, 1, 2, 3, 0, 1]
    assert all(read.sum() == 1 for read in reads)


def test_streams_persist_from_branch_to_branch() -> None:
    """Two regions of a branch each are another model than one region of two branches."""
    part = "residual { rms_norm swiglu }"
    once = model_of(f"hyper {{ {part} {part} }}")
    apart = model_of(f"hyper {{ {part} }} hyper {{ {part} }}")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        moved = [
            torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in once.parameters()
        ]
        for model in (once, apart):
            for parameter, noise in zip(model.parameters(), moved, strict=True):
                parameter.copy_(noise)
    x = torch.arange(11)[None]
    assert not torch.allclose(once(x), apart(x))


def test_sinkhorn_leaves_rows_and_columns_of_one() -> None:
    logits = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = sinkhorn(3 * logits, 20)
    assert_close(found.sum(-1), torch.ones(5, 4, dtype=torch.float64), EXACT)
    assert float((found.sum(-2) - 1).abs().max()) < 0.05
    assert float(torch.linalg.matrix_norm(found, 2).max()) < 1.05
    assert bool(torch.isfinite(sinkhorn(1e4 * logits, 20)).all())


def test_a_learned_scale_starts_where_it_says() -> None:
    """ReZero: a network whose scales start at zero is the identity."""
    model = model_of("residual(scale = learned, start = 0) { swiglu }")
    plain = model_of("")
    plain.load_state_dict({n: w for n, w in model.state_dict().items() if "residual" not in n})
    x = torch.arange(11)[None]
    assert torch.equal(model(x), plain(x))


def test_values_are_mixed_with_those_of_the_first_layer() -> None:
    model = model_of(
        "attention(heads = 1, value_residual = learned) attention(heads = 1, value_residual = half)"
    )
    x, w = torch.tensor([[3]]), model.state_dict()
    with torch.no_grad():
        model.get_parameter("attention.value_mix.weight").copy_(torch.tensor([0.25, 0.5]))
    e = w["embed.weight"][x]
    first = e @ w["attention.value.weight"].T
    y = 0.75 * first @ w["attention.out.weight"].T  # one token attends to itself
    second = (first + y @ w["attention_1.value.weight"].T) / 2
    z = second @ w["attention_1.out.weight"].T
    normed = z / torch.sqrt((z**2).mean(-1, keepdim=True) + 1e-6)
    assert_close(model(x), normed @ w["lm_head.weight"].T, EXACT)
