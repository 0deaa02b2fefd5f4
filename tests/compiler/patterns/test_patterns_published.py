"""Configurations as they are published: their layers, their sizes, and their way through a file and back.

The keys are those of each model's ``config.json`` that say layers or sizes. Where little of the model is
simplified, the file that is written has as many parameters as its card says, within 2 %.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

import archdsl
from archdsl import Arch
from archdsl.compiler.patterns import arch_text, of_arch, read, sizes_of_arch, write

HYBRIDS = [6, 12, 18, 24, 30, 36, 42, 47, 51]
FULL = [4, 8, 12, 16, 20, 24, 27]


@dataclass(frozen=True)
class Published:
    """A configuration, how many layers of each kind it has, and what else is known of it.

    Args:
        config: the keys.
        layers: how many of each kind.
        parameters: billions, as the model is named, where little is simplified.
        forms: notations that say the same.
    """

    config: dict[str, Any]
    layers: dict[str, int]
    parameters: float | None = None
    forms: tuple[str, ...] = ()
    first: list[str] = field(default_factory=list)


def sized(model: str, depth: int, width: int, heads: int, kv_heads: int, inner: int, symbols: int,
          **keys: Any) -> dict[str, Any]:  # fmt: skip
    """The keys that nearly every configuration has."""
    return {
        "model_type": model, "num_hidden_layers": depth, "hidden_size": width, "vocab_size": symbols,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "intermediate_size": inner, **keys,
    }  # fmt: skip


MODELS = {
    "Nemotron-H 8B": Published(
        sized("nemotron_h", 52, 4096, 32, 8, 21504, 131072, head_dim=128,
              hybrid_override_pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"),
        {"mamba2": 24, "mlp": 24, "attention": 4}, forms=("megatron", "nemotron"),
    ),
    "Nemotron 3 Nano": Published(
        sized("nemotron_h", 52, 2688, 32, 2, 1856, 131072, head_dim=128, n_routed_experts=128,
              num_experts_per_tok=6, mtp_hybrid_override_pattern="*E",
              hybrid_override_pattern="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"),
        {"mamba2": 23, "moe": 23, "attention": 6}, forms=("megatron", "nemotron"),
    ),
    "Megatron-LM's example": Published(
        {"hybrid_layer_pattern": "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"},
        {"mamba2": 24, "mlp": 28, "attention": 4}, forms=("megatron", "nemotron"),
    ),
    "Jamba v0.1": Published(
        sized("jamba", 32, 4096, 32, 8, 14336, 65536, attn_layer_period=8, attn_layer_offset=4,
              expert_layer_period=2, expert_layer_offset=1, num_experts=16, num_experts_per_tok=2,
              sliding_window=None),
        {"mamba": 28, "attention": 4, "mlp": 16, "moe": 16}, parameters=52, forms=("jamba",),
    ),
    "Jamba v0.1, listed too": Published(
        sized("jamba", 32, 4096, 32, 8, 14336, 65536, attn_layer_period=8, attn_layer_offset=4,
              expert_layer_period=2, expert_layer_offset=1, num_experts=16, num_experts_per_tok=2,
              layers_block_type=["attention" if i % 8 == 4 else "mamba" for i in range(32)]),
        {"mamba": 28, "attention": 4, "mlp": 16, "moe": 16}, forms=("jamba",),
    ),
    "Qwen3-Next 80B": Published(
        sized("qwen3_next", 48, 2048, 16, 2, 5120, 151936, head_dim=256, full_attention_interval=4,
              num_experts=512, num_experts_per_tok=10, moe_intermediate_size=512, decoder_sparse_step=1,
              mlp_only_layers=[]),
        {"gated_deltanet": 36, "attention": 12, "moe": 48}, parameters=80, forms=("megatron", "layer-types"),
        first=["gated_deltanet", "moe", "gated_deltanet", "moe", "gated_deltanet", "moe", "attention"],
    ),
    "Qwen3.5": Published(
        {"model_type": "qwen3_5", "vision_config": {"hidden_size": 768},
         "text_config": sized("qwen3_5_text", 16, 1024, 8, 2, 3584, 1000, head_dim=256,
                              full_attention_interval=4,
                              layer_types=(["linear_attention"] * 3 + ["full_attention"]) * 4)},
        {"gated_deltanet": 12, "attention": 4, "mlp": 16}, forms=("layer-types", "fla"),
    ),
    "Kimi Linear 48B": Published(
        sized("kimi_linear", 27, 2304, 32, 32, 9216, 163840, head_dim=72, first_k_dense_replace=1,
              kv_lora_rank=512, num_experts=256, num_experts_per_token=8, moe_intermediate_size=1024,
              linear_attn_config={"full_attn_layers": FULL, "num_heads": 32,
                                  "kda_layers": [i for i in range(1, 28) if i not in FULL]}),
        {"kda": 20, "mla": 7, "mlp": 1, "moe": 26}, parameters=48, forms=("kimi",),
        first=["kda", "mlp", "kda", "moe", "kda", "moe", "mla", "moe"],
    ),
    "gpt-oss 20B": Published(
        sized("gpt_oss", 24, 2880, 64, 8, 2880, 201088, head_dim=64, num_local_experts=32,
              num_experts_per_tok=4, sliding_window=128,
              layer_types=["sliding_attention", "full_attention"] * 12),
        {"window_128": 12, "attention": 12, "moe": 24}, parameters=20.9, forms=("layer-types",),
    ),
    "MiniMax-Text-01": Published(
        sized("minimax", 80, 6144, 64, 8, 9216, 200064, head_dim=128, num_local_experts=32,
              num_experts_per_tok=2, attn_type_list=([0] * 7 + [1]) * 10),
        {"retnet": 70, "attention": 10, "moe": 80}, parameters=456, forms=("layer-types",),
    ),
    "Llama 4 Scout": Published(
        {"model_type": "llama4",
         "text_config": sized("llama4_text", 48, 5120, 40, 8, 8192, 202048, head_dim=128,
                              num_local_experts=16, num_experts_per_tok=1, attention_chunk_size=8192,
                              interleave_moe_layer_step=1,
                              layer_types=(["chunked_attention"] * 3 + ["full_attention"]) * 12)},
        {"window_8192": 36, "attention": 12, "moe": 48}, forms=("layer-types",),
    ),
    "Gemma 3 1B": Published(
        sized("gemma3_text", 26, 1152, 4, 1, 6912, 262144, head_dim=256, sliding_window=512,
              sliding_window_pattern=6),
        {"window_512": 22, "attention": 4, "mlp": 26}, forms=("layer-types", "fla"),
    ),
    "EXAONE 4": Published(
        {"sliding_window_pattern": "LLLG", "num_hidden_layers": 8, "sliding_window": 4096},
        {"window_4096": 6, "attention": 2, "mlp": 8}, forms=("layer-types",),
    ),
    "Zamba2 2.7B": Published(
        sized("zamba2", 54, 2560, 32, 32, 10240, 32000, adapter_rank=128, num_mem_blocks=2,
              hybrid_layer_ids=HYBRIDS,
              layers_block_type=["hybrid" if i in HYBRIDS else "mamba" for i in range(54)]),
        {"mamba2": 54, "shared_0": 5, "shared_1": 4}, forms=("zamba",),
    ),
    "Zamba 7B": Published(
        sized("zamba", 76, 3712, 16, 16, 14848, 32000, attn_layer_period=6, attn_layer_offset=4),
        {"mamba": 76, "shared_0": 13}, forms=("zamba",), first=["mamba", "mamba", "shared_0"],
    ),
    "Bamba 9B": Published(
        sized("bamba", 32, 4096, 32, 8, 14336, 128256, attn_layer_indices=[9, 18, 27]),
        {"mamba2": 29, "attention": 3, "mlp": 32}, parameters=9.78, forms=("megatron", "layer-types"),
    ),
    "Granite 4 Tiny's kind": Published(
        sized("granitemoehybrid", 40, 1536, 12, 4, 512, 100352, num_local_experts=64, num_experts_per_tok=6,
              layer_types=["attention" if i in (5, 15, 25, 35) else "mamba" for i in range(40)]),
        {"mamba2": 36, "attention": 4, "moe": 40}, forms=("megatron", "layer-types"),
    ),
    "LFM2 350M": Published(
        sized("lfm2", 16, 1024, 16, 8, 6656, 65536, full_attn_idxs=[2, 5, 8, 10, 12, 14]),
        {"conv": 10, "attention": 6, "mlp": 16}, forms=("layer-types",),
    ),
    "RecurrentGemma 2B": Published(
        sized("recurrent_gemma", 26, 2560, 10, 1, 15360, 256000, head_dim=256, attention_window_size=2048,
              block_types=["recurrent", "recurrent", "attention"]),
        {"rg_lru": 18, "window_2048": 8, "mlp": 26}, forms=("layer-types",),
    ),
    "Griffin as TensorRT-LLM has it": Published(
        {"layer_types": ["recurrent", "recurrent", "attention"], "num_hidden_layers": 26},
        {"rg_lru": 18, "attention": 8, "mlp": 26},
    ),
    "Jet-Nemotron 2B": Published(
        sized("jet_nemotron", 28, 1536, 12, 2, 8960, 151936,
              efficient_attention_config={"jet": {"mode": "chunk"}, "swa": {"window_size": 1152}},
              layer_types=["jet"] * 14 + ["attn"] + ["jet"] * 4 + ["attn", "swa", "swa"] + ["jet"] * 6),
        {"gated_deltanet": 24, "attention": 2, "window_1152": 2, "mlp": 28}, forms=("layer-types", "fla"),
    ),
    "DeltaNet with attention": Published(
        {"model_type": "delta_net", "num_hidden_layers": 4, "hidden_size": 1024, "num_heads": 4,
         "attn": {"layers": [1, 3], "num_heads": 16, "window_size": None}},
        {"deltanet": 2, "attention": 2, "mlp": 4}, forms=("fla",),
    ),
    "GLA without attention": Published(
        {"model_type": "gla", "num_hidden_layers": 6, "hidden_size": 256, "attn": None},
        {"gla": 6, "mlp": 6}, forms=("fla",),
    ),
    "linear attention with two windows": Published(
        {"model_type": "linear_attn", "num_hidden_layers": 4,
         "attn": [{"layers": [1], "num_heads": 16}, {"layers": [3], "window_size": 128}]},
        {"linear_attention": 2, "attention": 1, "window_128": 1, "mlp": 4}, forms=("fla", "layer-types"),
    ),
}  # fmt: skip

every_model = pytest.mark.parametrize("name", MODELS)


def written(model: Published) -> Arch:
    """The architecture of the file that is written for a configuration."""
    return archdsl.loads(arch_text(*read(json.dumps(model.config)), "a test")).sample(0)


@every_model
def test_its_layers_are_those_of_the_model(name: str) -> None:
    model = MODELS[name]
    labels = [kind.label for kind in read(json.dumps(model.config))[0]]
    assert Counter(labels) == model.layers
    assert labels[: len(model.first)] == model.first


@every_model
def test_it_survives_a_file_and_every_notation_that_can_say_it(name: str) -> None:
    model = MODELS[name]
    pattern, arch = read(json.dumps(model.config))[0], written(model)
    assert of_arch(arch) == pattern
    for form in model.forms:
        back, sizes = read(write(of_arch(arch), form, sizes_of_arch(arch)))
        assert back == pattern, form
        assert form == "megatron" or sizes.width == sizes_of_arch(arch).width


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.parameters])
def test_it_has_the_parameters_of_the_model(name: str) -> None:
    model = MODELS[name]
    assert written(model).cost.params / 1e9 == pytest.approx(model.parameters, rel=0.02)
