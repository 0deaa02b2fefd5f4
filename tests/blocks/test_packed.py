"""Packed sequences: a model gives each what it gives it alone, whatever its mixers are."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from blocks.contract import SUBJECTS, Subject, tokens
from blocks.probe import gradients
from blocks.written import built
from tolerances import EXACT, assert_close
from torch import Tensor

import archdsl

STD = sorted((Path(archdsl.__file__).parent / "blocks" / "std").glob("*.arch"))

BOUNDS = [0, 1, 20, 20, 21, 91]
"""Sequences of one token, of none, and one longer than a chunk of any kernel."""

LIMITS = {"float64": EXACT, "float32": 1e-5}
"""In float64 nothing but rounding; in float32 a few layers deep."""

MODELS = {
    "embedding positions": "embed(dim = 16, vocab = 11, position = learned) swiglu lm_head",
    "sinusoids": "embed(dim = 16, vocab = 11, position = sinusoidal) mlp lm_head",
    "rotated memory": "embed(dim = 16, vocab = 11) miras(matrix(heads = 2), position = rope) lm_head",
    "two layers": "embed(dim = 16, vocab = 11) stack(depth = 2) { residual { rms_norm"
    " gated_deltanet(heads = 2, expand_k = 1) } residual { rms_norm swiglu } } rms_norm lm_head",
}


def assert_as_alone(text: str, dtype: str = "float64") -> None:
    """Logits and gradients of packed sequences against those of each alone."""
    model, x, bounds = built(text, dtype=dtype), tokens(1, BOUNDS[-1]), torch.tensor(BOUNDS)
    limit = LIMITS[dtype]

    def alone() -> Tensor:
        return torch.cat([model(x[:, a:b]) for a, b in pairwise(BOUNDS) if b > a], 1)

    assert_close(model(x, cu_seqlens=bounds), alone(), limit)
    expected = gradients(model, alone().square().sum())
    for name, grad in gradients(model, model(x, cu_seqlens=bounds).square().sum()).items():
        assert_close(grad, expected[name], limit, name)


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_every_layer_takes_packed_sequences(subject: Subject) -> None:
    assert_as_alone(subject.text())


@pytest.mark.parametrize("path", STD, ids=lambda path: path.stem)
def test_every_named_mixer_takes_packed_sequences(path: Path) -> None:
    sizes = {"mamba": "rank = 2, states = 3", "min_gru": "", "lstm": "", "gru": ""}
    heads = "heads = 2" if "heads" in path.read_text() else ""
    assert_as_alone(
        f"embed(dim = 16, vocab = 11) {path.stem}({sizes.get(path.stem, heads)}) rms_norm lm_head"
    )


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", MODELS)
def test_positions_count_from_each_start(name: str, dtype: str) -> None:
    assert_as_alone(MODELS[name], dtype)


def test_a_classifier_gives_one_answer_a_sequence() -> None:
    model = built("embed(dim = 16, vocab = 11) gla(heads = 2) classifier(classes = 3)")
    x, bounds = tokens(1, 30), torch.tensor([0, 7, 30])
    alone = torch.cat([model(x[:, :7]), model(x[:, 7:])], 1)
    assert_close(model(x, cu_seqlens=bounds), alone, LIMITS["float32"])


def test_a_loss_over_packed_sequences_is_the_mean_over_their_tokens() -> None:
    model, x = built(MODELS["two layers"]), tokens(1, 30)
    y, bounds = tokens(1, 30, seed=1), torch.tensor([0, 7, 30])
    parts = [model.loss(x[:, a:b], y[:, a:b]) * (b - a) for a, b in ((0, 7), (7, 30))]
    assert_close(model.loss(x, y, cu_seqlens=bounds), (parts[0] + parts[1]) / 30, LIMITS["float32"])


@pytest.mark.parametrize(
    ("batch", "bounds", "said"),
    [
        (2, [0, 5], "one row"),
        (1, [0, 4], "rises from 0 to the 5 tokens"),
        (1, [0, 3, 2, 5], "rises from 0"),
        (1, [1, 5], "rises from 0"),
    ],
)
def test_offsets_that_do_not_cut_the_tokens_are_refused(
    batch: int, bounds: list[int], said: str
) -> None:
    model = built("embed(dim = 16, vocab = 11) gla(heads = 2) lm_head")
    with pytest.raises(ValueError, match=said):
        model(tokens(batch, 5), cu_seqlens=torch.tensor(bounds))
