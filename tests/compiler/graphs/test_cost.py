"""Costs by hand: exact parameters and states, the FLOPs of matrix products, and where each applies."""

from __future__ import annotations

import pytest
import torch
from blocks.contract import tokens
from blocks.written import arch, built
from torch.utils.flop_counter import FlopCounterMode

from archdsl.blocks.op import Work
from archdsl.compiler.graphs.cost import Cost

EMBED, HEAD = 11 * 16, 11 * 16


def cost(layers: str, head: str = "lm_head") -> Cost:
    return Cost(arch(f"embed(dim = 16, vocab = 11) {layers} {head}").graph)


PARAMS = {
    "rms_norm": 16,
    "layer_norm": 32,
    "linear(dim = 16, bias = true)": 16 * 16 + 16,
    "swiglu(expand = 2)": 3 * 16 * 32,
    "mlp(expand = 2, bias = true)": 2 * 16 * 32 + 32 + 16,
    "conv(kernel = 4, bias = true)": 16 * 4 + 16,
    "attention(heads = 4, kv_heads = 2)": 2 * 16 * 16 + 2 * 16 * 8,
    "attention(heads = 2, qk_norm = true)": 4 * 16 * 16 + 2 * 8,
    "deltanet(heads = 2)": 4 * 16 * 16 + 2 * 16 + 3 * 16 * 4 + 8,
    "gru": 6 * 16 * 16 + 4 * 16,
    "min_gru": 2 * 16 * 16 + 2 * 16,
    "residual(scale = learned) { linear }": 16 + 16 * 16,
    "parallel(mix = gate) { linear linear }": 2 + 2 * 16 * 16,
    "repeat(times = 5) { linear }": 5 * 16 * 16,
    "stack(depth = 5, ratio = 4:1) { a: linear b: rms_norm }": 4 * 16 * 16 + 16,
}


@pytest.mark.parametrize("layer", PARAMS)
def test_parameters_by_hand(layer: str) -> None:
    assert cost(layer).params == EMBED + PARAMS[layer] + HEAD


def test_a_tied_head_adds_no_parameters_and_keeps_its_flops() -> None:
    plain, tied = cost(""), cost("", "lm_head(tied = true)")
    assert tied.params == plain.params - HEAD
    assert tied.flops(8) == plain.flops(8)


STATES = {
    "swiglu": 0,
    "gla(heads = 2)": 4 * 2 * 4 * 8,
    "hgrn(expand = 2)": 4 * 32,
    "linear_attention(heads = 2)": 4 * 2 * (8 * 8 + 8),
    "deltanet(heads = 2)": 4 * (2 * 8 * 8 + 3 * 3 * 16),
    "conv(kernel = 4, dilation = 2)": 4 * 6 * 16,
    "lstm": 4 * 2 * 16,
    "attention(heads = 4, kv_heads = 2)": 4 * 2 * 100 * 8,
    "attention(heads = 4, window = 10)": 4 * 2 * 9 * 16,
    "repeat(times = 3) { hgrn }": 3 * 4 * 16,
}


@pytest.mark.parametrize("layer", STATES)
def test_state_bytes_behind_a_hundred_tokens_by_hand(layer: str) -> None:
    assert cost(layer).state_bytes(100) == STATES[layer]


@pytest.mark.parametrize(
    ("dtype", "size"), [("float64", 8), ("float32", 4), ("bfloat16", 2), ("float16", 2)]
)
def test_caches_follow_the_models_dtype(dtype: str, size: int) -> None:
    assert cost("attention(heads = 2)").state_bytes(10, dtype) == 2 * 10 * 16 * size


@pytest.mark.parametrize(
    ("dtype", "size"), [("float64", 8), ("float32", 4), ("bfloat16", 4), ("float16", 4)]
)
def test_recurrent_states_are_never_narrower_than_single(dtype: str, size: int) -> None:
    assert cost("hgrn").state_bytes(10, dtype) == 16 * size


def test_only_caches_grow() -> None:
    both = cost("attention(heads = 2) gla(heads = 2)")
    assert both.cache_bytes(10) == 4 * 2 * 10 * 16
    assert cost("gla(heads = 2)").cache_bytes(10**6) == 0
    window = cost("attention(heads = 2, window = 8)")
    assert window.cache_bytes(10**6) == window.cache_bytes(7)


FLOPS = {
    "linear": 2 * 16 * 16,
    "mlp(expand = 2)": 2 * 2 * 16 * 32,
    "attention(heads = 2)": 2 * 4 * 16 * 16 + 4 * 50 * 16,
    "min_gru": 2 * 2 * 16 * 16,
    "gru": 2 * 6 * 16 * 16,
}


@pytest.mark.parametrize("layer", FLOPS)
def test_flops_a_token_by_hand(layer: str) -> None:
    assert cost(layer).flops(50) == FLOPS[layer] + 2 * 11 * 16


@pytest.mark.parametrize("layer", FLOPS)
def test_training_is_three_forward_passes(layer: str) -> None:
    found = cost(layer)
    assert found.flops(50, "train") == 3 * found.flops(50)


def test_a_decoded_token_reads_the_cache_and_not_a_square() -> None:
    head = 2 * 11 * 16
    found = cost("attention(heads = 2)")
    assert found.flops(50, "decode") == 2 * 4 * 16 * 16 + 4 * 50 * 16 + head
    window = cost("attention(heads = 2, window = 8)")
    assert window.flops(50, "decode") == 2 * 4 * 16 * 16 + 4 * 8 * 16 + head


@pytest.mark.parametrize("layer", ["swiglu", "mlp(bias = true)", "hgrn", "min_gru", "linear"])
def test_training_flops_are_those_pytorch_counts_for_plain_products(layer: str) -> None:
    """Fused attention recomputes its scores, and the kernels' backward operators are not counted by
    PyTorch; for those three times the forward is the field's convention, not a count."""
    model = built(f"embed(dim = 16, vocab = 11) {layer} lm_head")
    x = tokens(2, 129)
    with FlopCounterMode(display=False) as counter:
        model.loss(x[:, :-1], x[:, 1:]).backward()
    assert model.cost.total_flops(Work(128, 2, "train")) == counter.get_total_flops()


def test_costs_are_of_the_architecture_whatever_the_stage() -> None:
    body = "embed(dim = 16, vocab = 11) gla(heads = 2) lm_head"
    assert built(body).cost.params == built(body, stage="lower").cost.params


def test_cost_is_causal_where_every_layer_is() -> None:
    assert cost("attention(heads = 2) conv(kernel = 3)").causal
    assert not cost("residual { attention(heads = 2, causal = false) }").causal
    assert not cost(
        "stack(depth = 4, at = [3]) { a: mlp b: conv(kernel = 3, causal = false) }"
    ).causal
    assert not cost("", "classifier(classes = 3)").causal


def test_a_classifier_multiplies_one_position_a_sequence() -> None:
    wide = cost("", "classifier(classes = 3)")
    assert wide.total_flops(Work(9, 4)) == wide.total_flops(Work(1, 4)) == 2 * 4 * 16 * 3


def test_activations_grow_with_tokens_and_width() -> None:
    small, wide = cost("linear"), cost("linear(dim = 64)")
    assert small.activation_bytes(20, 3) == 60 * small.activation_bytes(1, 1)
    assert wide.activation_bytes(20) > small.activation_bytes(20)
    assert small.activation_bytes(20, dtype="bfloat16") == small.activation_bytes(20) // 2


def test_flops_of_pytorchs_cpu_attention_are_counted() -> None:
    """Importing the compiler teaches PyTorch's counter its own CPU kernel."""
    q = torch.zeros(2, 4, 10, 8)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert counter.get_total_flops() == 4 * 2 * 4 * 10 * 10 * 8
