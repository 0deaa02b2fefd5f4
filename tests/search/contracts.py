"""What every task, metric and sampler must do. A new one joins its list of examples here."""

import json

import numpy as np
import optuna
import pytest
from fakes import FakeSpace
from runs import SAMPLERS

from archdsl.blocks.registry import BUILT_IN, find
from archdsl.search.metrics import DEFAULT
from archdsl.search.metrics.base import LOWEST, Need
from archdsl.search.space.distributions import suggest
from archdsl.search.tasks.automata import Automata
from archdsl.search.tasks.base import IGNORED
from archdsl.search.tasks.compression import Compression
from archdsl.search.tasks.forgetting_mqar import ForgettingMQAR
from archdsl.search.tasks.fuzzy_in_context_recall import FuzzyInContextRecall
from archdsl.search.tasks.in_context_recall import InContextRecall, NoisyInContextRecall
from archdsl.search.tasks.memorization import Memorization
from archdsl.search.tasks.mqar import MQAR
from archdsl.search.tasks.selective_copying import SelectiveCopying
from archdsl.search.tasks.state_tracking import StateTracking
from archdsl.search.tasks.text import Text
from archdsl.search.validation.scoring import judged
from archdsl.search.workers.components import read, written

BASELINES = ("params", "flops", "state_bytes")
TASKS = {
    "mqar": MQAR(vocab=32, length=16, pairs=4),
    "forgetting_mqar": ForgettingMQAR(vocab=32, length=24, pairs=4, updates=2),
    "in_context_recall": InContextRecall(length=16),
    "noisy_in_context_recall": NoisyInContextRecall(length=16),
    "fuzzy_in_context_recall": FuzzyInContextRecall(length=32),
    "selective_copying": SelectiveCopying(length=16, tokens=4),
    "compression": Compression(length=8),
    "memorization": Memorization(vocab=32, length=8),
    "automata": Automata(length=32),
    "state_tracking": StateTracking(group="permutation", size=3, length=16),
    "text": Text(length=16),
}
METRICS = [metric.label for metric in judged()] + [name for name in DEFAULT if name in BASELINES]


def test_every_registered_component_has_an_example():
    names = {kind: {name for k, name in BUILT_IN if k == kind} for kind in ("task", "sampler")}
    assert names["task"] == set(TASKS)
    assert names["sampler"] == set(SAMPLERS)
    labelled = {label.partition("(")[0] for label in METRICS}
    assert {name for kind, name in BUILT_IN if kind == "metric"} == labelled


class PerfectJudge:
    """Knows the answers of the last batch it was asked about."""

    def __init__(self, task, loss):
        self.task, self.loss, self.asked = task, loss, []

    def predictions(self, tokens):
        self.asked.append(tokens)
        return np.zeros_like(tokens)

    def losses(self, tokens, targets):
        self.asked.append(tokens)
        return np.where(targets == IGNORED, 0.0, self.loss)

    def generate(self, prompt, count, seed):
        return np.random.default_rng(seed).integers(97, 122, size=(len(prompt), count))


class TaskContract:
    @pytest.fixture(params=sorted(TASKS))
    def task(self, request, text_file, tmp_path):
        task = TASKS[request.param].bind(text_file, tmp_path)
        task.verify()
        task.prepare()
        return task

    def test_is_registered(self, task):
        assert find("task", task.name) is type(task)

    def test_batches_fit_the_vocabulary_and_the_length(self, task):
        tokens, targets = task.batch(5, seed=1, step=2)
        assert tokens.shape == targets.shape == (5, task.positions)
        assert tokens.dtype == targets.dtype == np.int64
        assert tokens.min() >= 0
        assert tokens.max() < task.symbols
        learned = targets[targets != IGNORED]
        assert len(learned)
        assert learned.min() >= 0
        assert learned.max() < task.symbols

    def test_batches_depend_on_seed_and_step_alone(self, task):
        first = task.batch(4, 3, 7)
        np.testing.assert_array_equal(first, task.batch(4, 3, 7))
        assert (first[0] != task.batch(4, 3, 8)[0]).any()
        assert (first[0] != task.batch(4, 4, 7)[0]).any()

    def test_measures_are_what_it_says(self, task):
        found = task.evaluate(PerfectJudge(task, 0.5), 6, 0)
        assert set(found) == set(task.measures)
        assert all(np.isfinite(value) for value in found.values())

    def test_judges_everyone_on_the_same_sequences(self, task):
        judges = PerfectJudge(task, 1.0), PerfectJudge(task, 1.0)
        for judge in judges:
            task.evaluate(judge, 6, 0)
        np.testing.assert_array_equal(judges[0].asked[0], judges[1].asked[0])

    def test_what_is_held_out_is_what_is_judged(self, task):
        judge = PerfectJudge(task, 1.0)
        task.evaluate(judge, 6, 0)
        tokens, targets = task.held_out(6, 0)
        np.testing.assert_array_equal(judge.asked[0], tokens)
        assert (targets != IGNORED).any()

    def test_survives_being_written_down(self, task):
        assert read("task", json.loads(json.dumps(written(task)))) == task

    def test_sample_is_text_or_nothing(self, task):
        sample = task.sample(PerfectJudge(task, 1.0), 0)
        assert sample is None or isinstance(sample, str)


class MetricContract:
    """Subclasses give ``evidence`` as a fixture: what a small model shows."""

    @pytest.fixture(params=METRICS)
    def metric(self, request):
        name, _, given = request.param.rstrip(")").partition("(")
        key, _, value = given.partition(" = ")
        return find("metric", name)(**({key: value} if key else {}))

    def test_label_is_the_spelling_of_the_language(self, metric):
        assert metric.label in METRICS

    def test_survives_being_written_down(self, metric):
        assert read("metric", json.loads(json.dumps(written(metric)))) == metric

    def test_needs_are_known(self, metric):
        assert metric.needs <= set(Need)
        assert metric.baseline == (not metric.needs)

    def test_score_is_finite(self, metric, evidence):
        score = metric.score(evidence)
        assert np.isfinite(score)
        assert score > LOWEST

    def test_score_can_be_had_again(self, metric, evidence, again):
        assert metric.score(evidence) == metric.score(again)

    def test_a_broken_model_scores_and_is_not_dropped(self, metric, broken):
        assert np.isfinite(metric.score(broken))


class SamplerContract:
    @pytest.fixture(params=sorted(SAMPLERS))
    def sampler(self, request):
        return SAMPLERS[request.param]

    @pytest.fixture(params=[["maximize"], ["maximize", "minimize"]], ids=["one", "two"])
    def directions(self, request):
        return request.param

    def test_is_registered(self, sampler):
        assert find("sampler", sampler.name) is type(sampler)

    def run(self, sampler, directions, trials=12):
        """A search with a fresh sampler for every trial; the value is the width."""
        study = optuna.create_study(directions=directions)
        for number in range(trials):
            study.sampler = sampler.make(number, FakeSpace())
            trial = study.ask()
            arch = FakeSpace().decide(lambda site, trial=trial: suggest(trial, site))
            study.tell(trial, [arch.width, -arch.width][: len(directions)])
        return [trial.params for trial in study.trials]

    def test_walks_conditional_spaces(self, sampler, directions):
        for params in self.run(sampler, directions):
            assert ("model.memory.layers" in params) == (params["model.memory"] != "linear")

    def test_a_fresh_one_for_every_trial_proposes_the_same(self, sampler, directions):
        assert self.run(sampler, directions) == self.run(sampler, directions)

    def test_does_not_repeat_one_proposal(self, sampler, directions):
        assert len({str(params) for params in self.run(sampler, directions)}) > 3
