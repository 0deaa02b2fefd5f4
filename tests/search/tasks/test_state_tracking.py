"""State tracking: the running product of a group's elements."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from contracts import PerfectJudge

from archdsl.blocks.base import Invalid
from archdsl.search.tasks.state_tracking import StateTracking


def test_parity_and_sums_are_running_sums():
    tokens, targets = StateTracking(length=9).batch(5, 0, 0)
    assert (targets == np.cumsum(tokens, 1) % 2).all()
    assert set(tokens.flat) == {0, 1}
    tokens, targets = StateTracking(group="sum", size=7, length=40).batch(5, 0, 0)
    assert (targets == np.cumsum(tokens, 1) % 7).all()
    assert set(tokens.flat) == set(range(7))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_permutations_compose_with_the_newest_last(size):
    task = StateTracking(group="permutation", size=size, length=11)
    elements = list(permutations(range(size)))
    assert task.symbols == len(elements)
    for row, wanted in zip(*task.batch(6, 0, 3), strict=True):
        state = list(range(size))
        for token, target in zip(row, wanted, strict=True):
            state = [elements[token][place] for place in state]
            assert elements[target] == tuple(state)


def test_what_is_judged_may_be_longer_than_what_was_learned():
    task = StateTracking(length=8, test=20)
    judge = PerfectJudge(task, 0.0)
    task.evaluate(judge, 4, 0)
    assert judge.asked[0].shape == (4, 20)
    assert task.batch(4, 0, 0)[0].shape == (4, 8)


@pytest.mark.parametrize(("group", "size"), [("permutation", 7), ("parity", 3)])
def test_a_group_has_room_in_a_vocabulary(group, size):
    with pytest.raises(Invalid, match="too large"):
        StateTracking(group=group, size=size).verify()
