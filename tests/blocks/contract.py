"""Who joins the contract suite of ``test_contract``: one line a subject, in the language's spelling.

A layer or mixer that is added to the language adds a line here and inherits every test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from blocks.written import built
from torch import Tensor

from archdsl.compiler.models.model import Model

SYMBOLS = 11


@dataclass(frozen=True)
class Subject:
    """A layer as it is written, and what it promises.

    Args:
        layer: the text.
        causal: whether it says so, and so decodes.
        compiled: tokens on which it is also tried under ``torch.compile``, none if 0. It is slow, so few are
            tried; a cell's graph has every token's step in it, so cells are tried on few tokens.
        passes: how often a signal goes through the layer's own nonlinearity along the sequence: once a
            chunk for a memory that learns, whose rounding errors add up as those of so many layers do.
    """

    layer: str
    causal: bool = True
    compiled: int = 0
    passes: int = 1

    def text(self) -> str:
        """A model of this layer between a table and a head."""
        return f"embed(dim = 16, vocab = {SYMBOLS}) {self.layer} rms_norm lm_head"

    def model(self, **how: Any) -> Model:
        """The model, freshly compiled."""
        return built(self.text(), **how)

    def __str__(self) -> str:
        return " ".join(self.layer.split())


SUBJECTS = [
    # dense
    Subject("rms_norm"),
    Subject("layer_norm"),
    Subject("linear(dim = 24, bias = true)"),
    Subject("activation(gelu)"),
    Subject("swiglu", compiled=20),
    Subject("swiglu(expand = 3, activation = relu2, bias = true)"),
    Subject("mlp(expand = 2, activation = silu, bias = true)"),
    # convolutions
    Subject("conv(kernel = 4, activation = silu)"),
    Subject("conv(kernel = 3, dilation = 4, bias = true)"),
    Subject("conv(kernel = 1)"),
    Subject("conv(kernel = 5, causal = false)", causal=False),
    # attention
    Subject("attention(heads = 2)"),
    Subject("attention(heads = 4, kv_heads = 2, position = rope, qk_norm = true)"),
    Subject("attention(heads = 2, position = alibi, bias = true)"),
    Subject("attention(heads = 3, head_dim = 6, position = alibi, window = 9)"),
    Subject("attention(heads = 2, position = rope, window = 5)", compiled=20),
    Subject("attention(heads = 2, window = 1)"),
    Subject("attention(heads = 2, kv_heads = 1, position = rope, rotary = 1/2, bias = query_key,"
            " gate = sigmoid)", compiled=20),
    Subject("attention(heads = 2, causal = false, position = rope)", causal=False),
    Subject("attention(heads = 2, causal = false, window = 4)", causal=False),
    Subject("attention(heads = 2, product = weighted, bias = true)"),
    Subject("attention(heads = 2, position = relative, bias = true)", compiled=20),
    Subject("attention(heads = 4, kv_heads = 2, position = relative, window = 5)"),
    Subject("attention(heads = 2, position = relative, causal = false)", causal=False),
    Subject("latent_attention(heads = 2, position = rope)", compiled=20),
    Subject("latent_attention(heads = 3, latent = 7, query_latent = 5, head_dim = 4, value_dim = 9,"
            " shared_dim = 3, window = 9)"),
    Subject("latent_attention(heads = 2, causal = false)", causal=False),
    Subject("span_attention(heads = 2, kernel = 3, bias = true)"),
    Subject("span_attention(heads = 4, kernel = 5, causal = false)", causal=False, compiled=20),
    Subject("fourier(heads = 2)", causal=False, compiled=20),
    Subject("fourier(form = dct, unitary = true)", causal=False),
    # named mixers
    Subject("linear_attention(heads = 2)"),
    Subject("linear_attention(heads = 4, feature = none, conv = 3)"),
    Subject("retnet(heads = 2)"),
    Subject("gla(heads = 2)", compiled=20),
    Subject("gla(heads = 4, conv = 4, gate = sigmoid, rank = 3)"),
    Subject("mamba2(heads = 4, state = 8)"),
    Subject("mamba2(heads = 4, state = 8, groups = 2)"),
    Subject("hgrn", compiled=20),
    Subject("hgrn(expand = 3/2, conv = 4, lower = 0.9)"),
    Subject("hgrn2(heads = 2)"),
    Subject("hgrn2(heads = 4, conv = 2, lower = 0.5, gate = silu)"),
    Subject("deltanet(heads = 2)"),
    Subject("deltanet(heads = 4, beta_max = 2, gate = silu)"),
    Subject("gated_deltanet(heads = 2, expand_k = 1)", compiled=20),
    Subject("kda(heads = 2, rank = 4)"),
    Subject("deltaproduct(heads = 2, expand_k = 1)"),
    Subject("deltaproduct(heads = 2, householders = 3, expand_k = 1/2, retention = none)"),
    Subject("comba(heads = 2, expand_k = 1)"),
    Subject("mlstm(heads = 2)"),
    Subject("lightnet(heads = 2, rank = 3)"),
    Subject("rwkv6(heads = 2, shift_rank = 3, rank = 4)", compiled=20),
    Subject("rwkv7(heads = 2)", compiled=20),
    Subject("repeat(times = 2) { rms_norm rwkv7(heads = 2, value_rank = 2) }"),
    Subject("rg_lru(heads = 2)"),
    Subject("mamba(states = 3, rank = 2)", compiled=20),
    Subject("lru", compiled=20),
    Subject("s5"),
    Subject("s4d(states = 2)"),
    Subject("gateloop", compiled=6),
    Subject("min_lstm"),
    # points of the Miras space without a name
    Subject("miras(matrix(heads = 2), bias = l2, key = l2_norm, retention = decay(constant))"),
    Subject("miras(matrix(heads = 2), bias = l2, learner = gd(rate = head, beta_max = 2), key = softmax)"),
    Subject("miras(matrix(heads = 2), bias = l2, key = l2_norm, norm = layer, norm_over = width)"),
    Subject("miras(matrix(heads = 2), learner = gd(rate = token), query = softmax, norm = none)"),
    Subject("miras(matrix(heads = 4, key_dim = 3, value_dim = 5, key_heads = 2), retention = decay(head))"),
    Subject("miras(matrix(heads = 2), normaliser = sum, feature = elu1, retention = decay(head))"),
    Subject("miras(vector, key = sigmoid, value = tanh)"),
    Subject("miras(vector(expand = 2), retention = decay(constant), gate = sigmoid, gate_rank = 3)"),
    Subject("miras(vector, retention = decay(head), conv = 2, skip = false)"),
    # memories that learn at test time
    Subject("ttt_linear(heads = 2, chunk = 8)", passes=9),
    Subject("titans(heads = 2, chunk = 8, expand = 2)", compiled=20, passes=9),
    Subject("atlas(heads = 4, chunk = 4, window = 3, expand = 1)", passes=18),
    Subject("lattice(heads = 2, count = 3)", passes=18),
    Subject("titans_mac(heads = 2, segment = 8, expand = 2)", passes=9),
    Subject("persistent_attention(heads = 2, window = 5, persistent = 3)"),
    Subject("miras(matrix(heads = 2), bias = huber, key = l2_norm, retention = elastic_net)", passes=70),
    Subject("miras(matrix(heads = 2), bias = l2, retention = decay(head), learner = closed_form, scale = 1)"),
    Subject(
        "miras(mlp(heads = 2), bias = kl, value = softmax,"
        " learner = gd(rate = head, chunk = 6, steps = 2))",
        passes=24,
    ),
    # cells
    Subject("min_gru"),
    Subject("gru"),
    Subject("gru(width = 24, heads = 4)"),
    Subject("lstm(heads = 2)", compiled=6),
    Subject("cell(state = [c], output = h, conv = 3) { c = sigmoid(linear(x_conv)) * c + linear(x)"
            " h = tanh(linear(c)) * x_conv }"),
    Subject("cell(state = [c], output = h) { c = 0.9 * c + linear(x) h = tanh(linear(c)) * x }"),
    Subject("cell(state = [h], output = h, heads = 2) { h = tanh(linear(x, sigmoid(linear(h)) * h)) }"),
    Subject("cell(state = [h], output = h) { h = relu(linear(x) + linear(h, diagonal = true)) / 2 }"),
    # routed
    Subject("mom(memories = 3, top = 2) { gated_deltanet(heads = 2) }", compiled=20),
    Subject("mom(memories = 2, top = 1) { lightnet(heads = 2, rank = 4) }", compiled=20),
    Subject("mom(memories = 4, top = 1, shared = false, projections = shared, weights = probability,"
            " neighbours = routed, capacity = 1) { gla(heads = 2, conv = 3) }"),
    Subject("repeat(2) { residual { mom(memories = 3, top = 2, router = recurrent, router_rank = 8,"
            " idle = decay, z_loss = 0.01) { gla(heads = 2, conv = 3) } } }"),
    Subject("mom(memories = 3, top = 2) { slstm(heads = 2) }"),
    Subject("mom(memories = 3, top = 2) { gru }", compiled=6),
    Subject("mom(memories = 3, top = 2, capacity = 1) { titans(heads = 2, chunk = 6) }", passes=7),
    Subject("mom(memories = 3, top = 2) { omeganet(heads = 2, chunk = 6, window = 3) }",
            compiled=8, passes=7),
    Subject("mom(memories = 3, top = 1, projections = shared) { ttt_linear(heads = 2, chunk = 5) lattice }",
            passes=24),
    Subject("mom(memories = 2, top = 1, idle = decay) { miras(mlp(heads = 2), bias = l2,"
            " retention = decay(per = channel), learner = momentum(chunk = 6)) }", passes=7),
    Subject("mom(memories = 3, top = 2, neighbours = routed) { slstm(heads = 2, conv = 3) }"),
    Subject("mom(memories = 3, top = 2) { slstm(heads = 2, conv = 3) }"),
    Subject("mom(memories = 3, top = 2, idle = decay) { repeat(2) { gla(heads = 2) swiglu } }"),
    Subject("moe(experts = 4, top = 2, shared = 1) { swiglu }", compiled=20),
    Subject("moe(experts = 4, top = 2, shared = 1, shared_gate = true, score = sigmoid, scale = 2,"
            " balance_bias = 0.001) { swiglu }"),
    Subject("moe(experts = 3, top = 1, weights = probability, z_loss = 0.01) { linear }"),
    Subject("repeat(2) { residual { moe(experts = 4, top = 2, router = recurrent, router_rank = 8)"
            " { mlp(bias = true) } } }"),
    # containers
    Subject("residual(scale = 0.5) { rms_norm gla(heads = 2) rms_norm }"),
    Subject("residual(scale = learned) { swiglu }"),
    Subject("repeat(times = 3) { residual { rms_norm deltanet(heads = 2) } swiglu }"),
    Subject("parallel { attention(heads = 2) gla(heads = 2) }", compiled=20),
    Subject("parallel(mix = mean) { conv(kernel = 2) min_gru linear }"),
    Subject("parallel(mix = gate) { swiglu hgrn }"),
    Subject("parallel(mix = product) { min_gru token_shift }"),
    Subject("gated(expand = 3/2, conv = 2) { min_gru swiglu }"),
    Subject("parallel(mix = concat) { gru(width = 8) swiglu linear(dim = 4) }"),
    Subject("stack(depth = 3) { residual { rms_norm attention(heads = 2, window = 3) } }"),
    Subject("stack(depth = 5, ratio = 2:1) { a: residual { gla(heads = 2) } b: residual { lstm } }"),
    Subject("stack(depth = 4, at = [1]) { a: residual { mlp } b: conv(kernel = 3) }"),
    Subject("stack(depth = 4, cycle = [a, b], tied = [b], adapter = 2)"
            " { a: residual { rms_norm gla(heads = 2) } b: residual { rms_norm attention(heads = 2) } }"),
    # depth
    Subject("slstm(heads = 2)"),
    Subject("slstm(heads = 2, conv = 3)", compiled=6),
    Subject("mlstm_block(heads = 2)", compiled=20),
    Subject("rms_norm(heads = 2) layer_norm(heads = 4, bias = false)"),
    Subject("loop(3) { residual { rms_norm attention(heads = 2) } swiglu }"),
    Subject("loop(3, inject = concat, init = noise, backprop = 2) { residual { rms_norm gla(heads = 2) } }",
            compiled=20),
    Subject("loop(poisson(2), inject = gate, init = learned) { residual { rms_norm lstm } }"),
    Subject("loop(uniform(1, 3), inject = add, init = zeros, curriculum = 4) { residual { rms_norm hgrn } }"),
    Subject("loop(2, adapter = 3) { rms_norm residual { attention(heads = 2) } residual { swiglu } }"),
    Subject("loop(3, halt = act, signal = sinusoidal) { residual { rms_norm attention(heads = 2) } }",
            compiled=20),
    Subject("loop(3, halt = act) { residual { rms_norm latent_attention(heads = 2, window = 5) } }"),
    Subject("loop(3, halt = act(combine = mean, epsilon = 1/4)) { residual { rms_norm hgrn2(heads = 2) } }"),
    Subject("loop([2, 1]) { residual { rms_norm attention(heads = 2, window = 5) }"
            " residual { rms_norm mlp } }"),
    Subject("loop(2, chain = [1, 0, 0]) { residual { rms_norm mamba2(heads = 2, state = 4) }"
            " residual { rms_norm swiglu } }"),
    Subject("loop([2, 1], adapter = 2, inject = concat, signal = sinusoidal)"
            " { residual { rms_norm gla(heads = 2) } residual { rms_norm swiglu } }"),
    Subject("loop(2, inject = add, backprop = 1, curriculum = 3, curve = sqrt)"
            " { residual { mom(memories = 3, top = 1, projections = shared) { hgrn } } }"),
    Subject("scaled_init(branches = 4) { residual { rms_norm mom(memories = 2, top = 1) { gla(heads = 2) } }"
            " loop(2, inject = concat) { residual { rms_norm moe(experts = 2, top = 1) { mlp } } } }"),
    Subject("skip { residual { rms_norm attention(heads = 2) } } skip { gla(heads = 2) }"),
    # residual streams
    Subject("residual(scale = learned, start = 0.5) { attention(heads = 2, value_residual = learned) }"
            " residual { attention(heads = 2, value_residual = half) }"),
    Subject("hyper(streams = 3) { residual(scale = 1/2) { rms_norm gla(heads = 2) } residual { swiglu } }"),
    Subject("hyper(streams = 2, dynamic = false, reduce = sum) {"
            " loop(2, inject = concat, halt = act) { residual(scale = learned) { attention(heads = 2) } } }"),
    Subject("mhc(streams = 3, rounds = 4) { repeat(2) { residual { rms_norm attention(heads = 2) } } }",
            compiled=20),
    Subject("hyper(streams = 2, tanh = true) { residual { mom(memories = 3, top = 2) { mamba2(heads = 2) } }"
            " residual { rms_norm moe(experts = 2, top = 1) { mlp } } }"),
    Subject("mhc(streams = 2, dynamic = false) { residual { rms_norm gru } residual { swiglu } }"),
]  # fmt: skip

DECODERS = [subject for subject in SUBJECTS if subject.causal]


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    """Random tokens ``[B, T]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(SYMBOLS, (batch, length), generator=generator)
