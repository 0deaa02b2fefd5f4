"""Two spellings of one architecture hash alike; two architectures do not."""

from __future__ import annotations

import pytest
from blocks.written import arch

from archdsl.compiler.graphs.canonical import canonical_text


def hash_of(layers: str) -> str:
    return arch(f"embed(dim = 16, vocab = 11) {layers} rms_norm lm_head").hash


A, B = "residual { rms_norm gla(heads = 2) }", "residual { rms_norm attention(heads = 2) }"
LABELLED = f"{{ a: {A} b: {B} }}"

SAME = {
    "ratio and cycle": (
        f"stack(depth = 4, ratio = 3:1) {LABELLED}",
        f"stack(depth = 4, cycle = [a, a, a, b]) {LABELLED}",
    ),
    "ratio and pattern": (
        f"stack(depth = 4, ratio = 3:1) {LABELLED}",
        f'stack(depth = 4, pattern = "AAAB") {LABELLED}',
    ),
    "pattern and indices": (
        f'stack(depth = 4, pattern = "ABAA") {LABELLED}',
        f"stack(depth = 4, at = [1]) {LABELLED}",
    ),
    "a period and its repetition": (
        f'stack(depth = 6, pattern = "AB") {LABELLED}',
        f'stack(depth = 6, pattern = "ABABAB") {LABELLED}',
    ),
    "a stack and the same written out": (
        f"stack(depth = 4, ratio = 3:1) {LABELLED}",
        f"{A} {A} {A} {B}",
    ),
    "a repetition and a stack": (f"repeat(times = 3) {{ {A} }}", f"stack(depth = 3) {{ {A} }}"),
    "repetitions inside repetitions": (
        f"repeat(times = 2) {{ repeat(times = 2) {{ {A} }} }}",
        f"repeat(times = 4) {{ {A} }}",
    ),
    "a body repeated and written out": (
        f"repeat(times = 2) {{ {A} {B} }}",
        f"{A} {B} {A} {B}",
    ),
    "a repetition inside a branch": (
        "residual { repeat(times = 2) { mlp } }",
        "residual { mlp mlp }",
    ),
    "labels": (
        f"stack(depth = 4, ratio = 3:1) {LABELLED}",
        f"stack(depth = 4, ratio = 3:1) {{ linear: {A} full: {B} }}",
    ),
    "a named mixer and its definition": (
        "deltanet(heads = 2, beta_max = 2)",
        "miras(matrix(heads = 2), bias = l2, learner = gd(rate = token, beta_max = 2), "
        "query = l2_norm, key = l2_norm, conv = 4)",
    ),
    "a rounded width and the whole one": ("swiglu(expand = 8/3)", "swiglu(expand = 3)"),
    "a default and the same said": (
        "attention(heads = 2)",
        "attention(heads = 2, kv_heads = 2, head_dim = 8, base = 10000, causal = true)",
    ),
    "positional and named": ("conv(4)", "conv(kernel = 4)"),
    "a fraction and its decimal": ("mlp(expand = 5/2)", "mlp(expand = 2.5)"),
    "an expansion and the size it gives": (
        "miras(matrix(heads = 2, expand_k = 1/2))",
        "miras(matrix(heads = 2, key_dim = 4))",
    ),
}

BASE = {
    "conv": "conv(kernel = 4)",
    "attention": "attention(heads = 4)",
    "gla": "gla(heads = 2)",
    "delta": "gated_deltanet(heads = 2, expand_k = 1, expand_v = 1)",
    "swiglu": "swiglu",
    "mlp": "mlp",
    "residual": "residual { mlp }",
    "parallel": "parallel { mlp linear }",
    "stack": f"stack(depth = 4, ratio = 3:1) {LABELLED}",
    "cell": "cell(state = [h], output = h) { h = tanh(linear(x, h)) }",
    "hgrn": "hgrn",
    "norm": "rms_norm",
}

CHANGES = {
    "conv": [
        "conv(kernel = 5)",
        "conv(kernel = 4, dilation = 2)",
        "conv(kernel = 4, activation = silu)",
        "conv(kernel = 4, bias = true)",
        "conv(kernel = 5, causal = false)",
    ],
    "attention": [
        "attention(heads = 2)",
        "attention(heads = 4, kv_heads = 2)",
        "attention(heads = 4, head_dim = 8)",
        "attention(heads = 4, position = rope)",
        "attention(heads = 4, position = alibi)",
        "attention(heads = 4, position = rope, base = 500)",
        "attention(heads = 4, window = 8)",
        "attention(heads = 4, causal = false)",
        "attention(heads = 4, qk_norm = true)",
        "attention(heads = 4, bias = true)",
    ],
    "gla": [
        "gla(heads = 4)",
        "gla(heads = 2, expand_k = 1)",
        "gla(heads = 2, expand_v = 2)",
        "gla(heads = 2, conv = 4)",
        "gla(heads = 2, gate = sigmoid)",
        "gla(heads = 2, gate = none)",
        "gla(heads = 2, rank = 8)",
        "retnet(heads = 2)",
    ],
    "delta": [
        "gated_deltanet(heads = 2, expand_k = 1, expand_v = 1, beta_max = 2)",
        "gated_deltanet(heads = 2, expand_k = 1, expand_v = 1, conv = 3)",
        "deltanet(heads = 2, gate = silu)",
        "kda(heads = 2)",
    ],
    "swiglu": ["swiglu(expand = 2)", "swiglu(activation = gelu)", "swiglu(bias = true)", "mlp"],
    "mlp": ["mlp(expand = 2)", "mlp(activation = relu)", "mlp(bias = true)", "mlp mlp"],
    "residual": [
        "mlp",
        "residual { mlp mlp }",
        "residual { rms_norm mlp }",
        "residual { mlp rms_norm }",
        "residual(scale = 0.5) { mlp }",
        "residual(scale = learned) { mlp }",
        "residual { residual { mlp } }",
    ],
    "parallel": [
        "parallel { linear mlp }",
        "parallel(mix = mean) { mlp linear }",
        "parallel(mix = gate) { mlp linear }",
        "parallel(mix = concat) { mlp linear }",
        "parallel { mlp linear linear }",
        "parallel { mlp }",
        "mlp linear",
    ],
    "stack": [
        f"stack(depth = 8, ratio = 3:1) {LABELLED}",
        f"stack(depth = 4, ratio = 1:1) {LABELLED}",
        f"stack(depth = 4, ratio = 3:1, place = first) {LABELLED}",
        f"stack(depth = 4, ratio = 3:1, place = even) {LABELLED}",
        f"stack(depth = 4, at = [0, 2]) {LABELLED}",
    ],
    "cell": [
        "cell(state = [h], output = h) { h = sigmoid(linear(x, h)) }",
        "cell(state = [h], output = h) { h = tanh(linear(x, h, bias = false)) }",
        "cell(state = [h], output = h) { h = tanh(linear(x) + linear(h)) }",
        "cell(state = [h], output = h, heads = 2) { h = tanh(linear(x, h)) }",
        "cell(state = [h], output = h, width = 8) { h = tanh(linear(x, h)) } linear(dim = 16)",
        "cell(state = [h], output = y) { h = tanh(linear(x, h)) y = linear(h) }",
        "cell(state = [h], output = h) { h = tanh(linear(x) + linear(h, diagonal = true)) }",
    ],
    "hgrn": ["hgrn(expand = 2)", "hgrn(lower = 0.5)", "hgrn(conv = 4)"],
    "norm": ["rms_norm(eps = 1e-5)", "rms_norm(bias = true)", "layer_norm", "rms_norm rms_norm"],
}

PAIRS = [(kind, change) for kind, changes in CHANGES.items() for change in changes]


@pytest.mark.parametrize("case", SAME)
def test_hashes_alike(case: str) -> None:
    left, right = SAME[case]
    assert hash_of(left) == hash_of(right)


@pytest.mark.parametrize(("kind", "change"), PAIRS, ids=[change for _, change in PAIRS])
def test_any_change_changes_the_hash(kind: str, change: str) -> None:
    assert hash_of(BASE[kind]) != hash_of(change)


def test_no_two_of_all_these_architectures_collide() -> None:
    texts = {*BASE.values(), *(change for _, change in PAIRS)}
    assert len({hash_of(text) for text in texts}) == len(texts)


def test_two_states_are_not_one() -> None:
    one = "cell(state = [h], output = h) { c = linear(x) h = h / 2 + c }"
    two = "cell(state = [h, c], output = h) { c = linear(x) h = h / 2 + c }"
    assert hash_of(one) != hash_of(two)


HEADS = [
    "embed(dim = 8, vocab = 11) lm_head",
    "embed(dim = 8, vocab = 12) lm_head",
    "embed(dim = 16, vocab = 11) lm_head",
    "embed(dim = 8, vocab = 11) lm_head(tied = true)",
    "embed(dim = 8, vocab = 11) lm_head(bias = true)",
    "embed(dim = 8, vocab = 11, position = sinusoidal) lm_head",
    "embed(dim = 8, vocab = 11, position = learned) lm_head",
    "embed(dim = 8, vocab = 11, position = learned, positions = 99) lm_head",
    "embed(dim = 8, vocab = 11) classifier(classes = 11)",
    "embed(dim = 8, vocab = 11) classifier(classes = 11, pool = mean)",
    "embed(dim = 8, vocab = 11) classifier(classes = 11, bias = false)",
    "embed(dim = 8, vocab = 11) classifier(classes = 7)",
]


def test_tables_and_heads_count() -> None:
    assert len({arch(text).hash for text in HEADS}) == len(HEADS)


def test_positions_without_a_table_do_not_count() -> None:
    left = arch("embed(dim = 8, vocab = 11, positions = 9) lm_head")
    assert left.hash == arch("embed(dim = 8, vocab = 11) lm_head").hash


def test_the_canonical_text_has_neither_names_nor_labels() -> None:
    text = canonical_text(arch(f"embed(dim = 16, vocab = 11) {SAME['labels'][1]} lm_head").graph)
    assert not any(word in text for word in ("full", "embed.", "stack", "miras"))


def test_a_model_of_the_closed_text_hashes_alike() -> None:
    import archdsl

    for layers in [text for pair in SAME.values() for text in pair]:
        found = arch(f"embed(dim = 16, vocab = 11) {layers} rms_norm lm_head")
        assert archdsl.loads(found.text).sample(0).hash == found.hash
