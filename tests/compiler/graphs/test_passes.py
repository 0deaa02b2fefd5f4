"""Passes: each leaves a valid graph that means the same, and does what it says."""

from __future__ import annotations

import pytest
import torch
from blocks.contract import SUBJECTS, Subject, tokens
from blocks.probe import gradients
from blocks.written import arch, built
from tolerances import EXACT, assert_close, bound

from archdsl.blocks.op import Op
from archdsl.blocks.ops.dense import (
    Convolution,
    Gate,
    GatedNorm,
    GatedUnit,
    HeadNormalise,
    Linear,
    MergedLinear,
    Norm,
)
from archdsl.blocks.ops.routing import CopiedLinear, Reroute, RoutedFilter
from archdsl.blocks.ops.structure import ResidualSum
from archdsl.compiler.graphs.canonical import canonical_text
from archdsl.compiler.graphs.cost import Cost
from archdsl.compiler.graphs.fusion import GATES
from archdsl.compiler.graphs.graph import Graph, Node
from archdsl.compiler.graphs.passes import PIPELINE, STAGES, run
from archdsl.kernels.shell import choice
from archdsl.kernels.shell.choice import ACTIVATIONS


def graph_of(layers: str) -> Graph:
    return arch(f"embed(dim = 16, vocab = 11) {layers} lm_head").graph


def found(graph: Graph, kind: type[Op]) -> list[Node]:
    return [node for _, node in graph.walk() if type(node.op) is kind]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_every_pass_leaves_a_valid_graph_of_the_same_cost(subject: Subject, stage: str) -> None:
    graph = arch(subject.text()).graph
    after = run(graph, stage)
    after.verify()
    assert Cost(after).params == Cost(graph).params
    assert Cost(after).state_bytes(9) == Cost(graph).state_bytes(9)
    assert Cost(after).flops(64) == Cost(graph).flops(64)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_model_computes_the_same_after_every_pass(stage: str) -> None:
    body = f"embed(dim = 16, vocab = 11) {' '.join(LAYERS)} lm_head"
    full, partial = built(body, dtype="float64"), built(body, dtype="float64", stage=stage)
    x = tokens(2, 20)
    with torch.no_grad():
        assert_close(partial(x), full(x), EXACT)


LAYERS = (
    "residual { rms_norm gated_deltanet(heads = 2, expand_k = 1) }",
    "residual { layer_norm attention(heads = 2, bias = true) }",
    "residual { rms_norm swiglu }",
    "mamba2(heads = 2, state = 4)",
    "mom(memories = 3, top = 2, capacity = 1/2) { gated_deltanet(heads = 2, expand_k = 1) }",
)


def test_passes_do_not_change_the_graph_they_are_given() -> None:
    graph = graph_of(" ".join(LAYERS))
    before = graph.text()
    run(graph)
    assert graph.text() == before


def test_a_second_run_finds_nothing_left_to_fuse() -> None:
    once = run(graph_of(" ".join(LAYERS)), "fuse")
    again = PIPELINE["fuse"](PIPELINE["merge"](once))
    assert canonical_text(again) == canonical_text(once)


def test_the_driver_stops_at_the_stage_it_is_told() -> None:
    graph = graph_of("gla(heads = 2)")
    assert run(graph, "lower") is graph
    assert not found(run(graph, "recognise"), MergedLinear)
    assert found(run(graph, "merge"), MergedLinear)
    assert not found(run(graph, "merge"), GatedNorm)
    assert found(run(graph, "fuse"), GatedNorm)


def test_the_driver_verifies_between_passes() -> None:
    def broken(graph: Graph) -> Graph:
        other = Graph(graph.stream)
        lie = Node("lie", Linear(width_in=1, width_out=1), (other.input,), (graph.stream,))
        other.add(lie)
        return other

    with pytest.raises(AssertionError, match="lie"):
        run(graph_of("linear"), "broken", {"broken": broken})


# --- merged projections ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        ("attention(heads = 2)", ("query", "key", "value")),
        ("swiglu", ("gate", "up")),
        ("gla(heads = 2)", ("decay_down", "query", "key", "value", "gate")),
        ("mamba2(heads = 2)", ("decay", "query", "key", "value", "gate")),
    ],
)
def test_projections_of_one_input_become_one_product(layer: str, names: tuple[str, ...]) -> None:
    [merged] = found(run(graph_of(layer), "merge"), MergedLinear)
    assert merged.op.names == names
    assert merged.name.endswith(".projections")


@pytest.mark.parametrize("layer", ["mlp", "linear", "parallel { linear linear }"])
def test_projections_of_different_layers_stay_apart(layer: str) -> None:
    assert not found(run(graph_of(layer), "merge"), MergedLinear)


def test_merged_weights_keep_the_names_and_order_of_the_parts() -> None:
    body = "embed(dim = 16, vocab = 11) residual { attention(heads = 2, bias = true) } lm_head"
    merged, apart = built(body), built(body, stage="lower")
    assert set(merged.state_dict()) == set(apart.state_dict())
    for name, weight in apart.state_dict().items():
        assert torch.equal(merged.state_dict()[name], weight)


def test_weights_move_between_merged_and_unmerged_models() -> None:
    body = "embed(dim = 16, vocab = 11) gla(heads = 2) attention(heads = 2, bias = true) lm_head"
    merged, apart, x = built(body, seed=1), built(body, seed=2, stage="lower"), tokens(2, 9)
    merged.load_state_dict(apart.state_dict())
    torch.testing.assert_close(merged(x), apart(x))
    other = built(body, seed=3, stage="lower")
    other.load_state_dict(merged.state_dict())
    assert torch.equal(other(x), apart(x))


def test_a_missing_part_is_missed_by_its_own_name() -> None:
    model = built("embed(dim = 16, vocab = 11) residual { attention(heads = 2) } lm_head")
    weights = model.state_dict()
    before = weights["residual.attention.key.weight"].clone()
    del weights["residual.attention.key.weight"]
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert missing == ["residual.attention.key.weight"]
    assert unexpected == []
    assert torch.equal(model.state_dict()["residual.attention.key.weight"], before)
    with pytest.raises(RuntimeError, match=r"residual\.attention\.key\.weight"):
        model.load_state_dict(weights)


def test_a_part_of_another_shape_is_refused_by_its_own_name() -> None:
    model = built("embed(dim = 16, vocab = 11) residual { attention(heads = 2) } lm_head")
    weights = model.state_dict() | {"residual.attention.key.weight": torch.zeros(4, 16)}
    with pytest.raises(RuntimeError, match=r"key\.weight has shape \(4, 16\)"):
        model.load_state_dict(weights)


# --- epilogues ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "gate_first"), [("gla(heads = 2)", False), ("mamba2(heads = 2)", True)]
)
def test_a_norm_and_its_gate_become_one_operation(layer: str, gate_first: bool) -> None:
    graph = run(graph_of(layer), "fuse")
    [pair] = found(graph, GatedNorm)
    assert pair.op.gate_first is gate_first
    assert not found(graph, Norm)
    assert not found(graph, Gate)


@pytest.mark.parametrize("layer", ["rms_norm", "swiglu(activation = gelu)", "rms_norm mlp"])
def test_a_norm_or_gate_alone_stays_as_it_is(layer: str) -> None:
    graph = graph_of(layer)
    for kind in (Norm, Gate):
        assert len(found(run(graph, "fuse"), kind)) == len(found(graph, kind))


def test_two_projections_and_their_gate_become_one_operation() -> None:
    graph = run(graph_of("swiglu"), "fuse")
    [unit] = found(graph, GatedUnit)
    assert unit.op.merged.names == ("gate", "up")
    assert not unit.op.swapped
    assert not found(graph, Gate)
    assert "gated_unit" in graph.text()


def test_gates_that_are_fused_are_those_that_have_kernels() -> None:
    assert set(GATES) == set(ACTIVATIONS)


# --- prologues ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "units"),
    [("gated_deltanet(heads = 2, expand_k = 1)", 2), ("gla(heads = 2, conv = 4)", 0)],
)
def test_a_convolution_and_the_unit_length_behind_it_become_one(layer: str, units: int) -> None:
    before, after = (found(run(graph_of(layer), stage), Convolution) for stage in ("merge", "fuse"))
    assert [node.name for node in after] == [node.name for node in before]
    assert sum(node.op.unit_heads == 2 for node in after) == units
    assert not found(run(graph_of(layer), "fuse"), HeadNormalise)


# --- residuals ---------------------------------------------------------------------------------------


def test_an_addition_moves_to_the_norm_behind_it() -> None:
    layers = "residual { rms_norm mlp } residual { rms_norm mlp } residual { mlp } residual { rms_norm mlp }"
    sums = found(run(graph_of(layers), "fuse"), ResidualSum)
    moves = [(node.op.pending, node.op.deferred) for node in sums]
    assert moves == [(False, True), (True, False), (False, True), (True, False)]


def test_three_additions_in_a_row_move_one_place_each() -> None:
    body = (
        "embed(dim = 16, vocab = 11) "
        + "residual(scale = 0.5) { rms_norm swiglu } " * 3
        + "lm_head"
    )
    moves = [
        (node.op.pending, node.op.deferred) for node in found(run(arch(body).graph), ResidualSum)
    ]
    assert moves == [(False, True), (True, True), (True, False)]
    fused, plain, x = (
        built(body, dtype="float64"),
        built(body, dtype="float64", stage="lower"),
        tokens(2, 9),
    )
    assert_close(fused(x), plain(x), EXACT)


@pytest.mark.parametrize("layers", [
    "residual { rms_norm mlp } rms_norm",
    "residual { rms_norm mlp } residual { layer_norm mlp }",
    "residual { rms_norm mlp } residual { residual { rms_norm mlp } }",
    "residual { rms_norm mlp } residual { parallel { rms_norm linear } }",
])  # fmt: skip
def test_an_addition_with_no_norm_behind_it_stays(layers: str) -> None:
    sums = found(run(graph_of(layers), "fuse"), ResidualSum)
    assert not any(node.op.pending or node.op.deferred for node in sums)


# --- what memories write ---------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "count"), [
    ("", 2), (", shared = false", 2), (", projections = shared", 0), (", neighbours = routed", 0),
])  # fmt: skip
def test_what_each_memory_writes_is_one_operation(options: str, count: int) -> None:
    layer = f"mom(memories = 3, top = 2{options}) {{ gated_deltanet(heads = 2) }}"
    before, after = (run(graph_of(layer), stage) for stage in ("merge", "fuse"))
    written = found(after, RoutedFilter)
    assert [node.name.rpartition(".")[2] for node in written] == ["key_conv", "value_conv"][:count]
    for kind in (CopiedLinear, Convolution, Reroute):
        assert len(found(after, kind)) == len(found(before, kind)) - count
    names = [
        set(built(f"embed(dim = 16, vocab = 11) {layer} lm_head", stage=s).state_dict())
        for s in STAGES
    ]
    assert all(one == names[0] for one in names)


# --- the whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [" ".join(LAYERS), *LAYERS])
def test_fused_models_compute_the_same_in_both_precisions(
    layers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "FEW", 0)
    body, x = f"embed(dim = 16, vocab = 11) {layers} rms_norm lm_head", tokens(3, 70)
    for dtype, limit in (("float64", 1e-12), ("float32", bound(torch.float32, terms=70, depth=16))):
        fused, plain = built(body, dtype=dtype), built(body, dtype=dtype, stage="lower")
        assert_close(fused(x), plain(x), limit)
        losses = [model.loss(x[:, :-1], x[:, 1:]) for model in (fused, plain)]
        assert_close(losses[0], losses[1], limit)
        if dtype == "float64":
            expected = gradients(plain, losses[1])
            for name, grad in gradients(fused, losses[0]).items():
                assert_close(grad, expected[name], limit, name)


def test_every_site_with_a_choice_of_forms_has_a_kernel_and_a_reason() -> None:
    graph = run(graph_of(" ".join([*LAYERS, "hgrn", "deltanet(heads = 2)"])))
    notes = [note for _, node in graph.walk() for note in node.notes if note.startswith("kernel ")]
    assert len(notes) == 6
    assert {note.partition(":")[0] for note in notes} == {
        "kernel delta", "kernel decay", "kernel softmax", "kernel scan",
    }  # fmt: skip
