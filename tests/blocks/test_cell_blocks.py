"""Cells are their equations: against plain loops with the same weights, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from blocks.probe import gradients, probe, random_inputs, weigher
from blocks.written import built
from tolerances import EXACT, assert_close
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import archdsl
from archdsl.blocks import equations
from archdsl.blocks.nn.base import Context
from archdsl.blocks.nn.cell import CellRecurrence

Weights = dict[str, Tensor]
WIDTH = 8

sigmoid, tanh = torch.sigmoid, torch.tanh


def blocks(weight: Tensor) -> Tensor:
    """A block a head ``[H, E, E]`` as the matrix it is."""
    return torch.block_diag(*weight)


def gru(w: Weights, x: Tensor) -> Tensor:
    """Two biases at the candidate, as PyTorch has them: one inside the reset gate's product."""
    h, rows = x.new_zeros(WIDTH), []
    for t in range(len(x)):
        z = sigmoid(w["z_x"] @ x[t] + blocks(w["z_h"]) @ h + w["z_bias"])
        r = sigmoid(w["r_x"] @ x[t] + blocks(w["r_h"]) @ h + w["r_bias"])
        recurrent = blocks(w["c1_h"]) @ h + w["c1_bias"]
        c = tanh(w["c_x"] @ x[t] + w["c_bias"] + r * recurrent)
        h = z * h + (1 - z) * c
        rows.append(h)
    return torch.stack(rows)


def lstm(w: Weights, x: Tensor) -> Tensor:
    """The forget gate starts open: one more than its bias."""
    h, c, rows = x.new_zeros(WIDTH), x.new_zeros(WIDTH), []
    for t in range(len(x)):
        i, f, o, g = (w[f"{n}_x"] @ x[t] + blocks(w[f"{n}_h"]) @ h + w[f"{n}_bias"] for n in "ifoc")
        c = sigmoid(f + 1) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        rows.append(h)
    return torch.stack(rows)


def min_gru(w: Weights, x: Tensor) -> Tensor:
    """arXiv 2410.01201 §3.1, not in log space: the candidate may be negative."""
    h, rows = x.new_zeros(WIDTH), []
    for t in range(len(x)):
        z = sigmoid(w["z_x"] @ x[t] + w["z_bias"])
        h = (1 - z) * h + z * (w["h_x"] @ x[t] + w["h_bias"])
        rows.append(h)
    return torch.stack(rows)


CHO = """cell(state = [h], output = h, heads = 2) {
    z = sigmoid(linear(x, h))
    r = sigmoid(linear(x, h))
    h = z * h + (1 - z) * tanh(linear(x, r * h))
}"""


def cho_gru(w: Weights, x: Tensor) -> Tensor:
    """arXiv 1406.1078 as first published: the reset gate inside the recurrent product."""
    h, rows = x.new_zeros(WIDTH), []
    for t in range(len(x)):
        z = sigmoid(w["z_x"] @ x[t] + blocks(w["z_h"]) @ h + w["z_bias"])
        r = sigmoid(w["r_x"] @ x[t] + blocks(w["r_h"]) @ h + w["r_bias"])
        h = z * h + (1 - z) * tanh(w["h_x"] @ x[t] + blocks(w["h_1"]) @ (r * h) + w["h_bias"])
        rows.append(h)
    return torch.stack(rows)


QRNN = """cell(state = [c], output = h) {
    f = sigmoid(linear(x))
    c = f * c + (1 - f) * tanh(linear(x))
    h = sigmoid(linear(x)) * c
}"""


def qrnn(w: Weights, x: Tensor) -> Tensor:
    """arXiv 1611.01576 with fo-pooling and a kernel of one: the output is no state."""
    c, rows = x.new_zeros(WIDTH), []
    for t in range(len(x)):
        f = sigmoid(w["f_x"] @ x[t] + w["f_bias"])
        c = f * c + (1 - f) * tanh(w["c_x"] @ x[t] + w["c_bias"])
        rows.append(sigmoid(w["h_x"] @ x[t] + w["h_bias"]) * c)
    return torch.stack(rows)


TWO_SCANS = """cell(state = [a, b], output = y) {
    a = 0.5 * a + linear(x)
    b = sigmoid(linear(a)) * b + tanh(a)
    y = b - a
}"""


def two_scans(w: Weights, x: Tensor) -> Tensor:
    """The second state's gate reads the first one: a scan behind a scan."""
    a, b, rows = x.new_zeros(WIDTH), x.new_zeros(WIDTH), []
    for t in range(len(x)):
        a = 0.5 * a + w["a_x"] @ x[t] + w["a_bias"]
        gate = w["b_a"] if w["b_a"].dim() == 2 else blocks(w["b_a"])
        b = sigmoid(gate @ a + w["b_bias"]) * b + tanh(a)
        rows.append(b - a)
    return torch.stack(rows)


DELAYED = """cell(state = [a, b], output = y) {
    b = a
    a = sigmoid(linear(x)) * a + linear(x)
    y = a + b
}"""


def delayed(w: Weights, x: Tensor) -> Tensor:
    """A state's name means the previous step until it is assigned: ``b`` lags one step behind ``a``."""
    a, rows = x.new_zeros(WIDTH), []
    for t in range(len(x)):
        b = a
        a = sigmoid(w["a_x"] @ x[t] + w["a_bias"]) * a + w["a1_x"] @ x[t] + w["a1_bias"]
        rows.append(a + b)
    return torch.stack(rows)


IND_RNN = """cell(state = [h], output = h) {
    h = relu(linear(x) + linear(h, diagonal = true, bias = false))
}"""


def ind_rnn(w: Weights, x: Tensor) -> Tensor:
    """arXiv 1803.04831: one recurrent weight a channel."""
    h, rows = x.new_zeros(WIDTH), []
    for t in range(len(x)):
        h = torch.relu(w["h_x"] @ x[t] + w["h_bias"] + w["h1_h"] * h)
        rows.append(h)
    return torch.stack(rows)


LEAKY = """cell(state = [h], output = h) {
    u = leaky_relu(linear(x, h))
    h = tanh(linear(u)) * h + u
}"""


def leaky(w: Weights, x: Tensor) -> Tensor:
    """A function with two slopes, and a product of what was computed in the step."""
    h, rows = x.new_zeros(WIDTH), []
    for t in range(len(x)):
        u = w["u_x"] @ x[t] + blocks(w["u_h"]) @ h + w["u_bias"]
        u = torch.where(u > 0, u, u / 100)
        h = tanh(blocks(w["h_u"]) @ u + w["h_bias"]) * h + u
        rows.append(h)
    return torch.stack(rows)


FUNCTIONS = """cell(state = [h], output = y) {
    u = max(linear(x), min(h, 0.5)) - abs(h) / 4
    v = exp(-softplus(u)) + sqrt(abs(u) + 1) + log(1 + u * u)
    h = norm(v) + silu(u) * 0.1 - leaky_relu(-u)
    y = gelu(h) + elu1(h)
}"""


def functions(w: Weights, x: Tensor) -> Tensor:
    """Every function an equation may call."""
    h, rows = x.new_zeros(WIDTH), []
    for t in range(len(x)):
        linear = w["u_x"] @ x[t] + w["u_bias"]
        u = torch.maximum(linear, torch.minimum(h, torch.full_like(h, 0.5))) - h.abs() / 4
        v = torch.exp(-torch.log1p(torch.exp(u))) + torch.sqrt(u.abs() + 1) + torch.log(1 + u * u)
        norm = v / torch.sqrt((v * v).mean() + 1e-6)
        leaky = torch.where(u < 0, -u, -0.01 * u)
        h = norm + u * sigmoid(u) * 0.1 - leaky
        gelu = h * 0.5 * (1 + torch.erf(h / 2**0.5))
        rows.append(gelu + torch.where(h > 0, h + 1, torch.exp(h)))
    return torch.stack(rows)


CELLS: dict[str, tuple[str, Callable[[Weights, Tensor], Tensor]]] = {
    "gru": ("gru", gru),
    "gru by head": ("gru(heads = 4)", gru),
    "lstm": ("lstm", lstm),
    "lstm by head": ("lstm(heads = 2)", lstm),
    "min_gru": ("min_gru", min_gru),
    "cho_gru": (CHO, cho_gru),
    "qrnn": (QRNN, qrnn),
    "two scans": (TWO_SCANS, two_scans),
    "delayed": (DELAYED, delayed),
    "ind_rnn": (IND_RNN, ind_rnn),
    "leaky": (LEAKY, leaky),
    "functions": (FUNCTIONS, functions),
}


@pytest.mark.parametrize("length", [1, 2, 40])
@pytest.mark.parametrize("cell", CELLS)
def test_cell_equals_its_loop(cell: str, length: int) -> None:
    text, loop = CELLS[cell]
    found = probe(text, random_inputs(2, length, WIDTH), dtype="float64")
    weights = {name: w.requires_grad_() for name, w in found.weights().items()}
    inputs = random_inputs(2, length, WIDTH).requires_grad_()
    expected = torch.stack([loop(weights, row) for row in inputs])
    assert_close(found.output(), expected, EXACT, "output")

    weigh = weigher()
    weigh(expected).backward()
    grads = gradients(found.model, weigh(found.output()))
    table = grads.pop("embed.weight")[: 2 * length]
    assert_close(table.view_as(inputs), inputs.grad, EXACT, "inputs")
    for name, grad in grads.items():
        if not name.startswith("lm_head"):
            assert_close(grad, weights[name.partition(".")[2]].grad, EXACT, name)


def test_gru_is_pytorchs_gru() -> None:
    x = random_inputs(3, 12, WIDTH)
    found = probe("gru", x, dtype="float64")
    w = found.weights()
    theirs = torch.nn.GRU(WIDTH, WIDTH, batch_first=True, dtype=torch.float64)
    names = ["r", "z", "c"]
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.cat([w[f"{n}_x"] for n in names]))
        theirs.weight_hh_l0.copy_(torch.cat([w["r_h"][0], w["z_h"][0], w["c1_h"][0]]))
        theirs.bias_ih_l0.copy_(torch.cat([w[f"{n}_bias"] for n in names]))
        theirs.bias_hh_l0.zero_()
        theirs.bias_hh_l0[2 * WIDTH :].copy_(w["c1_bias"])
    assert_close(found.output(), theirs(x)[0], EXACT)


def test_lstm_is_pytorchs_lstm_with_one_added_to_the_forget_bias() -> None:
    x = random_inputs(3, 12, WIDTH)
    found = probe("lstm", x, dtype="float64")
    w = found.weights()
    theirs = torch.nn.LSTM(WIDTH, WIDTH, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.cat([w[f"{n}_x"] for n in "ifco"]))
        theirs.weight_hh_l0.copy_(torch.cat([w[f"{n}_h"][0] for n in "ifco"]))
        theirs.bias_ih_l0.copy_(torch.cat([w[f"{n}_bias"] for n in "ifco"]))
        theirs.bias_hh_l0.zero_()
        theirs.bias_hh_l0[WIDTH : 2 * WIDTH].fill_(1)
    assert_close(found.output(), theirs(x)[0], EXACT)


def test_cells_that_start_otherwise_share_what_is_known_of_their_equations() -> None:
    def cell(gain: str) -> CellRecurrence:
        equation = f"h = tanh(linear(x, h, init = uniform{gain}))"
        text = f"embed(dim = 8, vocab = 5) cell(state = [h], output = h) {{ {equation} }} lm_head"
        return next(m for m in built(text).modules() if isinstance(m, CellRecurrence))

    small, large = cell(""), cell(", gain = 4")
    assert small.op.analysis is large.op.analysis
    assert small.op.steps is large.op.steps
    assert torch.equal(large.get_parameter("h_x"), 4 * small.get_parameter("h_x"))


def test_a_cell_may_be_wider_than_its_stream() -> None:
    found = probe("gru(width = 12, heads = 3)", random_inputs(2, 5, WIDTH), width=12)
    assert found.output().shape == (2, 5, 12)
    assert found.weights()["z_x"].shape == (12, WIDTH)
    assert found.weights()["z_h"].shape == (3, 4, 4)


@pytest.mark.parametrize("cell", ["gru(heads = 2)", "lstm", "min_gru"])
def test_packed_sequences_go_on_from_their_states_and_compute_no_padding(cell: str) -> None:
    """One sequence is empty and keeps its state; every other gives what it gives alone."""
    lengths, x = [2, 7, 0, 1, 7], random_inputs(1, 17, WIDTH)
    layer = built(f"embed(dim = {WIDTH}, vocab = 5) {cell} lm_head", dtype="float64")
    module: Any = next(m for m in layer.modules() if isinstance(m, CellRecurrence))
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    start = module.init_state(len(lengths), x)
    state = {name: random_inputs(1, *value.shape)[0] for name, value in start.items()}
    context = Context(keep=True)
    with torch.no_grad(), FlopCounterMode(display=False) as packed:
        y, after = module(x, state=state, context=replace(context, cu_seqlens=bounds))
    with torch.no_grad(), FlopCounterMode(display=False) as alone:
        for row, (part, length) in enumerate(zip(x.split(lengths, 1), lengths, strict=True)):
            before = {name: value[row : row + 1] for name, value in state.items()}
            one, end = module(part, state=before, context=context) if length else (part, before)
            assert_close(y[:, bounds[row] : bounds[row + 1]], one, EXACT)
            for name, value in after.items():
                assert_close(value[row : row + 1], end[name], EXACT, name)
    assert packed.get_total_flops() == alone.get_total_flops()


def test_a_definition_s_equations_have_what_each_use_gives() -> None:
    body = "a = linear(x, h, gain = g)  h = tanh(a) * k"
    text = (
        f"def layer(g, k) = cell(state = [h], output = h) {{ {body} }}"
        " model { embed(dim = 4, vocab = 9) layer(1, 2) layer(3, 2) layer(1, 5) lm_head }"
    )
    model = archdsl.loads(text).sample(0).compile()
    cells = [module.op for module in model.modules() if isinstance(module, CellRecurrence)]
    written = [[equations.text(each.value) for each in op.equations] for op in cells]
    assert written == [
        [f"linear(x, h, gain = {gain})", f"tanh(a) * {factor}"]
        for gain, factor in ((1, 2), (3, 2), (1, 5))
    ]
