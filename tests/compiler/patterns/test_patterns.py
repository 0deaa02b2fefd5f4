"""Layer patterns of other tools: what is read, what is written, and what does not agree with itself."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import archdsl
from archdsl.cli import cli
from archdsl.compiler.patterns import (
    Kind,
    Sizes,
    arch_text,
    of_arch,
    read,
    sizes_of_arch,
    write,
)

NEMOTRON = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-"


def kinds(config: dict[str, object] | str) -> list[Kind]:
    return read(config if isinstance(config, str) else json.dumps(config))[0]


def mixers(config: dict[str, object] | str) -> list[str]:
    return [kind.label for kind in kinds(config) if not kind.channel]


def through_a_file(pattern: list[Kind]) -> list[Kind]:
    """The pattern of the file that is written for a pattern."""
    return of_arch(archdsl.loads(arch_text(pattern, Sizes(adapter=4), "a test")).sample(0))


READ = {
    "megatron": ("M-M*|-G-/M*/M*", ["mamba2", "mamba2", "attention", "gated_deltanet"]),
    "qwen3_next": (
        {"model_type": "qwen3_next", "full_attention_interval": 4, "num_hidden_layers": 10, "num_experts": 4},
        (["gated_deltanet"] * 3 + ["attention"]) * 2 + ["gated_deltanet"] * 2,
    ),
    "gemma": (
        {"sliding_window_pattern": 3, "num_hidden_layers": 4, "sliding_window": 512},
        ["window_512", "window_512", "attention", "window_512"],
    ),
    "jamba": (
        {"attn_layer_period": 8, "attn_layer_offset": 4, "expert_layer_period": 2,
         "expert_layer_offset": 1, "num_hidden_layers": 8},
        ["mamba"] * 4 + ["attention"] + ["mamba"] * 3,
    ),
    "kimi": (
        {"linear_attn_config": {"full_attn_layers": [4], "kda_layers": [1, 2, 3]}, "num_hidden_layers": 4},
        ["kda", "kda", "kda", "attention"],
    ),
    "griffin": (
        {"block_types": ["recurrent", "recurrent", "attention"], "num_hidden_layers": 5},
        ["rg_lru", "rg_lru", "attention", "rg_lru", "rg_lru"],
    ),
    "fla": (
        {"model_type": "gla", "attn": [{"layers": [1], "window_size": 64}, {"layers": [3]}],
         "num_hidden_layers": 4},
        ["gla", "window_64", "gla", "attention"],
    ),
    "zamba": (
        {"model_type": "zamba2", "hybrid_layer_ids": [1, 3, 4], "num_mem_blocks": 2, "num_hidden_layers": 5},
        ["mamba2", "shared_0", "mamba2", "mamba2", "shared_1", "mamba2", "shared_0", "mamba2"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_is_read(name: str) -> None:
    source, expected = READ[name]
    assert mixers(source) == expected


@pytest.mark.parametrize("name", READ)
def test_a_file_of_the_language_keeps_it(name: str) -> None:
    pattern = [k for k in kinds(READ[name][0]) if k.name != "dsa"]
    assert through_a_file(pattern) == pattern


ROUND = {
    "megatron": NEMOTRON,
    "nemotron": {
        "model_type": "nemotron_h", "hybrid_override_pattern": "M-M*-",
        "layers_block_type": ["mamba", "mlp", "mamba", "attention", "mlp"], "num_hidden_layers": 5,
    },
    "layer-types": {
        "layer_types": ["linear_attention", "full_attention", "sliding_attention"],
        "num_hidden_layers": 3, "model_type": "qwen3_next", "sliding_window": 32,
    },
    "jamba": {
        "model_type": "jamba", "num_hidden_layers": 16, "attn_layer_period": 8, "attn_layer_offset": 4,
        "expert_layer_period": 2, "expert_layer_offset": 1,
    },
    "kimi": {
        "model_type": "kimi_linear", "num_hidden_layers": 4,
        "linear_attn_config": {"full_attn_layers": [4], "kda_layers": [1, 2, 3]},
    },
    "fla": {
        "model_type": "gated_deltanet", "num_hidden_layers": 4,
        "attn": [{"layers": [1], "window_size": 64}, {"layers": [3]}],
    },
    "zamba": {
        "model_type": "zamba2", "num_hidden_layers": 5,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "hybrid"],
        "hybrid_layer_ids": [1, 3, 4], "num_mem_blocks": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("form", ROUND)
def test_a_notation_survives_the_round_trip(form: str) -> None:
    """Out of another tool, through a file of the language, and back."""
    source = ROUND[form]
    pattern = through_a_file(kinds(source))
    assert pattern == kinds(source)
    written = write(pattern, form)
    assert (written if form == "megatron" else json.loads(written)) == source


def test_zamba_says_its_one_block_by_period_where_it_has_one() -> None:
    source = {
        "model_type": "zamba",
        "num_hidden_layers": 76,
        "attn_layer_period": 6,
        "attn_layer_offset": 4,
    }
    said = json.loads(write(kinds(source), "zamba"))
    assert said.pop("layers_block_type").count("hybrid") == 13
    assert said == source
    aperiodic = {"model_type": "zamba", "num_hidden_layers": 4,
                 "layers_block_type": ["hybrid", "mamba", "mamba", "hybrid"]}  # fmt: skip
    assert json.loads(write(kinds(aperiodic), "zamba")) == aperiodic


def test_zamba_has_one_block() -> None:
    two = [Kind("attention", group=0), Kind("mamba"), Kind("attention", group=1), Kind("mamba")]
    with pytest.raises(archdsl.ArchError, match="one shared block"):
        write(two, "zamba")


DISAGREE = {
    "an interval": {"model_type": "qwen3_next", "full_attention_interval": 2,
                    "layer_types": ["linear_attention"] * 2},
    "a number of layers": {"layer_types": ["full_attention"] * 3, "num_hidden_layers": 4},
    "a layer behind the last": {"attn_layer_idxs": [1, 3], "hyena_layer_idxs": [0, 2, 4], "num_layers": 4},
    "a layer in two lists": {"linear_attn_config": {"full_attn_layers": [2], "kda_layers": [1, 2]}},
    "a layer in none": {"linear_attn_config": {"full_attn_layers": [4], "kda_layers": [1, 2]},
                        "num_hidden_layers": 4},
    "shared blocks": {"model_type": "zamba2", "hybrid_layer_ids": [1], "num_hidden_layers": 3,
                      "layers_block_type": ["mamba", "mamba", "hybrid"]},
    "tails": "M*/M/MM",
    "a layer beyond": {"model_type": "gla", "attn": {"layers": [4]}, "num_hidden_layers": 4},
    "two windows": {"model_type": "gla", "num_hidden_layers": 2,
                    "attn": [{"layers": [1], "window_size": 4}, {"layers": [1]}]},
}  # fmt: skip


@pytest.mark.parametrize("name", DISAGREE)
def test_keys_that_disagree_are_found(name: str) -> None:
    with pytest.raises(archdsl.ArchError) as caught:
        kinds(DISAGREE[name])
    assert [diagnostic.id for diagnostic in caught.value.diagnostics] == ["keys-disagree"]


UNKNOWN = {
    "a symbol": "MX",
    "nothing": "",
    "two attentions": "M*+",
    "no pattern": {"hidden_size": 64},
    "no depth": {"full_attention_interval": 4},
    "no window": {"layer_types": ["sliding_attention"]},
    "no memory": {"model_type": "telepathy", "attn": None, "num_hidden_layers": 2},
    "a number for names": {"layer_types": 3},
    "a period of nothing": {"attn_layer_period": 0, "num_hidden_layers": 4},
    "half a width": {"layer_types": ["full_attention"], "intermediate_size": 100.5},
    "too many layers": {"full_attention_interval": 4, "num_hidden_layers": 10**9},
    "half of two lists": {"linear_attn_config": {"kda_layers": [1]}},
    "no object": {"text_config": "x", "layer_types": ["full_attention"]},
    "tails alone": "/M*/M*",
    "a name": {"layer_types": ["telepathy"]},
    "broken": '{"layer_types": [',
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_no_pattern_is_said(name: str) -> None:
    with pytest.raises(archdsl.ArchError) as caught:
        kinds(UNKNOWN[name])
    assert [diagnostic.id for diagnostic in caught.value.diagnostics] == ["unknown-pattern"]


UNWRITABLE = [
    (["kda", "mlp"], "megatron"),
    (["attention"], "jamba"),
    (["gla", "mlp"], "kimi"),
    (["gla", "mlp", "kda", "mlp"], "fla"),
    (["mamba", "mlp", "attention", "mlp", "attention", "mlp", "mamba", "mlp"], "jamba"),
    (["mamba2", "mlp"], "zamba"),
    (["kda", "moe", "kda", "mlp"], "kimi"),
    (["gla", "moe", "attention", "moe"], "fla"),
    (["mamba", "mlp"], "megatron"),
]


@pytest.mark.parametrize(("names", "form"), UNWRITABLE)
def test_what_a_notation_cannot_say_is_said(names: list[str], form: str) -> None:
    with pytest.raises(archdsl.ArchError) as caught:
        write([Kind(name) for name in names], form)
    assert [diagnostic.id for diagnostic in caught.value.diagnostics] == ["unknown-pattern"]


def test_a_mistake_in_a_configuration_is_named() -> None:
    with pytest.raises(archdsl.ArchError) as caught:
        kinds({"layer_types": ["full_attention", 4], "hidden_size": "big"})
    found = [diagnostic.message for diagnostic in caught.value.diagnostics]
    assert found == [
        "`layer_types.1` of this configuration should be a valid string",
        "`hidden_size` of this configuration should be a valid integer",
    ]


def test_sizes_go_with_the_pattern(tmp_path) -> None:
    config = {"layer_types": ["full_attention"] * 2, "num_experts": 4, "num_experts_per_tok": 1,
              "hidden_size": 48, "vocab_size": 99, "num_attention_heads": 6, "num_key_value_heads": 2,
              "head_dim": 4, "num_hidden_layers": 2}  # fmt: skip
    pattern, sizes = read(json.dumps(config))
    arch = archdsl.loads(arch_text(pattern, sizes, "a test")).sample(0)
    assert json.loads(write(of_arch(arch), "layer-types", sizes_of_arch(arch))) == config


def test_the_commands(tmp_path) -> None:
    runner, file = CliRunner(), tmp_path / "model.arch"
    made = runner.invoke(cli, ["import", "M-M*-", "-o", str(file)])
    assert made.exit_code == 0, made.output
    assert archdsl.load(file).count() == 1
    back = runner.invoke(cli, ["export", str(file), "--as", "megatron"])
    assert back.output == "M-M*-\n"
    config = tmp_path / "config.json"
    config.write_text(json.dumps(ROUND["kimi"]))
    text = runner.invoke(cli, ["import", str(config)])
    assert "ratio = 3:1" in text.output
    wrong = runner.invoke(cli, ["import", "M?"])
    assert wrong.exit_code == 1
    assert "`?` is no symbol of a layer pattern" in wrong.output
    missing = runner.invoke(cli, ["import", str(tmp_path / "none.json")])
    assert missing.exit_code == 1
    assert "missing-file" in missing.output
    assert runner.invoke(cli, ["import", "M-M*" * 100]).exit_code == 0, "longer than file names are"


def test_the_files_of_the_zoo_have_the_patterns_of_their_papers() -> None:
    for name, form in (
        ("nemotron_h", "megatron"),
        ("jamba", "jamba"),
        ("qwen3_next", "layer-types"),
        ("kimi_linear", "kimi"),
    ):
        arch = archdsl.load(f"specs/zoo/{name}.arch").sample(0)
        assert kinds(write(of_arch(arch), form)) == of_arch(arch)
