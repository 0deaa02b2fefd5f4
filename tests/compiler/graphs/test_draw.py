"""Pictures: the outline adds up, and Mermaid and DOT draw every operation and every value."""

import re

import pydot
import pytest

import archdsl
from archdsl.blocks.op import Type
from archdsl.blocks.ops.dense import Linear, Norm
from archdsl.blocks.ops.structure import Branches, Layers, ResidualSum
from archdsl.compiler.graphs import draw
from archdsl.compiler.graphs.cost import Cost
from archdsl.compiler.graphs.graph import Graph, Node
from archdsl.compiler.graphs.passes import run

HYBRID = """
def block(mixer) {
    residual { rms_norm  mixer }
    residual { rms_norm  swiglu }
}

model {
    embed(dim = 32, vocab = 16)
    stack(depth = 8, ratio = 3:1) {
        linear: block(gla(heads = 2, conv = 4))
        full: block(attention(heads = 2))
    }
    parallel(mix = gate) { hgrn  deltanet(heads = 2) }
    repeat(3) { residual(scale = learned) { gru } }
    rms_norm
    lm_head(tied = true)
}
"""


@pytest.fixture(scope="module")
def graph():
    return archdsl.loads(HYBRID).sample(0).graph


def branches(outline):
    for branch in outline:
        yield branch
        yield from branches(branch.children)


@pytest.mark.parametrize("stage", ["lower", "recognise", "merge", "fuse", "kernels"])
def test_the_outline_adds_up(graph, stage):
    outline = draw.outline(run(graph, stage))
    cost = Cost(graph)
    assert sum(branch.params for branch in outline) == cost.params
    if stage != "lower":
        assert sum(branch.state for branch in outline) == cost.state_bytes(0)
        assert sum(branch.cache for branch in outline) == cost.cache_bytes(1)


ROUTED = """
model {
    embed(dim = 32, vocab = 16)
    loop(2) {
        residual { rms_norm  mom(memories = 4, top = 2, router = recurrent) { gla } }
        residual { rms_norm  mom(memories = 3, top = 1, shared = false) { gru } }
        residual { rms_norm  moe(experts = 4, top = 2, router = recurrent, router_rank = 64) { mlp } }
    }
    lm_head
}
"""


def test_the_outline_counts_every_memory_and_what_routers_share():
    graph = archdsl.loads(ROUTED).sample(0).graph
    outline, cost = draw.outline(run(graph)), Cost(graph)
    assert sum(branch.params for branch in outline) == cost.params
    assert sum(branch.state for branch in outline) == cost.state_bytes(0)
    assert outline[-1].title == "router_gru_64 (shared)"
    assert outline[-1].params == 6 * 64 * 64 + 6 * 64


def test_the_outline_names_layers_and_runs(graph):
    titles = [branch.title for branch in branches(draw.outline(graph))]
    assert "linear × 6 (layers 0–2, 4–6)" in titles
    assert "full × 2 (layers 3, 7)" in titles
    assert "each × 3 (layers 0–2)" in titles
    assert titles[0] == "embed"


def test_the_outline_says_what_was_recognised(graph):
    notes = [note for b in branches(draw.outline(run(graph, "recognise"))) for note in b.notes]
    assert any("GLA" in note and "family `decay`" in note for note in notes)
    assert any("DeltaNet" in note and "family `delta`" in note for note in notes)
    assert any("nonlinear in its state" in note for note in notes)


def test_kernels_are_listed_once_with_readable_paths(graph):
    choices = {choice.path: choice for choice in draw.kernels(run(graph))}
    memory = choices["stack.linear.residual.gla.memory"]
    assert memory.kernel.startswith("decay: ")
    assert memory.reason.startswith("this is gated linear attention")
    assert choices["stack.full.residual.attention.core"].kernel.startswith("softmax: ")
    assert "parallel.1.deltanet.memory" in choices
    assert len(choices) == len(draw.kernels(run(graph)))


def dots_of(box):
    yield from box.dots
    for inner in box.boxes:
        yield from dots_of(inner)


@pytest.mark.parametrize("stage", ["lower", "kernels"])
def test_every_operation_and_value_is_drawn(graph, stage):
    lowered = run(graph, stage)
    sketch = draw.sketch(lowered)
    dots = list(dots_of(sketch))
    assert len({dot.id for dot in dots}) == len(dots)
    known = {dot.id for dot in dots}
    assert all(arrow.source in known and arrow.target in known for arrow in sketch.arrows)
    operations = [dot for dot in dots if not dot.entrance and not dot.title.startswith("the same")]
    assert len(operations) == sum(1 for _ in lowered.walk())
    reached = {arrow.target for arrow in sketch.arrows}
    assert all(dot.id in reached for dot in operations)


def test_mermaid_has_balanced_boxes_and_no_loose_ends(graph):
    text = draw.mermaid(run(graph))
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "flowchart TD"
    assert sum(line.startswith("subgraph ") for line in lines) == lines.count("end")
    defined = {m[1] for line in lines if (m := re.match(r'(op\d+)(?:\[|\(\[)"', line))}
    ends = {
        end for line in lines for end in re.findall(r"op\d+", line) if "--" in line or "-." in line
    }
    assert ends <= defined


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pydot's own parser
def test_dot_is_read_back(graph):
    [picture] = pydot.graph_from_dot_data(draw.dot(run(graph)))
    assert len(picture.get_edges()) == len(draw.sketch(run(graph)).arrows)
    assert picture.get_subgraphs()


def nested(depth, width=4):
    """Regions that hold the one before twice: 2^depth operations if they were written out."""
    stream = Type("features", width)
    region = Graph(stream)
    region.output = region.add(
        Node("linear", Linear(width_in=width, width_out=width), (region.input,), (stream,))
    ).value()
    for _ in range(depth):
        outer = Graph(stream)
        value = outer.input
        for name in ("first", "second"):
            node = Node(name, ResidualSum(width=width), (value,), (stream,), (region,))
            value = outer.add(node).value()
        outer.output = value
        region = outer
    return region


def test_a_shared_region_is_drawn_once():
    graph = nested(40)
    assert sum(branch.params for branch in draw.outline(graph)) == 2**40 * 16
    dots = list(dots_of(draw.sketch(graph)))
    assert len(dots) < 400
    assert sum(dot.title.startswith("the same as ") for dot in dots) == 40
    assert draw.kernels(graph) == []


def test_layers_show_which_kind_follows_which():
    stream = Type("features", 4)
    kinds = []
    for _ in range(2):
        region = Graph(stream)
        region.output = region.add(Node("norm", Norm(width=4), (region.input,), (stream,))).value()
        kinds.append(region)
    graph = Graph(stream)
    layers = Layers(copies=(0, 0, 1), order=(0, 1, 2, 2), labels=("a", None, "b", "b"))
    graph.output = graph.add(Node("stack", layers, (graph.input,), (stream,), tuple(kinds))).value()
    sketch = draw.sketch(graph)
    assert [box.title for box in sketch.boxes[0].boxes] == [
        "a × 2 (layers 0–1)",
        "b × 2 (layers 2–3, weights shared)",
    ]
    assert [arrow.again for arrow in sketch.arrows].count(True) == 2


def test_branches_have_no_way_around_them():
    stream = Type("features", 4)
    region = Graph(stream)
    graph = Graph(stream)
    branches = Branches(mix="sum", branches=2, width=4)
    node = Node("parallel", branches, (graph.input,), (stream,), (region, region))
    graph.output = graph.add(node).value()
    sketch = draw.sketch(graph)
    join = sketch.boxes[0].dots[-1].id
    assert (sketch.dots[0].id, join) not in {(a.source, a.target) for a in sketch.arrows}


def test_labels_cannot_break_the_syntax():
    assert draw._mermaid_text('a"b<c>\nd') == "a#quot;b#lt;c#gt;<br>d"
    assert draw._dot_text('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'
