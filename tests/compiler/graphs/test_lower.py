"""Lowering: names that follow the text, one region for equal layers, types along every edge."""

from __future__ import annotations

import pytest
import torch
from blocks.written import arch, built


def names(body: str) -> list[str]:
    return list(built(body).state_dict())


def test_weights_are_named_as_the_text_names_layers() -> None:
    body = """embed(dim = 8, vocab = 5)
        stack(depth = 2) { residual { rms_norm attention(heads = 2) } residual { swiglu } }
        rms_norm
        lm_head"""
    found = names(body)
    assert found[0] == "embed.weight"
    assert "stack.0.residual.rms_norm.weight" in found
    assert "stack.1.residual.attention.query.weight" in found
    assert "stack.1.residual_1.swiglu.down.weight" in found
    assert found[-2:] == ["rms_norm.weight", "lm_head.weight"]


def test_a_named_mixer_goes_by_its_own_name() -> None:
    assert "gla.query.weight" in names("embed(dim = 8, vocab = 5) gla(heads = 2) lm_head")


def test_equal_neighbours_are_numbered() -> None:
    assert names("embed(dim = 8, vocab = 5) linear linear linear lm_head")[1:4] == [
        "linear.weight",
        "linear_1.weight",
        "linear_2.weight",
    ]


def test_equal_layers_share_one_region() -> None:
    graph = arch(
        "embed(dim = 8, vocab = 5) stack(depth = 6, ratio = 2:1) { a: mlp b: swiglu } lm_head"
    ).graph
    stack = graph["stack"]
    assert len(stack.regions) == 2
    assert stack.op.weights(2) == (0, 0, 1, 0, 0, 1)


WIDTHS = {
    "repeat(times = 1) { linear(dim = 24) }": 24,
    "linear(dim = 24) repeat(times = 2) { linear }": 24,
    "parallel(mix = concat) { linear linear(dim = 8) }": 24,
    "parallel { repeat(times = 1) { linear(dim = 24) } gru(width = 24) }": 24,
    "repeat(times = 1) { repeat(times = 1) { linear(dim = 8) conv(kernel = 2) } linear(dim = 24) }": 24,
    "cell(state = [h], output = h, width = 24) { h = tanh(linear(x, h)) }": 24,
}  # fmt: skip


@pytest.mark.parametrize("layers", WIDTHS)
def test_the_width_behind_a_layer_is_what_the_next_one_takes(layers: str) -> None:
    body = f"embed(dim = 16, vocab = 5) {layers} rms_norm lm_head"
    graph = arch(body).graph
    graph.verify()
    assert graph["rms_norm"].inputs[0].type.width == WIDTHS[layers]
    assert built(body)(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3, 5)


def test_every_graph_is_valid_before_any_pass() -> None:
    body = "embed(dim = 8, vocab = 5) parallel { gla(heads = 2) kda(heads = 2) hgrn lstm } lm_head"
    graph = arch(body).graph
    graph.verify()
    [parallel] = [node for node in graph.nodes() if node.regions]
    assert [region.output.type.width for region in parallel.regions] == [8, 8, 8, 8]
