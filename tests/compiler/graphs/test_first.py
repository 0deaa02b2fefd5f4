"""The first of several layers that share its values has no values of others to take."""

from __future__ import annotations

from blocks.written import arch, built

from archdsl.blocks.ops.memory import FirstValue, ValueResidual
from archdsl.compiler.graphs.graph import Graph

RWKV = "rms_norm rwkv7(heads = 2, value_rank = 2)"


def kinds(graph: Graph) -> list[str]:
    """Which of the two operations each run meets, in order."""
    found: list[str] = []
    for node in graph.nodes():
        if isinstance(node.op, FirstValue | ValueResidual):
            found.append(type(node.op).__name__)
        copies = node.op.weights(len(node.regions))
        for run in node.op.runs(len(node.regions)):
            found += kinds(node.regions[copies[run]])
    return found


def graph_of(layers: str) -> Graph:
    return arch(f"embed(dim = 16, vocab = 11) {layers} lm_head").graph


def test_only_the_first_layer_hands_its_values_on() -> None:
    graph = graph_of(f"stack(depth = 3) {{ residual {{ {RWKV} }} }}")
    assert kinds(graph) == ["FirstValue", "ValueResidual", "ValueResidual"]
    assert sum(node.op.kind() == "value_residual" for _, node in graph.walk()) == 1


def test_values_of_other_widths_begin_anew() -> None:
    layers = f"{RWKV} linear(dim = 8) {RWKV} {RWKV}"
    assert kinds(graph_of(layers)) == ["FirstValue", "FirstValue", "ValueResidual"]


def test_parallel_layers_run_one_after_the_other() -> None:
    graph = graph_of("parallel { rwkv7(heads = 2) rwkv7(heads = 2) }")
    assert kinds(graph) == ["FirstValue", "ValueResidual"]


def test_a_model_without_such_layers_is_left_alone() -> None:
    layers = "stack(depth = 3) { residual { gla(heads = 2) } }"
    assert [id(region) for _, node in graph_of(layers).walk() for region in node.regions]
    assert not kinds(graph_of(layers))


def test_weights_are_there_only_where_they_are_used() -> None:
    names = built(f"embed(dim = 16, vocab = 11) repeat(2) {{ {RWKV} }} lm_head").state_dict()
    owners = {name.split(".")[1] for name in names if "value_residual" in name}
    assert owners == {"1"}
