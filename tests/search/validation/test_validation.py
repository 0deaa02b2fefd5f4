"""Published architectures as texts, and how scores are compared with what they reached."""

import json
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import archdsl
from archdsl.cli import cli
from archdsl.diagnostics import ArchError
from archdsl.search.metrics.archdsl_rank import ArchdslRank
from archdsl.search.metrics.base import LOWEST
from archdsl.search.validation import benchmark, decoders, encoders, nas_bench_nlp, validate
from archdsl.search.validation.agreement import Judge
from archdsl.search.validation.nas_bench_nlp import language_model
from archdsl.search.validation.probe import Probe
from archdsl.search.validation.scoring import scored, timed

DATA = Path(os.environ.get("ARCHDSL_DATA", "data"))

RECIPE = {
    "h_new_1": {"op": "elementwise_prod", "input": ["gate", "h_new_0"]},
    "gate": {"op": "activation_sigm", "input": ["node_0"]},
    "node_0": {"op": "linear", "input": ["x", "h_prev_1"]},
    "node_1": {"op": "linear", "input": ["h_prev_0", "gate", "x"]},
    "node_2": {"op": "activation_leaky_relu", "input": ["node_1"]},
    "h_new_0": {"op": "blend", "input": ["gate", "h_prev_0", "node_2"]},
}
CELL = {"arch": 7, "hidden_states": 2, "recipe": RECIPE, "params": 0, "ptb_test_loss": 4.9}
SDP = {
    "operation_type": "SA", "operation_parameter": "SDP", "num_operation_heads": 2,
    "feed_forward_dimension": 512, "num_feed_forward": 3,
}  # fmt: skip
ENCODER = {"id": 3, "scores": {"glue": 63.6}, "hidden_size": 256, "encoder_layers": [SDP]}
DECODER = {
    "id": "a", "ppl": {"valid_ppl": 60.0}, "params": {"nonembedding": 0},
    "config": {
        "n_layer": 2, "d_model": 64, "n_head": [2, 4], "d_inner": [96, 130], "n_token": 500,
        "div_val": 1, "pre_lnorm": False,
    },
}  # fmt: skip


def published(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the published data are not here: {path}; say where with ARCHDSL_DATA")
    return path


def cost(text: str) -> int:
    return archdsl.loads(text).sample(0).cost.params


# --- recurrent cells ------------------------------------------------------------------------------


def stepped(model: object, layer: str, x: torch.Tensor) -> torch.Tensor:
    """The recipe above, a step at a time, from the weights of one layer."""
    w = {name.removeprefix(f"{layer}."): p for name, p in model.named_parameters()}
    h0 = h1 = torch.zeros(x.shape[0], w["n0_h1"].shape[-1], dtype=x.dtype)
    outputs = []
    for now in x.unbind(1):
        gate = torch.sigmoid(now @ w["n0_x"].T + h1 @ w["n0_h1"][0].T + w["n0_bias"])
        n1 = h0 @ w["n1_h0"][0].T + gate @ w["n1_gate"][0].T + now @ w["n1_x"].T
        n2 = torch.nn.functional.leaky_relu(n1 + w["n1_bias"])
        h0 = gate * h0 + (1 - gate) * n2
        h1 = gate * h0
        outputs.append(h0)
    return torch.stack(outputs, 1)


def test_a_recipe_is_the_cell_it_says():
    text = language_model(RECIPE, 2, vocab=11, widths=(6, 8, 6))
    model = archdsl.loads(text).sample(0).compile(dtype="float64")
    tokens = torch.randint(11, (3, 5), generator=torch.Generator().manual_seed(0))
    layers = [name for name, _ in model.hidden_sites()]
    x = model.get_parameter("embed.weight")[tokens]
    for layer in layers:
        x = stepped(model, layer, x)
    logits = x @ model.get_parameter("embed.weight").T + model.get_parameter("lm_head.bias")
    torch.testing.assert_close(model(tokens), logits, rtol=0, atol=1e-12)


def test_weights_and_biases_start_uniform_within_the_root_of_the_width():
    text = language_model(RECIPE, 2, vocab=11, widths=(32, 64, 32))
    model = archdsl.loads(text).sample(0).compile()
    for name in ("n0_h1", "n1_gate", "n0_bias", "n1_bias"):
        weight = model.get_parameter(f"cell.{name}").detach()
        assert float(weight.abs().max()) <= 64**-0.5 + 1e-6
        assert float(weight.std()) == pytest.approx((64 * 3) ** -0.5, rel=0.3)


def test_a_recipe_in_a_circle_is_told():
    recipe = {"a": {"op": "linear", "input": ["b"]}, "b": {"op": "linear", "input": ["a"]}}
    with pytest.raises(ValueError, match="node `a` reads what no node gives"):
        nas_bench_nlp.ordered(recipe)


def test_every_published_cell_has_its_published_parameters():
    known = benchmark(published("nas_bench_nlp/dev.jsonl"))
    some = known.entries[::50]
    assert len(known.entries) == 1276
    assert [cost(entry.text) for entry in some] == [entry.params for entry in some]


# --- transformers ----------------------------------------------------------------------------------


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def test_an_encoder_has_the_widths_it_was_trained_with():
    entry = encoders.FORMAT.entry(ENCODER)
    norm = 2 * 256
    layer = 4 * linear(256, 256) + norm
    layer += linear(256, 512) + 2 * linear(512, 512) + linear(512, 256) + norm
    around = 2 * 128 + linear(128, 256) + linear(256, 128) + 2 * 128
    assert cost(entry.text) - entry.tables == layer + around
    assert entry.stratum == "1 layers, 256 wide"


@pytest.mark.parametrize(
    ("kind", "parameter", "count"),
    [
        ("SA", "WMA", 4 * linear(256, 256) + 256 * 256),
        ("LT", "DFT", 2 * linear(256, 256)),
        ("LT", "DCT", 2 * linear(256, 256)),
        ("DSC", 5, 4 * linear(256, 128) + 256 * 5 + linear(256, 128) + linear(128, 5) + linear(256, 256)),
    ],
)  # fmt: skip
def test_every_operation_of_the_encoders_can_be_said(kind, parameter, count):
    layer = {**SDP, "operation_type": kind, "operation_parameter": parameter}
    text = f"model {{ embed(dim = 256, vocab = 8) {encoders.operation(layer)} lm_head }}"
    assert cost(text) - 2 * 8 * 256 == count


def test_decoders_whose_attention_has_gpt2s_parameters_are_gpt2s():
    """Four biased projections, two biased maps of the channels, two norms a layer and one behind all."""
    inner, norm = (96, 130), 2 * 64
    params = sum(
        4 * linear(64, 64) + linear(64, each) + linear(each, 64) + 2 * norm for each in inner
    )
    counts = {"Attn": 2 * 4 * linear(64, 64), "nonembedding": params + norm}
    entry = decoders.FORMAT.entry({**DECODER, "params": counts})
    assert cost(entry.text) - entry.tables == params + norm
    assert "relative" not in entry.text
    assert "relative" in decoders.FORMAT.entry(DECODER).text


@pytest.mark.parametrize("name", ["random_TransXL_lm1b", "pareto_GPT2_lm1b_corei7"])
def test_every_published_decoder_has_its_published_parameters(name):
    known = benchmark(published(f"decoder_lms/{name}.jsonl"))
    some = known.entries[:: len(known.entries) // 6]
    assert [cost(entry.text) - entry.tables for entry in some] == [entry.params for entry in some]


@pytest.mark.parametrize(("count", "places"), [(3, [2]), (16, [15]), (40, [15, 31])])
def test_times_are_taken_of_some_that_are_not_a_processs_first(count, places):
    assert [place for place, is_timed in enumerate(timed(count)) if is_timed] == places


def test_what_diverged_or_has_no_result_is_kept_without_one(tmp_path):
    path = tmp_path / "cells.jsonl"
    losses = (4.9, None, float("nan"), float("inf"))
    path.write_text("\n".join(json.dumps({**CELL, "ptb_test_loss": loss}) for loss in losses))
    assert [entry.reached for entry in benchmark(path).entries] == [-4.9, None, None, None]


# --- agreement -------------------------------------------------------------------------------------


def brute(scores, reached, kept=lambda i, j: True):
    """Kendall's τ-b by its definition."""
    pairs = [(i, j) for i, j in combinations(range(len(scores)), 2) if kept(i, j)]
    one = np.sign([scores[i] - scores[j] for i, j in pairs])
    other = np.sign([reached[i] - reached[j] for i, j in pairs])
    return (one * other).sum() / np.sqrt(np.abs(one).sum() * np.abs(other).sum())


def test_every_tau_is_kendalls_over_its_pairs():
    random = np.random.default_rng(0)
    scores, reached = random.integers(9, size=(2, 30)).astype(float)
    sizes = random.uniform(1, 2, 30)
    kinds = [str(kind) for kind in random.integers(3, size=30)]
    found = Judge(reached, sizes, kinds).agreement(scores)
    ratio = lambda i, j: max(sizes[i] / sizes[j], sizes[j] / sizes[i])  # noqa: E731
    half = np.median(reached)
    assert found.tau == pytest.approx(brute(scores, reached))
    near = brute(scores, reached, lambda i, j: ratio(i, j) <= 1.1)
    assert found.tau_equal_size == pytest.approx(near)
    assert found.tau_strata == pytest.approx(
        brute(scores, reached, lambda i, j: kinds[i] == kinds[j])
    )
    better = brute(scores, reached, lambda i, j: min(reached[i], reached[j]) >= half)
    assert found.tau_better_half == pytest.approx(better)
    assert found.tau_low <= found.tau <= found.tau_high
    assert found.rho_low <= found.rho <= found.rho_high


def test_a_score_that_is_the_result_agrees_and_has_no_regret():
    reached = np.arange(40.0)
    found = Judge(reached, np.ones(40), ["one"] * 40).agreement(reached)
    assert (found.tau, found.rho, found.regret_top20) == (1, pytest.approx(1), 0)
    against = Judge(reached, np.ones(40), ["one"] * 40).agreement(-reached)
    assert (against.tau, against.regret_top20) == (-1, 20)
    silent = Judge(reached, np.ones(40), ["one"] * 40).agreement(np.zeros(40))
    assert (silent.tau, silent.rho) == (0, 0)


# --- the command -----------------------------------------------------------------------------------

FIGURES = {
    "metric", "n", "tau", "tau_low", "tau_high", "rho", "tau_equal_size", "tau_strata",
    "tau_better_half", "regret_top20", "seconds_per_architecture",
}  # fmt: skip


def cells() -> list[dict]:
    """Four cells that differ in what their output is."""
    found = []
    for number, op in enumerate(("activation_tanh", "activation_sigm", "activation_leaky_relu")):
        recipe = {
            "n": {"op": "linear", "input": ["x", "h_prev_0"]},
            "h_new_0": {"op": op, "input": ["n"]},
        }
        found.append({**CELL, "hidden_states": 1, "recipe": recipe, "arch": number,
                      "ptb_test_loss": 5.0 + number, "params": 5_731_600})  # fmt: skip
    return [*found, {**CELL, "ptb_test_loss": None}]


def test_the_command_prints_a_table_and_writes_json(tmp_path):
    data, out = tmp_path / "cells.jsonl", tmp_path / "out.json"
    data.write_text("\n".join(map(json.dumps, cells())))
    done = CliRunner().invoke(cli, ["validate", "metrics", str(data), "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "3 architectures with a result" in done.output
    assert "1 that diverged" in done.output
    assert "parameters as published: 3 of 4" in done.output
    found = json.loads(out.read_text())
    assert set(found) == {"benchmark", "n", "rows"}
    assert found["n"] == 3
    assert all(set(row) == FIGURES for row in found["rows"])
    assert {"archdsl_rank", "params", "flops"} <= {row["metric"] for row in found["rows"]}


@pytest.mark.parametrize("records", [[ENCODER] * 3, [DECODER] * 3], ids=["encoders", "decoders"])
def test_other_formats_are_read(tmp_path, records):
    path = tmp_path / "data.json"
    path.write_text(json.dumps(records))
    report = validate(benchmark(path, limit=2))
    assert report.judged == 2
    assert all(np.isfinite(row.agreement.tau) for row in report.rows)


def one(**changes: object) -> str:
    """Two records; the second is the cell above with some of what it says changed, or left out."""
    changed = {key: value for key, value in {**CELL, **changes}.items() if value is not ...}
    return f"{json.dumps(CELL)}\n\n{json.dumps(changed)}"


def node(*inputs: str, op: str = "linear") -> dict[str, object]:
    return {"h_new_0": {"op": op, "input": inputs}, "h_new_1": {"op": "linear", "input": ["x"]}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{json.dumps(CELL)}\n{{oops", "line 2, column 2"),
        (one(ptb_test_loss=...), "record 2 has no 'ptb_test_loss'"),
        (one(arch=...), "record 2 has no 'arch'"),
        (one(recipe=...), "record 2 has no 'recipe'"),
        (one(recipe=[]), "record 2 is not as it should be"),
        (one(recipe={"h_new_0": {"input": ["x"]}}, hidden_states=1), "record 2 has no 'op'"),
        (one(ptb_test_loss="4.9"), "record 2 is not as it should be"),
        (one(hidden_states="two"), "record 2 is not as it should be"),
        (one(hidden_states=0), "its recipe gives no `h_new_0`"),
        (one(hidden_states=3), "its recipe gives no `h_new_2`"),
        (one(recipe=node("h_prev_2")), "its recipe reads `h_prev_2`, and it has 2 states"),
        (one(recipe=node("x", op="conv")), "`conv` is no operation"),
        (one(recipe=node("x", op="blend")), "`blend` does not take 1 inputs"),
        (one(recipe=node()), "`linear` does not take 0 inputs"),
        (json.dumps({**CELL, "ptb_test_loss": None}), "none of its architectures has a result"),
        ("not json", "it is not JSON"),
        ("[]", "it holds no records"),
        ('{"accuracy": 3}', "its records have accuracy"),
    ],
)
def test_a_file_that_is_no_benchmark_is_told(tmp_path, text, why):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ArchError, match="unknown-benchmark") as caught:
        benchmark(path)
    assert why in str(caught.value)


def test_further_keys_another_order_and_no_parameters_are_no_matter(tmp_path):
    path = tmp_path / "cells.jsonl"
    turned = dict(reversed([*CELL.items(), ("note", {"a": [1]})]))
    turned["recipe"] = dict(reversed(RECIPE.items()))
    del turned["params"]
    path.write_text(f"{json.dumps(CELL)}\n{json.dumps(turned)}")
    first, second = benchmark(path).entries
    assert second.params is None
    assert cost(first.text) == cost(second.text)


def test_a_text_that_is_refused_names_its_record(tmp_path):
    path = tmp_path / "cells.jsonl"
    path.write_text(one(recipe=node("x", op="activation_tanh"), arch="bare"))
    with pytest.raises(ArchError, match="cell-widths") as caught:
        validate(benchmark(path))
    assert caught.value.diagnostics[0].span.source.name == "bare"


def test_what_is_dead_or_not_finite_is_scored_last(tmp_path):
    dead = {"h_new_0": {"op": "elementwise_prod", "input": ["h_prev_0", "h_prev_0"]}}
    grown = {"n": {"op": "linear", "input": ["x", "h_prev_0"]}}
    for place in range(9):
        name = "h_new_0" if place == 8 else f"m{place}"
        before = f"m{place - 1}" if place else "n"
        grown[name] = {"op": "elementwise_prod", "input": [before, before]}
    recipes = {
        "dead": dead,
        "grown": grown,
        "alive": cells()[0]["recipe"],
        "also": cells()[1]["recipe"],
    }
    path = tmp_path / "cells.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({**CELL, "arch": name, "recipe": recipe, "hidden_states": 1})
            for name, recipe in recipes.items()
        )
    )
    found = scored(benchmark(path), [ArchdslRank()], 1, lambda: None)
    values = [each.scores["archdsl_rank"] for each in found]
    assert len(values) == 4
    assert values[0] == LOWEST
    assert max(values[:2]) < min(values[2:])


def test_one_architecture_is_enough(tmp_path):
    path = tmp_path / "cells.jsonl"
    path.write_text(json.dumps(CELL))
    report = validate(benchmark(path))
    assert report.judged == 1
    assert all(np.isfinite(row.agreement.tau) for row in report.rows)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ArchError, match="No such file"):
        benchmark(tmp_path / "none.json")


def test_the_probe_has_one_random_target_at_the_end():
    tokens, targets = Probe(vocab=50, length=6).batch(8, seed=1, step=0)
    assert tokens.shape == targets.shape == (8, 6)
    assert (targets[:, :-1] == -100).all()
    assert len(set(targets[:, -1])) == 8
