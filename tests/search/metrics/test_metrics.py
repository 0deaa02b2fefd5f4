import subprocess
import sys
import time

import pytest
import torch
from contracts import METRICS, MetricContract
from fake_model import FakeModel
from fakes import TASK, FakeArch, FakeSpace

from archdsl.blocks.registry import find
from archdsl.search.metrics import DEFAULT, chosen
from archdsl.search.metrics.base import FLOOR, LOWEST, Need, correlation, covariance_score
from archdsl.search.metrics.evidence import gather
from archdsl.search.metrics.hidden_covariance import HiddenCovariance
from archdsl.search.metrics.look import look

NEEDS = frozenset(Need)


def arch(memory="gru", width="8"):
    return FakeArch({}, {"model.memory": memory, "model.width": width})


def model_of(arch, seed=0):
    return arch.compile(seed=seed).eval()


class TestMetrics(MetricContract):
    @pytest.fixture(params=["gru", "linear"])
    def memory(self, request):
        return request.param

    @pytest.fixture
    def evidence(self, memory):
        return gather(model_of(arch(memory)), arch(memory), TASK, NEEDS)

    @pytest.fixture
    def again(self, memory):
        return gather(model_of(arch(memory)), arch(memory), TASK, NEEDS)

    @pytest.fixture(params=["dead", "diverged"])
    def broken(self, request, memory):
        model = model_of(arch(memory))
        with torch.no_grad():
            for parameter in model.memory.parameters():
                parameter.fill_(0.0 if request.param == "dead" else float("nan"))
        return gather(model, arch(memory), TASK, NEEDS)


def test_independent_rows_score_minus_n_and_a_dead_one_costs_one_over_k():
    rows = torch.randn(4, 20_000, dtype=torch.float64)
    assert covariance_score(rows) == pytest.approx(-4, abs=0.02)
    rows[0] = 3.0
    assert covariance_score(rows) == pytest.approx(-3 - 1 / FLOOR, rel=1e-3)


def test_dependent_rows_count_as_dead():
    rows = torch.randn(3, 1000)
    twice = torch.cat([rows, 2 * rows[:1] + 1])
    assert covariance_score(twice) < -0.9 / FLOOR
    assert covariance_score(twice) > -1.1 / FLOOR


def test_correlation_is_numpys_where_that_is_defined():
    import numpy as np

    rows = torch.randn(5, 50)
    np.testing.assert_allclose(correlation(rows), np.corrcoef(rows.double()), atol=1e-12)


def test_correlation_has_no_nan_for_constant_or_infinite_rows():
    rows = torch.randn(3, 10)
    rows[0], rows[1, 3] = 1e6, float("inf")
    found = correlation(rows)
    assert torch.isfinite(found).all()
    assert found[2, 2] == pytest.approx(1.0)
    assert (found[:2] == 0).all()


def test_a_saturated_memory_scores_below_a_healthy_one():
    healthy, saturated = model_of(arch()), model_of(arch())
    with torch.no_grad():
        saturated.memory.weight_ih_l0[:4] = 0
        saturated.memory.bias_ih_l0.fill_(50)
    scores = [
        HiddenCovariance().score(gather(m, arch(), TASK, frozenset({Need.HIDDEN})))
        for m in (healthy, saturated)
    ]
    assert scores[0] > scores[1]


def test_looking_leaves_the_model_as_it_was():
    model = model_of(arch())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gather(model, arch(), TASK, NEEDS)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.embedding._forward_hooks
    assert not model.memory._forward_hooks


def test_only_what_is_needed_is_gathered():
    evidence = gather(model_of(arch()), arch(), TASK, frozenset({Need.HIDDEN}))
    assert len(evidence.hidden) == 1
    assert evidence.jacobian is None
    assert not evidence.gradients
    assert evidence.codes is None
    assert evidence.synflow == -float("inf")


def test_synflow_survives_weights_that_overflow_float32():
    model = model_of(arch("linear"))
    with torch.no_grad():
        model.memory.weight.fill_(1e30)
        model.norm = torch.nn.Identity()
        model.head.weight.fill_(1e30)
    evidence = gather(model, arch("linear"), TASK, frozenset({Need.SYNFLOW}))
    assert 100 < evidence.synflow < 1000
    assert next(model.parameters()).dtype == torch.float32


def test_synflow_of_a_layer_norm_that_overflows_is_still_had():
    model = model_of(arch("linear"))
    with torch.no_grad():
        model.head.weight.fill_(3e38)
    found = gather(model, arch("linear"), TASK, frozenset({Need.SYNFLOW})).synflow
    assert 0 < found < 1000


def test_a_model_without_mixers_is_looked_at_behind_its_embedding():
    class Bare(FakeModel):
        def hidden_sites(self):
            return []

    evidence = gather(Bare(arch(), []), arch(), TASK, NEEDS)
    assert evidence.hidden[0].shape[-1] == 8
    assert HiddenCovariance().score(evidence) > LOWEST


def test_most_sequences_keep_what_the_task_learns_and_the_last_ones_a_single_target():
    tokens, targets = look(TASK, 3, torch.device("cpu"))
    own_tokens, own = map(torch.from_numpy, TASK.batch(len(tokens), 3, 0))
    assert torch.equal(tokens, own_tokens)
    split = len(tokens) - len(tokens) // 4
    assert torch.equal(targets[:split], own[:split])
    for row, whole in zip(targets[split:], own[split:], strict=True):
        place = int((whole != -100).nonzero().max())
        assert (row != -100).nonzero().tolist() == [[place]]
        assert row[place] == whole[place]


def test_gradients_are_those_of_the_tasks_loss():
    model, tokens = model_of(arch()), look(TASK, 0, torch.device("cpu"))
    evidence = gather(model, arch(), TASK, NEEDS)
    model.loss(*tokens).backward()
    pairs = {name: (p.detach(), p.grad) for name, p in model.named_parameters()}
    snip = sum(float((w * g).abs().sum()) for w, g in pairs.values())
    norms = sum(float(g.norm()) for _, g in pairs.values())
    assert find("metric", "snip")().score(evidence) == pytest.approx(snip, rel=1e-5)
    assert find("metric", "grad_norm")().score(evidence) == pytest.approx(norms, rel=1e-5)


def test_reach_is_of_the_sequences_with_one_target_and_the_jacobian_of_the_others():
    evidence = gather(model_of(arch()), arch(), TASK, frozenset({Need.JACOBIAN}))
    only = evidence.places.only
    alone = only >= 0
    assert 0 < int(alone.sum()) < len(alone)
    assert len(evidence.jacobian) == int((~alone).sum())
    behind = [
        pulled[place + 1 :] for pulled, place in zip(evidence.pulled, only, strict=True)
        if place >= 0
    ]  # fmt: skip
    assert not torch.cat(behind).any()
    assert float(evidence.reach[0]) > 0


def test_every_metric_of_the_set_has_its_own_label():
    labels = [metric.label for metric in chosen(HiddenCovariance(layer="mean"))]
    assert labels == [*DEFAULT, "hidden_covariance(layer = mean)"]
    assert set(labels) <= set(METRICS)
    assert [metric.label for metric in chosen(HiddenCovariance())] == list(DEFAULT)


def test_the_default_set_costs_little_more_than_one_pass():
    from archdsl.search.tasks.mqar import MQAR

    task = MQAR(vocab=512, length=64, pairs=8)
    wide = FakeArch(
        {}, {"model.memory": "gru", "model.memory.layers": "6", "model.width": "64"}, {}, task
    )
    model = model_of(wide)
    needs = frozenset().union(*(metric.needs for metric in chosen(None)))
    tokens, targets = look(task, 0, torch.device("cpu"))

    def one_pass():
        model.loss(tokens, targets).backward()
        model.zero_grad(set_to_none=True)

    def whole_set():
        evidence = gather(model, wide, task, needs)
        for metric in chosen(None):
            metric.score(evidence)

    turns = [(seconds(one_pass), seconds(whole_set)) for _ in range(7)]
    ratio = min(whole for _, whole in turns) / min(one for one, _ in turns)
    assert ratio < 1.5, ratio  # 1.3 on a quiet machine; see `tests.studies.throughput`


def seconds(action):
    """The processor's, which what else runs on the machine changes little."""
    start = time.process_time()
    action()
    return time.process_time() - start


def test_importing_metrics_and_samplers_loads_neither_torch_nor_optuna():
    code = """
import sys
from archdsl.blocks.registry import BUILT_IN, find
for kind, name in BUILT_IN:
    if kind in ("metric", "sampler", "task"):
        assert find(kind, name) is not None
assert not {"torch", "optuna", "numpy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scores_differ_between_architectures():
    space = FakeSpace()
    scores = {
        HiddenCovariance().score(gather(model_of(a), a, TASK, frozenset({Need.HIDDEN})))
        for a in (space.sample(seed) for seed in range(5))
    }
    assert len(scores) > 2
