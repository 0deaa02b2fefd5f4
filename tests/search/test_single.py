"""``archdsl.search.score`` and ``archdsl.search.train``, as a search loop of one's own calls them."""

import math

import pytest
import torch

import archdsl
from archdsl.search import Diverged, score, train
from archdsl.search.metrics import DEFAULT
from archdsl.search.metrics.hidden_covariance import HiddenCovariance

SPEC = """
let memory = gla | gated_deltanet | gru
model {
    embed(dim = 16)
    residual { rms_norm  memory }
    rms_norm
    lm_head(tied = true)
}
task recall = mqar(vocab = 32, length = 16, pairs = 2)
train { batch = 16  evaluate = 64  learning_rate = RATE }
"""


@pytest.fixture(scope="module")
def space():
    return archdsl.loads(SPEC.replace("RATE", "0.01"))


def test_a_loop_of_ones_own(space):
    """Regularised evolution in five lines: what the README's embedding is for."""
    population = [space.sample(seed) for seed in range(3)]
    for step in range(2):
        best = max(population, key=lambda arch: score(arch, ["archdsl_rank"])["archdsl_rank"])
        population = [*population[1:], space.mutate(best, step)]
    assert all(space.feasible(arch) for arch in population)


def test_scores_are_those_that_every_search_reports(space):
    found = score(space.sample(0))
    assert set(found) == set(DEFAULT)
    assert all(math.isfinite(value) for value in found.values())
    assert found == score(space.sample(0))
    assert found != score(space.sample(0), seed=1)


def test_a_metric_may_have_arguments(space):
    assert set(score(space.sample(0), [HiddenCovariance(layer="last"), "snip"])) == {
        "hidden_covariance(layer = last)", "snip",
    }  # fmt: skip


def test_training_gives_measures_curves_and_models(space):
    arch = space.sample(0)
    found = train(arch, 3)
    assert set(found.measures) >= {"recall.accuracy"}
    assert [step for step, _ in found.curves["recall"]] == [1, 2, 3]
    model = found.models["recall"]
    assert model(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 32)
    again = train(arch, 3)
    assert found.measures == again.measures
    assert found.curves == again.curves


def test_what_diverges_says_so():
    growing = "cell(state = [h], output = h) { g = linear(x)  h = g * g * h + g }"
    spec = SPEC.replace("gla | gated_deltanet | gru", growing).replace("RATE", "100")
    with pytest.raises(Diverged, match="at step"):
        train(archdsl.loads(spec).sample(0), 20)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda arch: score(arch), "the spec names no task"),
        (lambda arch: train(arch, 1), "the spec names no task"),
    ],
)
def test_a_spec_without_a_task_is_refused(call, message):
    arch = archdsl.loads("model { embed(dim = 8, vocab = 9)  gla  lm_head }").sample(0)
    with pytest.raises(archdsl.ArchError, match=message):
        call(arch)


def test_a_metric_that_there_is_not_is_named(space):
    with pytest.raises(archdsl.ArchError, match="there is no metric `hidden_covarance`"):
        score(space.sample(0), ["hidden_covarance"])
