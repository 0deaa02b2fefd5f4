"""Released models, said in the language, have exactly the parameters of the released weights.

A count is the sum of all tensors that the published code makes for the published configuration, added up
by hand; nothing here is built.
"""

from __future__ import annotations

import pytest

import archdsl

BLOCK = "def block(mixer, channel) { residual { rms_norm  mixer } residual { rms_norm  channel } }"

JAMBA = """
let memory = mamba(states = 16, rank = 256, norm = true)
let full = attention(heads = 32, kv_heads = 8)
let dense = swiglu(expand = 7/2)
let experts = moe(experts = 16, top = 2, weights = probability) { dense }

model {
    embed(dim = 4096, vocab = 65536)
    stack(depth = 32, cycle = [m, e, m, e, a, e, m, e]) {
        m: block(memory, dense)
        e: block(memory, experts)
        a: block(full, dense)
    }
    rms_norm
    lm_head
}
"""

QWEN3_NEXT = """
let experts = moe(experts = 512, top = 10, shared = 1, shared_gate = true) { swiglu(expand = 1/4) }
let linear = gated_deltanet(heads = 32, expand_k = 2, expand_v = 2, key_heads = 16)
let full = attention(
    heads = 16, kv_heads = 2, head_dim = 256, position = rope, rotary = 1/4, qk_norm = true, gate = sigmoid
)

model {
    embed(dim = 2048, vocab = 151936)
    stack(depth = 48, ratio = 3:1) {
        linear: block(linear, experts)
        full: block(full, experts)
    }
    rms_norm
    lm_head
}
"""

KIMI_LINEAR = """
let memory = kda(heads = 32, expand_k = 16/9, expand_v = 16/9, rank = 128, gate_bias = false)
let full = latent_attention(heads = 32, latent = 512, head_dim = 128, shared_dim = 64)
let experts = moe(
    experts = 256, top = 8, shared = 1, score = sigmoid, scale = 2.446, balance_bias = 0.001
) { swiglu(expand = 4/9) }

model {
    embed(dim = 2304, vocab = 163840)
    stack(depth = 27, cycle = [first, linear, linear, full, linear, linear, linear, full,
        linear, linear, linear, full, linear, linear, linear, full, linear, linear, linear, full,
        linear, linear, linear, full, linear, linear, full]) {
        first: block(memory, swiglu(expand = 4))
        linear: block(memory, experts)
        full: block(full, experts)
    }
    rms_norm
    lm_head
}
"""

NEMOTRON_H = """
def layer(mixer) { residual { rms_norm  mixer } }

model {
    embed(dim = 4096, vocab = 131072)
    stack(depth = 52, pattern = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-") {
        mamba: layer(mamba2(heads = 128, state = 128, groups = 8))
        mlp: layer(mlp(expand = 21/4, activation = relu2))
        attention: layer(attention(heads = 32, kv_heads = 8))
    }
    rms_norm
    lm_head
}
"""

XLSTM = """
model {
    embed(dim = 4096, vocab = 50304)
    stack(depth = 32) { block(mlstm(heads = 8), swiglu(expand = 171/64)) }
    rms_norm
    lm_head(cap = 30)
}
"""

HUGINN = """
def layer() {
    residual { rms_norm  attention(heads = 55, position = rope, base = 50000, bias = query_key) }
    rms_norm
    residual { rms_norm  swiglu(expand = 112/33) }
    rms_norm
}

model {
    embed(dim = 5280, vocab = 65536, scale = root, variance = 2/5)
    scaled_init(branches = 264) {
        stack(depth = 2) { layer }
        loop(poisson(32), inject = concat, init = noise, backprop = 8) { stack(depth = 4) { layer } }
        loop(1, chain = [0, 1, 0]) { rms_norm  stack(depth = 2) { layer } }
    }
    lm_head(tied = true)
}
"""

RELEASED = {
    "ai21labs/Jamba-v0.1": (JAMBA, 51_570_323_328),
    # Without its module for the prediction of further tokens.
    "Qwen/Qwen3-Next-80B-A3B-Instruct": (QWEN3_NEXT, 79_674_391_296),
    "moonshotai/Kimi-Linear-48B-A3B-Instruct": (KIMI_LINEAR, 49_122_681_728),
    "nvidia/Nemotron-H-8B-Base-8K": (NEMOTRON_H, 8_100_852_736),
    "NX-AI/xLSTM-7b": (XLSTM, 6_865_424_896),
    "tomg-group-umd/huginn-0125": (HUGINN, 3_564_976_800),
}


@pytest.mark.parametrize("name", RELEASED)
def test_it_has_the_released_parameters(name: str) -> None:
    text, count = RELEASED[name]
    assert archdsl.loads(BLOCK + text).sample(0).cost.params == count
