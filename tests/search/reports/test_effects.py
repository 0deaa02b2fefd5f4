from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from archdsl.search.reports.effects import between, effects

MEMORIES, BIASES = ("vector", "matrix", "mlp"), ("dot", "l2")


def trials(value, repeats=4):
    """Trials of every memory and bias, with what they reached at the first rung."""
    taken = [
        {"mixer.memory": memory, "mixer.bias": bias}
        for memory, bias in list(product(MEMORIES, BIASES)) * repeats
    ]
    random = np.random.default_rng(0)
    return [trial(choices, value(choices, random.normal())) for choices in taken]


def trial(choices, reached):
    result = SimpleNamespace(objectives=(reached,))
    return SimpleNamespace(arch={"choices": choices}, rung=lambda number: result)


def memory_decides(choices, noise):
    return MEMORIES.index(choices["mixer.memory"]) + 0.3 * noise


def test_the_choice_that_decides_is_named_and_the_other_is_not():
    [found] = effects(trials(memory_decides), ["accuracy"])
    memory, bias = found.found
    assert (memory.name, bias.name) == ("memory", "bias")
    assert memory.real
    assert not bias.real
    assert memory.low < memory.share < memory.high
    assert memory.share > memory.chance
    assert "For accuracy, memory matters" in found.sentence
    assert "alternatives of bias are no larger than chance" in found.sentence


def test_noise_alone_is_called_noise():
    [found] = effects(trials(lambda choices, noise: noise), ["accuracy"])
    assert not any(effect.real for effect in found.found)
    assert found.sentence.startswith("For accuracy, the differences between alternatives of ")
    assert "in 24 trials" in found.sentence


def test_the_share_is_the_textbooks_sum_of_squares_between_groups():
    groups = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], dtype=float)
    values = np.array([1.0, 3.0, 2.0, 6.0, 7.0])
    inside = [values[:2], values[2:]]
    total = ((values - values.mean()) ** 2).sum()
    expected = sum(len(g) * (g.mean() - values.mean()) ** 2 for g in inside) / total
    assert between(groups, values[None])[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    "records",
    [[], trials(memory_decides)[:5], trials(lambda choices, noise: 0.5)],
    ids=["none", "few", "equal"],
)
def test_nothing_is_said_where_nothing_can_be(records):
    assert effects(records, ["accuracy"]) == []


def test_a_choice_that_only_some_have_is_left_out():
    records = trials(memory_decides)
    records[0].arch["choices"]["mixer.extra"] = "yes"
    [found] = effects(records, ["accuracy"])
    assert [effect.name for effect in found.found] == ["memory", "bias"]
