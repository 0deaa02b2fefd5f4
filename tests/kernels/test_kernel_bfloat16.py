"""bfloat16 inputs whose matrix products are in bfloat16: what is lost, and what is kept in float32."""

import pytest
import torch
from torch import Tensor

from archdsl.kernels import bench, products
from archdsl.kernels.decay import decay
from archdsl.kernels.delta import delta

ROUNDING = 2**-9
"""Largest relative error of one rounding to bfloat16."""

VARIANTS = [
    (family, variant) for family in ("decay", "delta") for variant in bench.VARIANTS[family]
]


@pytest.fixture(autouse=True)
def with_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that multiplies bfloat16; any other computes the same, more slowly."""
    monkeypatch.setattr(products, "has_bfloat16_units", lambda: True)


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_outputs_states_and_gradients_are_within_the_bound_of_the_benchmark(
    family: str, variant: str
) -> None:
    case = bench.Case(family, variant, batch=2, length=150, heads=2, width=32, dtype=torch.bfloat16)
    assert products.product_dtype(torch.float32, torch.empty(0, dtype=case.dtype)) == case.dtype
    assert bench.parity(case) <= bench.PARITY[case.dtype]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_other_inputs_are_multiplied_as_they_are(kind: torch.dtype) -> None:
    half, other = torch.empty(0, dtype=torch.bfloat16), torch.empty(0, dtype=kind)
    assert products.product_dtype(torch.float32, half, torch.empty(0)) == torch.float32
    assert products.product_dtype(kind, other, other) == kind
    assert products.product_dtype(torch.float64, half) == torch.float64


def _inputs(length: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    q, v = torch.randn(2, 1, length, 2, 16).bfloat16().unbind()
    k = torch.nn.functional.normalize(torch.randn(1, length, 2, 16), dim=-1).bfloat16()
    return {"q": q, "k": k, "v": v}


def test_a_closed_gate_forgets_all_and_gives_no_nan() -> None:
    x = {name: value.requires_grad_() for name, value in _inputs(80).items()}
    for shape in ((1, 80, 2), (1, 80, 2, 16)):
        log = torch.zeros(shape, dtype=torch.bfloat16)
        log[:, ::7] = -torch.inf
        log.requires_grad_()
        out, state = decay(x["q"], x["k"], x["v"], log)
        assert isinstance(state, Tensor)
        grads = torch.autograd.grad(out.sum() + state.sum(), [*x.values(), log])
        assert all(bool(y.isfinite().all()) for y in (out, state, *grads))


def test_equal_keys_at_the_largest_rate_neither_grow_nor_vanish() -> None:
    """Every write is a reflection along one key: what is read stays as large as the values."""
    x = _inputs(128)
    key = x["k"][:, :1].expand_as(x["k"])
    rate = torch.full((1, 128, 2), 2.0, dtype=torch.bfloat16)
    out, state = delta(key, key, x["v"], rate)
    exact, last = delta(*(y.double() for y in (key, key, x["v"], rate)), backend="reference")
    for found, expected in ((out, exact), (state, last)):
        error = (found.double() - expected).square().mean().sqrt()
        roundings = 2 * 128  # every token's erase and write, independent; none of them decays
        assert error <= roundings**0.5 * ROUNDING * expected.square().mean().sqrt()
