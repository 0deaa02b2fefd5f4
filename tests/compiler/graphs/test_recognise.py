"""What the compiler recognises a Miras point or a cell as, the family it takes, and the reason it gives."""

from __future__ import annotations

import pytest
import torch
from blocks.written import arch, built

from archdsl.blocks.ops.cell import CellRecurrence
from archdsl.blocks.ops.learner import LearnerMemory
from archdsl.blocks.ops.memory import DecayMemory, DeltaMemory, ScanMemory
from archdsl.compiler.graphs.graph import Node
from archdsl.compiler.graphs.passes import run
from archdsl.compiler.graphs.recognise import NAMES

MEMORIES = (DecayMemory, DeltaMemory, ScanMemory, CellRecurrence, LearnerMemory)


def site(layer: str, upto: str = "recognise") -> Node:
    """The memory or cell of a model with one layer, after a pass."""
    graph = run(arch(f"embed(dim = 16, vocab = 5) {layer} lm_head").graph, upto)
    [found] = [node for _, node in graph.walk() if isinstance(node.op, MEMORIES)]
    return found


POINTS = {
    "linear_attention(heads = 2)": (DecayMemory, "linear attention", "no decay"),
    "retnet(heads = 2)": (DecayMemory, "RetNet", "a decay a constant"),
    "mamba2(heads = 2)": (DecayMemory, "Mamba-2", "a decay a head"),
    "gla(heads = 2)": (DecayMemory, "GLA", "a decay a channel"),
    "hgrn2(heads = 2)": (DecayMemory, "HGRN2", "a decay a channel"),
    "deltanet(heads = 2)": (DeltaMemory, "DeltaNet", "squared error with no decay"),
    "gated_deltanet(heads = 2, expand_k = 1)": (DeltaMemory, "Gated DeltaNet", "a decay a head"),
    "kda(heads = 2)": (DeltaMemory, "KDA", "a decay a channel"),
    "hgrn": (ScanMemory, "HGRN", "its state is a vector and linear in itself"),
}


@pytest.mark.parametrize("layer", POINTS)
def test_a_published_point_has_its_family_name_and_reason(layer: str) -> None:
    family, name, reason = POINTS[layer]
    found = site(layer)
    assert type(found.op) is family
    [note] = found.notes
    assert note.startswith("this is ")
    assert name in note
    assert reason in note
    assert f"family `{family.__name__.removesuffix('Memory').lower()}`" in note


@pytest.mark.parametrize("per", ["none", "constant", "head", "channel"])
@pytest.mark.parametrize("bias", ["dot", "l2"])
def test_every_matrix_point_is_computed_by_a_family(bias: str, per: str) -> None:
    retention = "none" if per == "none" else f"decay({per})"
    found = site(f"miras(matrix(heads = 2), bias = {bias}, retention = {retention})")
    assert type(found.op) is (DecayMemory if bias == "dot" else DeltaMemory)
    assert NAMES["matrix", bias, per] in found.notes[0]


@pytest.mark.parametrize("per", ["none", "constant", "head", "channel"])
def test_every_vector_point_is_a_scan(per: str) -> None:
    retention = "none" if per == "none" else f"decay({per})"
    found = site(f"miras(vector, retention = {retention})")
    assert type(found.op) is ScanMemory
    assert NAMES["vector", "dot", per] in found.notes[0]


def test_the_kernel_is_noted_behind_the_recognition() -> None:
    notes = site("gla(heads = 2)", "kernels").notes
    assert len(notes) == 2
    assert notes[1].startswith("kernel decay: ")


SCANS = {
    "gates of the input": "z = sigmoid(linear(x)) h = (1 - z) * h + z * linear(x)",
    "a constant factor": "h = 0.9 * h + x",
    "a factor on the right": "h = h * sigmoid(x) - x",
    "a running sum": "h = h + x",
    "no state at all": "h = tanh(linear(x))",
    "a negated state": "h = x - h",
    "a divided state": "h = (h + x) / 2",
    "a state in brackets": "h = sigmoid(linear(x)) * (h - x) + x",
    "a state under a name": "p = h g = sigmoid(x) h = g * p + x",
    "a state twice": "h = 0.5 * h + 0.25 * h + x",
}


@pytest.mark.parametrize("case", SCANS)
def test_a_state_elementwise_linear_in_itself_is_a_scan(case: str) -> None:
    found = site(f"cell(state = [h], output = h) {{ {SCANS[case]} }}")
    assert found.op.plan == "scan"
    assert found.notes == (
        "this cell is a scan: no state inside a gate, and each state elementwise linear in itself,"
        " so family `scan`",
    )


TWO_STATES = {
    "the second reads the first": "a = 0.5 * a + x b = sigmoid(linear(a)) * b + tanh(a)",
    "the second reads what the first was": "b = sigmoid(linear(a)) * b + a a = 0.5 * a + x",
    "side by side": "a = sigmoid(x) * a + x b = tanh(x) * b - x",
}


@pytest.mark.parametrize("case", TWO_STATES)
def test_states_that_can_be_found_one_behind_the_other_are_scans(case: str) -> None:
    found = site(f"cell(state = [a, b], output = b) {{ {TWO_STATES[case]} }}")
    assert found.op.plan == "scan"


NOT_SCANS = {
    "a state in a gate": (
        "z = sigmoid(linear(x, h)) h = z * h + (1 - z) * linear(x)",
        "z = sigmoid(linear(x, h))",
    ),
    "a state through an activation": ("h = tanh(linear(x) + h)", "h = tanh(linear(x) + h)"),
    "a state times itself": ("h = h * h + x", "h = h * h + x"),
    "a state below a line": ("h = x / (1 + abs(h))", "h = x / (1 + abs(h))"),
    "a state under a norm": ("h = norm(h) + x", "h = norm(h) + x"),
    "channels that meet": ("h = linear(h) + x", "h = linear(h) + x"),
    "a larger of two": ("h = max(h, x)", "h = max(h, x)"),
}


@pytest.mark.parametrize("case", NOT_SCANS)
def test_anything_else_runs_a_step_at_a_time_and_says_which_equation_is_why(case: str) -> None:
    body, obstacle = NOT_SCANS[case]
    found = site(f"cell(state = [h], output = h) {{ {body} }}")
    assert found.op.plan == "sequential"
    [note] = found.notes
    assert f"(`{obstacle}`)" in note


def test_two_states_that_read_each_other_are_no_scans() -> None:
    found = site(
        "cell(state = [a, b], output = b) { c = a a = sigmoid(b) * a + x b = tanh(c) * b + x }"
    )
    assert found.op.plan == "sequential"


@pytest.mark.parametrize(
    ("body", "diagonal"),
    [
        ("h = tanh(linear(x) + linear(h, diagonal = true))", True),
        ("h = tanh(linear(x) + h)", True),
        ("h = tanh(linear(x, h))", False),
        ("h = norm(h) + x", False),
    ],
)
def test_a_diagonal_jacobian_is_told_from_one_across_channels(body: str, diagonal: bool) -> None:
    note = site(f"cell(state = [h], output = h) {{ {body} }}").notes[0]
    assert ("diagonal Jacobian" in note) is diagonal
    assert ("across channels" in note) is not diagonal


def test_min_gru_becomes_parallel_without_being_told() -> None:
    assert site("min_gru").op.plan == "scan"


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gru_and_lstm_run_a_step_at_a_time(cell: str) -> None:
    assert site(cell).op.plan == "sequential"


def test_gated_deltanet_by_its_point_is_its_kernel_bit_for_bit() -> None:
    point = (
        "miras(matrix(heads = 2), bias = l2, retention = decay(per = head, slowest = 0),"
        " learner = gd(rate = token), query = l2_norm, key = l2_norm, conv = 4, gate = silu)"
    )
    named = "gated_deltanet(heads = 2, expand_k = 1, expand_v = 1)"
    assert type(site(point).op) is DeltaMemory
    models = [built(f"embed(dim = 16, vocab = 5) {layer} lm_head") for layer in (point, named)]
    weights = list(models[1].state_dict().values())
    models[0].load_state_dict(dict(zip(models[0].state_dict(), weights, strict=True)))
    tokens = torch.randint(5, (2, 70), generator=torch.Generator().manual_seed(0))
    assert torch.equal(models[0](tokens), models[1](tokens))


NAMED = {
    "ttt_linear": "TTT-Linear",
    "ttt_mlp": "TTT-MLP",
    "titans": "Titans' long-term memory",
    "moneta": "Moneta",
    "yaad": "Yaad",
    "memora": "Memora",
    "omeganet": "OmegaNet",
    "atlas": "ATLAS",
    "deep_transformer": "DeepTransformer",
    "lattice": "Lattice",
}


@pytest.mark.parametrize("name", NAMED)
def test_a_published_memory_that_learns_has_its_name(name: str) -> None:
    [note] = site(f"{name}(heads = 2)").notes
    assert note.startswith(f"this is {NAMED[name]}: ")
    assert "family `learner`" in note


def test_a_point_nobody_named_is_said_in_words() -> None:
    [note] = site(
        "miras(mlp(heads = 2), bias = huber, retention = elastic_net, learner = gd(chunk = 4))"
    ).notes
    assert note == (
        "this is MLP memory, Huber bias, elastic-net retention: no published name: gradients at the"
        " start of every 4 writes, so family `learner`"
    )


@pytest.mark.parametrize(
    ("layer", "family"),
    [
        ("miras(matrix(heads = 2), learner = gd(rate = token, chunk = 16))", DecayMemory),
        ("miras(matrix(heads = 2), bias = lp(2), learner = gd(rate = token))", DeltaMemory),
        ("miras(matrix(heads = 2), bias = l2, retention = lq(2, decay = decay))", DeltaMemory),
        ("miras(vector, bias = l2, retention = decay(channel))", DeltaMemory),
        ("miras(polynomial(matrix(heads = 2)), bias = l2)", DeltaMemory),
        ("miras(matrix(heads = 2), bias = l2, learner = gd(chunk = 16))", LearnerMemory),
    ],
)
def test_points_that_a_fast_family_computes_are_sent_there(layer: str, family: type) -> None:
    assert type(site(layer).op) is family
