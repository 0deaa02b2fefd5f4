"""A small draw of the study of random architectures; the command of ``architectures`` is the large one."""

from __future__ import annotations

import pytest
import torch
from studies.architectures import CHECKS, Life, drawn, rounds, study, table, text_of

import archdsl


@pytest.mark.parametrize("seed", range(1000, 1012))
def test_a_random_architecture_lives_its_whole_life(seed: int) -> None:
    outcome = study([seed])
    assert not outcome.failures, table(outcome)
    assert set(outcome.tallies) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("seed", range(1000, 1004))
def test_a_random_depth_lives_its_whole_life(seed: int) -> None:
    outcome = study([seed], space="deep")
    assert not outcome.failures, table(outcome)


@pytest.mark.parametrize("seed", range(1000, 1005))
def test_a_random_mixture_lives_its_whole_life(seed: int) -> None:
    outcome = study([seed], space="routed")
    assert not outcome.failures, table(outcome)


def test_a_random_architecture_compiles_as_one_graph() -> None:
    outcome = study([1012], compile_first=1, backend="aot_eager")
    assert not outcome.failures, table(outcome)
    assert outcome.tallies["torch.compile"].passed == 1


@pytest.mark.parametrize("seed", [712, 1514, 1564])
def test_what_amplifies_rounding_is_held_to_what_rounding_does(seed: int) -> None:
    """Two whose norms stand behind reads that nearly cancel, and one with a token between two memories."""
    outcome = study([seed], space="all")
    assert not outcome.failures, table(outcome)


def test_what_does_not_is_held_to_much_less(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(1000, drawn(archdsl.load(text_of("wide")), 1000))
    assert rounds(life) <= 2
    prefill = life.model.prefill

    def wrong(tokens: torch.Tensor, state: object) -> object:
        logits, after = prefill(tokens, state)
        return logits + 2e-5 * logits.abs().max(), after

    monkeypatch.setattr(life.model, "prefill", wrong)
    with pytest.raises(AssertionError, match="apart, and nudged weights move it by"):
        rounds(life)
