"""A small draw of the study of random architectures; the command of ``architectures`` is the large one."""

from __future__ import annotations

import pytest
from studies.architectures import CHECKS, study, table


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
