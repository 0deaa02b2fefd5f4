"""A graph prints what it is, is rebuilt without a trace, and refuses to be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from blocks.written import arch

from archdsl.blocks.base import Value
from archdsl.blocks.op import Type
from archdsl.blocks.ops.dense import Activate, Add, Linear
from archdsl.blocks.ops.structure import Branches, Layers, ResidualSum
from archdsl.compiler.graphs.graph import Graph, Node, Now, Replacement

WIDE = Type("features", 8)
NARROW = Type("features", 4)


def line(graph: Graph, name: str, *inputs: Value) -> Node:
    """A projection from 8 channels to 4."""
    return graph.add(Node(name, Linear(width_in=8, width_out=4), inputs, (NARROW,)))


def small() -> Graph:
    """Two operations, the second one the result."""
    graph = Graph(WIDE)
    first = line(graph, "down", graph.input)
    tanh = Node("tanh", Activate(function="tanh"), (first.value(),), (NARROW,))
    graph.output = graph.add(tanh).value()
    return graph


def broken_types() -> Graph:
    graph = small()
    graph.add(Node("wrong", Linear(width_in=8, width_out=4), (graph.input,), (WIDE,)))
    return graph


def reads_another_type() -> Graph:
    graph = small()
    lie = replace(graph["down"].value(), type=WIDE)
    graph.add(Node("wrong", Activate(function="tanh"), (lie,), (WIDE,)))
    return graph


def reads_a_port_that_is_not_there() -> Graph:
    graph = small()
    nowhere = Value("down", 1, NARROW)
    graph.add(Node("wrong", Activate(function="tanh"), (nowhere,), (NARROW,)))
    return graph


def gives_another_type() -> Graph:
    graph = small()
    graph.output = replace(graph.output, type=WIDE)
    return graph


def gives_what_is_not_there() -> Graph:
    graph = small()
    graph.output = Value("nobody", 0, NARROW)
    return graph


def has_a_broken_region() -> Graph:
    graph = Graph(WIDE)
    graph.add(Node("residual", ResidualSum(width=8), (graph.input,), (WIDE,), (broken_types(),)))
    return graph


def runs_a_region_it_does_not_have() -> Graph:
    graph = Graph(WIDE)
    twice = Layers(copies=(0, 1), order=(0, 1))
    graph.add(Node("layers", twice, (graph.input,), (WIDE,), (Graph(WIDE),)))
    return graph


BROKEN: dict[str, tuple[Callable[[], Graph], str]] = {
    "an output of another type than its operation gives": (broken_types, "wrong: .* is not"),
    "an input read as another type": (reads_another_type, "as another type"),
    "an input from a port that is not there": (reads_a_port_that_is_not_there, "as another type"),
    "a result of another type": (gives_another_type, "the output has another type"),
    "a result that is not there": (gives_what_is_not_there, "the output has another type"),
    "a mistake inside a region": (has_a_broken_region, "wrong: .* is not"),
    "a region too few": (runs_a_region_it_does_not_have, "does not have"),
}


def test_a_right_graph_verifies() -> None:
    graph = small()
    graph.verify()
    assert [node.types for node in graph.nodes()] == [(NARROW,), (NARROW,)]


@pytest.mark.parametrize("case", BROKEN)
def test_verify_catches(case: str) -> None:
    make, message = BROKEN[case]
    with pytest.raises(AssertionError, match=message):
        make().verify()


def test_a_node_cannot_read_what_is_not_there() -> None:
    graph = Graph(WIDE)
    with pytest.raises(AssertionError, match="not there"):
        line(graph, "down", Value("later", 0, WIDE))


@pytest.mark.parametrize("name", ["down", "input"])
def test_a_name_is_given_once(name: str) -> None:
    graph = small()
    with pytest.raises(AssertionError, match="two nodes"):
        line(graph, name, graph.input)


def test_readers_are_found_by_port_and_only_once() -> None:
    graph = small()
    value = graph["down"].value()
    graph.add(Node("twice", Add(), (value, value), (NARROW,)))
    assert [node.name for node in graph.readers(value)] == ["tanh", "twice"]
    assert [node.name for node in graph.readers(graph.input)] == ["down"]
    assert graph.readers(replace(value, port=1)) == []


def test_what_a_region_gives_has_a_reader_outside() -> None:
    graph = small()
    assert graph.only_reader(graph["down"].value()) is graph["tanh"]
    assert graph.only_reader(graph.output) is None


def test_an_empty_region_gives_what_it_takes() -> None:
    graph = Graph(WIDE)
    graph.verify()
    assert graph.output == graph.input
    assert graph.text() == "give input"


def test_rebuilding_with_nothing_to_say_changes_nothing() -> None:
    graph = arch(
        "embed(dim = 8, vocab = 5) stack(depth = 3) { residual { rms_norm gla(heads = 2) } } lm_head"
    ).graph
    text = graph.text()
    assert graph.rebuilt(lambda old, node, now: None) is graph
    assert graph.text() == text
    graph.verify()


def test_what_a_rewrite_does_not_touch_stays_the_object_it_is() -> None:
    region, other = small(), small()
    both = Graph(WIDE)
    op = Branches(mix="concat", branches=2, width=8)
    both.add(Node("both", op, (both.input,), (WIDE,), (region, other)))

    def note(old: Graph, node: Node, now: Now) -> Replacement | None:
        return Replacement.by(node.noted("seen")) if old is other else None

    again = both.rebuilt(note)
    assert again is not both
    first, second = again["both"].regions
    assert first is region
    assert second is not other
    assert all(node.notes == ("seen",) for node in second.nodes())
    assert not any(node.notes for _, node in both.walk())


def test_a_rewrite_is_asked_only_for_the_operations_it_names() -> None:
    asked = []

    def record(old: Graph, node: Node, now: Now) -> Replacement | None:
        asked.append(type(node.op))
        return None

    graph = arch(
        "embed(dim = 8, vocab = 5) stack(depth = 3) { residual { rms_norm linear } } lm_head"
    ).graph
    graph.rebuilt(record, Linear)
    assert asked == [Linear]


def test_a_region_is_verified_again_when_it_changed() -> None:
    graph = small()
    graph.verify()
    graph.output = replace(graph.output, type=Type("features", 3))
    with pytest.raises(AssertionError, match="the output has another type"):
        graph.verify()


def test_shared_regions_stay_shared_when_rebuilt() -> None:
    region = small()
    both = Graph(WIDE)
    op = Branches(mix="concat", branches=2, width=8)
    both.add(Node("both", op, (both.input,), (WIDE,), (region, region)))
    again = both.rebuilt(lambda old, node, now: Replacement.by(node.noted("seen")))
    first, second = again["both"].regions
    assert first is second
    assert first is not region


def test_walk_names_every_operation_by_its_path_and_each_region_once() -> None:
    graph = arch(
        "embed(dim = 8, vocab = 5) stack(depth = 4) { residual { rms_norm linear } } lm_head"
    ).graph
    assert [path for path, _ in graph.walk()] == [
        "embed",
        "stack",
        "stack.residual",
        "stack.residual.rms_norm",
        "stack.residual.linear",
        "lm_head",
    ]


def test_a_graph_prints_as_lines_with_regions_indented() -> None:
    graph = arch(
        "embed(dim = 8, vocab = 5) stack(depth = 2) { a: residual(scale = 0.5) { gru } } lm_head"
    ).graph
    assert graph.text().splitlines() == [
        "embed = embedding(input) {symbols=5, width=8} : features[8]",
        "stack = layers(embed) {copies=(0, 0), order=(0, 1), labels=('a', 'a')} : features[8]",
        "    region #0 of features[8]",
        "        residual = residual_sum(input) {width=8, scale=1/2} : features[8]",
        "            region #1 of features[8]",
        "                gru = cell_recurrence(input) {width_in=8, width=8, state=h, "
        "z = sigmoid(linear(x, h)); r = sigmoid(linear(x, h)); "
        "c = tanh(linear(x) + r * linear(h)); h = z * h + (1 - z) * c → h} : features[8]",
        "                give gru",
        "        give residual",
        "lm_head = head(stack) {width=8, symbols=5} : logits[5]",
        "give lm_head",
    ]


def test_a_region_that_stands_twice_is_printed_once() -> None:
    region = small()
    both = Graph(WIDE)
    op = Branches(mix="concat", branches=2, width=8)
    node = Node("both", op, (both.input,), (WIDE,), (region, region), notes=("a note", "another"))
    both.output = both.add(node).value()
    assert both.text().splitlines() == [
        "both = branches(input) {mix=concat, branches=2, width=8} : features[8]"
        "    # a note; another",
        "    region #0 of features[8]",
        "        down = linear(input) {width_in=8, width_out=4} : features[4]",
        "        tanh = activate(down) {function=tanh} : features[4]",
        "        give tanh",
        "    region #0 again",
        "give both",
    ]
