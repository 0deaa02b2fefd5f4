from fractions import Fraction
from pathlib import Path

import pytest
import torch
from fakes import TASK, TRAIN, FakeArch
from torch import nn

from archdsl.search.workers.training import Diverged, TorchJudge, Trainer, decays, factor, optimizer


def trainer(seed=0, steps=20, trouble=None, **settings):
    arch = FakeArch({}, {"model.memory": "gru", "model.width": "8"}, trouble or {})
    section = TRAIN.model_copy(update=settings)
    return Trainer(arch.compile(seed=seed), TASK, section, steps, seed)


def run(trained, until):
    return [progress.loss for progress in trained.run(until)]


def weights(trained):
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])


def test_the_same_seed_computes_the_same_numbers():
    one, other = trainer(), trainer()
    assert run(one, 10) == run(other, 10)
    assert torch.equal(weights(one), weights(other))
    assert run(trainer(seed=1), 10) != run(trainer(), 10)


def test_training_learns():
    losses = run(trainer(steps=200), 200)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(tmp_path):
    whole, first, second = trainer(), trainer(), trainer(seed=0)
    losses = run(whole, 20)
    before = run(first, 7)
    first.save(tmp_path / "checkpoint")
    torch.rand(3)  # what another process would have drawn
    second.load(tmp_path / "checkpoint")
    after = run(second, 20)
    assert before + after == losses
    assert torch.equal(weights(second), weights(whole))
    assert second.curve == whole.curve
    assert second.evaluate() == whole.evaluate()


def test_dropout_draws_the_same_after_a_resume(tmp_path):
    whole, first, second = (trainer(steps=6) for _ in range(3))
    for each in (whole, first, second):
        each.model.dropout.p = 0.5
    run(whole, 6)
    torch.manual_seed(0)
    restart = trainer(steps=6)
    restart.model.dropout.p = 0.5
    run(restart, 3)
    restart.save(tmp_path / "checkpoint")
    second.load(tmp_path / "checkpoint")
    run(second, 6)
    again = trainer(steps=6)
    again.model.dropout.p = 0.5
    run(again, 6)
    assert torch.equal(weights(second), weights(again))


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    trained = trainer()
    path = tmp_path / "checkpoint"
    trained.save(path)
    kept = path.read_bytes()

    def broken(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises(OSError, match="No space"):
        trained.save(path)
    assert path.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [path]


def test_a_loss_that_is_not_finite_is_divergence():
    trained = trainer(trouble={"gru": "nan"})
    with pytest.raises(Diverged, match="step 0"):
        run(trained, 3)


def test_a_gradient_that_is_not_finite_is_divergence():
    trained = trainer()
    trained.model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(Diverged, match="gradient"):
        run(trained, 3)


def test_evaluation_leaves_training_undisturbed():
    one, other = trainer(), trainer()
    run(one, 5)
    run(other, 5)
    one.evaluate()
    assert run(one, 10) == run(other, 10)


def test_norms_biases_and_marked_parameters_do_not_decay():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    model.marked = nn.Parameter(torch.zeros(3, 3))
    model.marked._no_decay = True
    assert [name for name, p in model.named_parameters() if decays(p)] == ["0.weight"]
    groups = optimizer(model, TRAIN).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert [len(group["params"]) for group in groups] == [1, 4]


def test_sgd_is_an_optimizer_too():
    losses = run(trainer(optimizer="sgd", steps=20), 20)
    assert all(loss == loss for loss in losses)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_warms_up_and_follows_its_schedule(schedule):
    section = TRAIN.model_copy(update={"schedule": schedule, "warmup": Fraction(1, 10)})
    rates = [factor(section, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    ends = {"constant": 1.0, "linear": 1 / 90, "cosine": 0.0003}
    assert rates[-1] == pytest.approx(ends[schedule], rel=0.05)


def test_the_schedule_is_for_the_last_rung_whatever_rung_is_run():
    one, other = trainer(steps=20), trainer(steps=20)
    run(one, 5)
    run(one, 20)
    run(other, 20)
    assert torch.equal(weights(one), weights(other))


def test_the_curve_has_means_of_stretches():
    trained = trainer(steps=400)
    losses = run(trained, 8)
    assert [step for step, _ in trained.curve] == [4, 8]
    assert trained.curve[0][1] == pytest.approx(sum(losses[:4]) / 4)


def test_the_judge_ignores_what_is_not_judged():
    trained = trainer()
    judge = TorchJudge(trained.model, batch=3)
    tokens, targets = TASK.batch(7, 0, 0)
    losses = judge.losses(tokens, targets)
    assert losses.shape == tokens.shape
    assert (losses[targets == -100] == 0).all()
    assert (losses[targets != -100] > 0).all()
    assert judge.predictions(tokens).shape == tokens.shape
    assert judge.generate(tokens[:1], 5, seed=1).shape == (1, 5)
