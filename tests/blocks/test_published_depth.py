"""The files of ``specs/zoo`` on recurrent depth and residual streams are the published architectures.

Definitions and their stated deviations are in ``published_depth``; the weights are the model's own,
drawn anew so that nothing that starts at zero or one is missed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from blocks import published_depth as published
from blocks.probe import gradients, probe, random_inputs, weigher
from tolerances import EXACT, assert_close
from torch import Tensor

import archdsl
from archdsl.compiler.models.model import Model

ZOO = Path(__file__).parents[2] / "specs" / "zoo"
LENGTH = 7

Definition = Callable[[dict[str, Tensor], Tensor], Tensor]

DEFINITIONS: dict[str, Definition] = {
    "universal_transformer": published.universal_transformer,
    "intra_layer_recurrence": published.intra_layer_recurrence,
    "relaxed_recursive": published.relaxed_recursive,
    "hyper_connections": published.hyper_connections,
    "mhc": published.mhc,
}


def perturbed(text: str) -> Model:
    """A float64 model, every weight moved."""
    model = archdsl.loads(text).sample(0).compile(dtype="float64")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += 0.05 * noise
    return model


def weights_of(model: Model) -> dict[str, Tensor]:
    return {name: x.clone().requires_grad_() for name, x in model.state_dict().items()}


def assert_same(model: Model, definition: Definition) -> None:
    """Equal logits and equal gradients of every weight."""
    tokens = torch.randint(256, (LENGTH,), generator=torch.Generator().manual_seed(1))
    w = weights_of(model)
    expected = definition(w, tokens)
    found = model(tokens[None])[0]
    assert_close(found, expected, EXACT, "logits")
    weigh = weigher()
    weigh(expected).backward()
    for name, grad in gradients(model, weigh(found)).items():
        missing = torch.zeros_like(grad)
        assert_close(grad, missing if w[name].grad is None else w[name].grad, EXACT, name)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_zoo_file_is_its_paper(name: str) -> None:
    assert_same(perturbed((ZOO / f"{name}.arch").read_text()), DEFINITIONS[name])


def test_halting_weighs_states_as_graves_has_it() -> None:
    text = (ZOO / "universal_transformer.arch").read_text().replace("act)", "act(combine = mean))")
    assert_same(perturbed(text), partial(published.universal_transformer, combine="mean"))


def test_huginn_is_its_paper_from_the_same_noise() -> None:
    text = (ZOO / "huginn.arch").read_text().replace("init = noise", "init = learned")
    text = text.replace(", backprop = 4", "")
    model = perturbed(text)

    def definition(w: dict[str, Tensor], tokens: Tensor) -> Tensor:
        w = {name.removeprefix("scaled_init."): weight for name, weight in w.items()}
        return published.huginn(w, tokens, w["loop.initial"].expand(LENGTH, -1), steps=8)

    assert_same(model, definition)


def test_huginn_starts_smaller_with_its_expected_depth() -> None:
    """Deviations are root 2/(5 d), over the root of two branches a layer where one ends."""
    model = archdsl.load(ZOO / "huginn.arch").sample(0).compile()
    layers = 1 + 2 * 8 + 1
    matrices = {name: weight for name, weight in model.state_dict().items() if weight.dim() > 1}
    assert len(matrices) > 20
    for name, weight in matrices.items():
        ends = name.endswith(("out.weight", "down.weight"))
        wanted = (2 / (5 * 128)) ** 0.5 / ((2 * layers) ** 0.5 if ends else 1)
        deviation = wanted / (2 * weight.numel()) ** 0.5  # of an estimate from so many numbers
        assert abs(float(weight.std()) - wanted) < 5 * deviation, name


@pytest.mark.parametrize("layer", ["slstm(heads = 2)", "slstm(heads = 4, conv = 3)"])
def test_slstm_is_its_paper(layer: str) -> None:
    heads = 4 if "conv" in layer else 2
    found = probe(layer, random_inputs(2, 9, 8), dtype="float64")
    expected = torch.stack(
        [published.slstm(found.weights(), row, heads) for row in random_inputs(2, 9, 8)]
    )
    assert_close(found.output(), expected, EXACT)
