"""The words the named mixers are said in: what they mean together, and what they refuse to mean."""

from __future__ import annotations

import pytest
import torch
from blocks.written import arch, built, complaints
from tolerances import EXACT, assert_close

import archdsl
from archdsl.compiler.graphs.passes import run

RECOGNISED = {
    "min_lstm": "this cell is a scan",
    "lru": "the parts of a complex one",
    "s4d": "the parts of a complex one",
    "gateloop": "the parts of a complex one",
    "rg_lru": "this cell is a scan",
    "mamba": "this cell is a scan",
    "deltaproduct": "this is Gated DeltaProduct: 2 steps",
    "deltaproduct(retention = none)": "this is DeltaProduct",
    "comba": "as in Comba",
    "mlstm": "as in xLSTM",
    "lightnet": "gated linear attention",
    "rwkv6": "as in RWKV-6",
    "rwkv7": "as in RWKV-7",
}

POINTS = [
    "miras(matrix(heads = 4, key_heads = 2), bias = l2(feedback = learned), position = rope,"
    " learner = gd(steps = 3, rate = head), shift = static)",
    "miras(vector, retention = running_softmax, skip = true, shift = dynamic, shift_rank = 2)",
    "miras(matrix(heads = 2), retention = running_softmax, bias = l2, correction = true)",
    "miras(matrix(heads = 4, key_heads = 2), bias = l2, learner = gd(rate = channel, rank = 3),"
    " retention = decay(per = head), bonus = after_norm)",
    "miras(matrix(heads = 2), read = before, retention = decay(per = constant), skip = true)",
    "miras(matrix(heads = 2), retention = decay(per = head, form = bounded, lower = 0.5, rank = 3))",
    "miras(matrix(heads = 2), normaliser = max, learner = gd(rate = exponential),"
    " retention = decay(per = head), value_residual = 3, gate = linear, gate_rank = 2)",
    "cell(state = [h], output = y, copies = 3) { r = parameter(log(uniform(0.1, 1)), copies = true)"
    " h = exp(-exp(r)) * h + linear(x, rank = 2, init = uniform) * linear(x, copies = true)"
    " y = sum(h * r) }",
    "cell(state = [u, w], output = u) { b = 0.3 * sigmoid(linear(x)) n = 0.5 * u - b * w + x"
    " w = b * u + 0.5 * w u = n }",
    "cell(state = [h, s], output = y, copies = 2) { s = tanh(s + linear(x, sum(h), bias = false))"
    " h = s * linear(x, copies = true) y = norm(sum(h)) }",
    "cell(state = [h], output = h, heads = 2) { h = tanh(linear(x, h, norm = true)"
    " + linear(h, rank = 3, norm = true, bias = false)) }",
]

REFUSED = {
    "miras(vector, read = before)": "vector-read",
    "miras(matrix(heads = 2), read = before, bias = l2)": "read-before",
    "miras(matrix(heads = 2), bonus = before_norm)": "bonus-without-read",
    "miras(matrix(heads = 2), learner = gd(rate = channel))": "channel-rate",
    "miras(matrix(heads = 2), bias = l2, learner = gd(rate = token, start = zigzag))": "channel-rate",
    "miras(matrix(heads = 2), learner = gd(steps = 2))": "steps-bias",
    "miras(matrix(heads = 2), bias = l2, learner = gd(steps = 2), skip = true)": "steps-once",
    "miras(matrix(heads = 2), normaliser = max)": "exponential-rate",
    "miras(matrix(heads = 2), retention = running_softmax, key = silu)": "tied-key",
    "miras(matrix(heads = 2), retention = decay(form = bounded))": "empty-bounds",
    "miras(matrix(heads = 2), retention = decay(lower = learned))": "learned-bound",
    "cell(state = [h], output = h) { h = h + uniform(0, 1) }": "draw-outside-parameter",
    "cell(state = [h], output = h) { h = h + parameter(linear(x)) }": "start-from-input",
    "cell(state = [h], output = h) { h = h + sum(x) }": "no-copies",
    "cell(state = [h], output = h, copies = 2) { h = h + x }": "copies-not-summed",
    "cell(state = [h], output = h) { h = h + linear(parameter(1)) }": "linear-of-number",
    "cell(state = [h], output = h) { h = h + linear(x, blocks = true, rank = 2) }": "two-forms",
    "cell(state = [h], output = h) { h = h + linear(x, diagonal = true, norm = true) }": "two-forms",
    "cell(state = [h], output = h) { h = h + parameter(1, 2) }": "too-many-arguments",
    "gated(expand = 2) { linear(dim = 5) }": "width-changes",
}


@pytest.mark.parametrize("layer", RECOGNISED)
def test_it_says_what_it_recognised(layer: str) -> None:
    graph = run(arch(f"embed(dim = 16, vocab = 5) {layer} lm_head").graph)
    notes = " ".join(note for _, node in graph.walk() for note in node.notes)
    assert RECOGNISED[layer] in notes


@pytest.mark.parametrize("layer", POINTS)
def test_what_nobody_named_decodes_as_it_trains(layer: str) -> None:
    model = built(f"embed(dim = 8, vocab = 5) {layer} lm_head", dtype="float64")
    tokens = torch.randint(5, (2, 40), generator=torch.Generator().manual_seed(0))
    state, outputs = model.init_state(2), []
    for part in tokens.split([1, 1, 30, 8], 1):
        logits, state = model.prefill(part, state)
        outputs.append(logits)
    assert_close(torch.cat(outputs, 1), model(tokens), EXACT)
    assert model.state_bytes(state) == 2 * model.cost.state_bytes(40, "float64")
    assert sum(p.numel() for p in model.parameters()) == model.cost.params


@pytest.mark.parametrize("layer", REFUSED)
def test_it_refuses_what_means_nothing(layer: str) -> None:
    assert REFUSED[layer] in complaints(f"embed(dim = 8, vocab = 5) {layer} lm_head")


def test_a_choice_of_widths_reaches_the_layers_inside() -> None:
    text = "embed(dim = 8, vocab = 5) gated(expand = 1 | 2) { lstm(heads = 2) } lm_head"
    space = archdsl.loads(f"model {{ {text} }}")
    assert space.count() == 2
    found = {space.sample(seed).compile().cost.params for seed in range(12)}
    assert len(found) == 2
