"""The compiled model: losses, decoding, sampling, seeds, and what it carries."""

from __future__ import annotations

import math

import pytest
import torch
from blocks.contract import tokens
from blocks.written import arch, built
from tolerances import EXACT, assert_close
from torch import Tensor

from archdsl.blocks.nn.cell import CellRecurrence
from archdsl.blocks.nn.memory import DeltaMemory, ScanMemory
from archdsl.compiler.models import model as model_module
from archdsl.compiler.models.model import Model

BODY = "embed(dim = 16, vocab = 11) residual { rms_norm gla(heads = 2) } rms_norm lm_head"


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """In nats, a token at a time, -100 left out."""
    losses = [
        torch.log(row.exp().sum()) - row[target]
        for row, target in zip(logits.flatten(0, -2), targets.flatten().tolist(), strict=True)
        if target != -100
    ]
    return torch.stack(losses).mean()


# --- losses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [2**24, 1, 50, 11 * 7], ids=str)
@pytest.mark.parametrize("head", ["lm_head", "lm_head(tied = true, bias = true, cap = 2)"])
def test_loss_is_cross_entropy_however_many_logits_it_holds(
    head: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "LOGITS_AT_ONCE", at_once)
    model = built(BODY.replace("lm_head", head), dtype="float64")
    x = tokens(3, 10)
    expected = cross_entropy(model(x[:, :-1]), x[:, 1:])
    found = model.loss(x[:, :-1], x[:, 1:])
    assert_close(found, expected, 1e-6)  # the logits of a loss are single precision
    wanted = torch.autograd.grad(expected, model.parameters())
    for left, right in zip(torch.autograd.grad(found, model.parameters()), wanted, strict=True):
        assert_close(left, right, 1e-6)


@pytest.mark.parametrize("at_once", [2**24, 30])
def test_ignored_targets_do_not_count(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "LOGITS_AT_ONCE", at_once)
    model = built(BODY)
    x, y = tokens(2, 8), tokens(2, 8, seed=1)
    y[0, :5] = y[1, 7] = -100
    torch.testing.assert_close(model.loss(x, y), cross_entropy(model(x), y))


def test_a_fresh_models_loss_is_near_that_of_guessing() -> None:
    found = float(built(BODY).loss(tokens(8, 64), tokens(8, 64, seed=1)).detach())
    assert found == pytest.approx(math.log(11), rel=0.35)


def test_a_classifier_has_one_target_a_sequence() -> None:
    model = built("embed(dim = 8, vocab = 11) gru classifier(classes = 3)")
    x, y = tokens(4, 6), torch.tensor([0, 2, 1, -100])
    expected = cross_entropy(model(x)[:, 0], y)
    torch.testing.assert_close(model.loss(x, y), expected)


def test_auxiliary_losses_are_added() -> None:
    model = built(BODY)
    x, y = tokens(2, 6), tokens(2, 6, seed=1)
    plain = model.loss(x, y)

    def add(module: torch.nn.Module, given: tuple[Tensor, ...], named: dict, found: object) -> None:
        named["context"].auxiliary.append(torch.tensor(0.5))

    model.residual.gla.memory.register_forward_hook(add, with_kwargs=True)
    torch.testing.assert_close(model.loss(x, y), plain + 0.5)


def test_a_model_without_a_head_has_no_loss() -> None:
    model = built("embed(dim = 8, vocab = 11) gru")
    assert model(tokens(2, 3)).shape == (2, 3, 8)
    with pytest.raises(AssertionError, match="head"):
        model.loss(tokens(2, 3), tokens(2, 3))


# --- decoding --------------------------------------------------------------------------------------


def test_generate_is_repeated_steps() -> None:
    model, prompt = built(BODY), tokens(2, 5)
    found = model.generate(prompt, 6, temperature=0)
    expected = prompt
    for _ in range(6):
        likeliest = model(expected)[:, -1].argmax(-1)
        expected = torch.cat([expected, likeliest[:, None]], 1)
    assert torch.equal(found, expected)


def test_generate_repeats_itself_with_a_seed_only() -> None:
    model, prompt = built(BODY), tokens(3, 2)
    first = model.generate(prompt, 20, seed=1)
    assert torch.equal(first, model.generate(prompt, 20, seed=1))
    assert not torch.equal(first, model.generate(prompt, 20, seed=2))
    assert first.shape == (3, 22)
    assert torch.equal(first[:, :2], prompt)


def test_top_keeps_the_likeliest() -> None:
    model, prompt = built(BODY), tokens(2, 4)
    assert torch.equal(
        model.generate(prompt, 8, top=1, seed=0), model.generate(prompt, 8, temperature=0)
    )


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([[0.0, 1.0]]).repeat(20_000, 1)
    generator = torch.Generator().manual_seed(0)
    drawn = model_module.drawn(logits, 0.5, None, generator).double().mean()
    likely = 1 / (1 + math.exp(-2))
    assert float(drawn) == pytest.approx(likely, abs=5 * math.sqrt(likely * (1 - likely) / 20_000))


def test_states_count_positions() -> None:
    model = built("embed(dim = 8, vocab = 11, position = sinusoidal) attention(heads = 2) lm_head")
    state = model.init_state(2)
    assert state["position"] == 0
    _, state = model.prefill(tokens(2, 7), state)
    assert state["position"] == 7
    _, state = model.step(tokens(2, 1)[:, 0], state)
    assert state["position"] == 8


def test_decoding_leaves_a_state_as_it_was() -> None:
    model, x = built(BODY), tokens(2, 9)
    _, state = model.prefill(x[:, :4], model.init_state(2))
    first, _ = model.prefill(x[:, 4:], state)
    again, _ = model.prefill(x[:, 4:], state)
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    "layer",
    [
        "embed(dim = 8, vocab = 11, position = learned) attention(heads = 2)",
        "embed(dim = 8, vocab = 11, position = sinusoidal) conv(kernel = 3)",
        "embed(dim = 8, vocab = 11) attention(heads = 2, position = rope)",
        "embed(dim = 8, vocab = 11) retnet(heads = 2)",
    ],
)
def test_positions_go_on_where_a_state_ends(layer: str) -> None:
    model, x = built(f"{layer} lm_head", dtype="float64"), tokens(2, 12)
    state, rows = model.init_state(2), []
    for part in x.split([5, 1, 6], 1):
        logits, state = model.prefill(part, state)
        rows.append(logits)
    assert_close(torch.cat(rows, 1), model(x), EXACT)


# --- heads, seeds, sites -----------------------------------------------------------------------------


def test_a_tied_head_is_the_table() -> None:
    model = built("embed(dim = 8, vocab = 11) gru lm_head(tied = true)")
    assert [n for n in model.state_dict() if "embed" in n or "lm_head" in n] == ["embed.weight"]
    before = model(tokens(1, 3))
    with torch.no_grad():
        model.get_parameter("embed.weight").mul_(2)
    assert not torch.equal(model(tokens(1, 3)), before)
    moved = built("embed(dim = 8, vocab = 11) lm_head(tied = true)").to(torch.float64)
    assert moved(tokens(1, 3)).dtype == torch.float64


def test_a_parameter_starts_the_same_whatever_stands_around_it() -> None:
    alone = built("embed(dim = 8, vocab = 11) gru lm_head").state_dict()
    among = built("embed(dim = 8, vocab = 11) gru mlp attention(heads = 2) lm_head").state_dict()
    assert all(torch.equal(alone[name], among[name]) for name in alone)


def test_copies_of_a_layer_start_apart() -> None:
    weights = built("embed(dim = 8, vocab = 11) repeat(times = 2) { linear } lm_head").state_dict()
    assert not torch.equal(weights["repeat.0.linear.weight"], weights["repeat.1.linear.weight"])


def test_building_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    built(BODY)
    assert torch.equal(torch.rand(3), expected)


def test_a_mixture_is_the_hidden_site_of_its_memories() -> None:
    model = built(
        "embed(dim = 8, vocab = 5) mom(memories = 3, top = 2) { gla(heads = 2) } gru rms_norm lm_head"
    )
    seen = []
    for name, module in model.hidden_sites():
        module.register_forward_hook(
            lambda module, given, out, name=name: seen.append((name, out[0].shape))
        )
    model(torch.zeros(2, 7, dtype=torch.int64))
    assert seen == [("mom.memories", (2, 7, 8)), ("gru", (2, 7, 8))]


def test_hidden_sites_are_the_mixers_in_the_order_they_run() -> None:
    model = built(
        "embed(dim = 8, vocab = 11) repeat(times = 2) { residual { deltanet(heads = 2) } swiglu } "
        "parallel { hgrn gru } lm_head"
    )
    found = model.hidden_sites()
    assert [type(module) for _, module in found] == [
        DeltaMemory, DeltaMemory, ScanMemory, CellRecurrence,
    ]  # fmt: skip
    assert [name.split(".")[0] for name, _ in found] == ["repeat", "repeat", "parallel", "parallel"]
    shapes = []
    for _, module in found:
        module.register_forward_hook(lambda module, given, out: shapes.append(out[0].shape))
    model(tokens(2, 5))
    assert shapes == [(2, 5, 8)] * 4


def test_a_model_carries_what_it_was_compiled_from() -> None:
    model = built(BODY)
    assert model.arch is arch(BODY)
    assert model.cost.params == sum(p.numel() for p in model.parameters())
    assert "gla.memory = decay_memory" in model.graph.text()
    assert model.arch.hash[:12] in repr(model)


# --- training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer", ["gla(heads = 2)", "attention(heads = 2)", "gru", "kda(heads = 2)"]
)
def test_a_few_steps_learn_to_repeat(layer: str) -> None:
    model: Model = built(f"embed(dim = 16, vocab = 11) residual {{ rms_norm {layer} }} lm_head")
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x = tokens(8, 1).expand(8, 16)
    losses = []
    for _ in range(30):
        loss = model.loss(x[:, :-1], x[:, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
