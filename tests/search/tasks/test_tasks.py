import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from contracts import PerfectJudge, TaskContract

from archdsl.blocks.base import Invalid
from archdsl.diagnostics import ArchError
from archdsl.search.tasks.base import IGNORED
from archdsl.search.tasks.mqar import MQAR
from archdsl.search.tasks.text import Text


class TestTasks(TaskContract):
    pass


@pytest.fixture
def recall():
    return MQAR(vocab=64, length=32, pairs=6)


def test_mqar_shows_distinct_pairs_first_and_asks_each_key_once(recall):
    tokens, targets = recall.batch(50, 0, 0)
    keys, values = tokens[:, 0:12:2], tokens[:, 1:12:2]
    assert (keys >= 1).all()
    assert (keys < 32).all()
    assert (values >= 32).all()
    for row in range(50):
        assert len(set(keys[row])) == len(set(values[row])) == 6
        answers = dict(zip(keys[row], values[row], strict=True))
        asked = np.flatnonzero(targets[row] != IGNORED)
        assert sorted(tokens[row, asked]) == sorted(answers)
        assert all(targets[row, place] == answers[tokens[row, place]] for place in asked)
        assert (asked >= 12).all()
        assert (asked % 2 == 0).all()


def test_mqar_fills_with_zeros_or_with_the_whole_vocabulary():
    plain, _ = MQAR(vocab=64, length=32, pairs=2, random_non_queries=False).batch(40, 0, 0)
    noisy, _ = MQAR(vocab=64, length=32, pairs=2).batch(40, 0, 0)
    assert (plain == 0).sum() == 40 * (32 - 6)
    assert (noisy == 0).mean() < 0.05
    assert noisy[:, 6:].max() >= 32


def test_mqar_asks_soon_when_the_power_is_small_and_anywhere_when_it_is_one():
    def mean_place(power):
        task = MQAR(vocab=64, length=32, pairs=1, gap_power=power)
        _, targets = task.batch(2000, 0, 0)
        return np.nonzero(targets != IGNORED)[1].mean()

    # gaps x = 0 … 14 with p ∝ (x + 1)^(a − 1), at 2 + 2x
    weights = np.arange(1, 16) ** (0.01 - 1)
    expected = 2 + 2 * (np.arange(15) * weights).sum() / weights.sum()
    assert mean_place(Fraction(1, 100)) == pytest.approx(expected, rel=0.05)
    assert mean_place(1) == pytest.approx(2 + 2 * 7, rel=0.05)


def test_mqar_accuracy_is_the_mean_of_each_sequences_share(recall):
    class Half(PerfectJudge):
        def predictions(self, tokens):
            _, targets = recall.draw(recall_stream(), 8, judged=True)
            wrong = np.where(np.arange(targets.shape[1]) % 4 == 0, 0, targets)
            self.share = ((wrong == targets) & (targets != IGNORED)).sum(1) / 6
            return wrong

    from archdsl.search.tasks.base import HELD_OUT, random_stream

    def recall_stream():
        return random_stream(HELD_OUT, 0)

    judge = Half(recall, 0.0)
    assert recall.evaluate(judge, 8, 0)["accuracy"] == pytest.approx(judge.share.mean())


@pytest.mark.parametrize(
    ("sizes", "argument"),
    [
        ({"vocab": 64, "length": 31, "pairs": 2}, "length"),
        ({"vocab": 64, "length": 32, "pairs": 9}, "pairs"),
        ({"vocab": 32, "length": 32, "pairs": 2}, "vocab"),
    ],
)
def test_mqar_says_which_size_does_not_fit(sizes, argument):
    with pytest.raises(Invalid) as caught:
        MQAR(**sizes).verify()
    assert caught.value.argument == argument
    assert "use" in caught.value.help


@pytest.mark.parametrize(
    "sizes",
    [
        {"vocab": 64, "length": 31, "pairs": 2},
        {"vocab": 64, "length": 32, "pairs": 9},
        {"vocab": 32, "length": 32, "pairs": 2},
        {"vocab": 34, "length": 32, "pairs": 20},
        {"vocab": 16, "length": 160, "pairs": 40},
    ],
)
def test_mqar_help_can_be_followed(sizes):
    followed, said = dict(sizes), []
    while (refusal := refusal_of(MQAR(**followed))) is not None:
        number = int(re.search(r"use (?:at (?:least|most) )?(\d+)", refusal.help)[1])
        said.append(refusal.argument)
        followed[refusal.argument] = number
    assert said, "something was wrong"
    assert len(set(said)) == len(said), "what was followed is not refused again"


def refusal_of(task):
    try:
        task.verify()
    except Invalid as refusal:
        return refusal
    return None


def test_text_never_trains_on_what_it_is_judged_on(text_file, tmp_path):
    text_file.write_bytes(b"a" * 900 + b"b" * 100)
    task = Text(length=10).bind(text_file, tmp_path)
    for step in range(20):
        tokens, targets = task.batch(8, 0, step)
        assert (tokens == ord("a")).all()
        assert (targets == ord("a")).all()
    judge = PerfectJudge(task, 1.0)
    task.evaluate(judge, 100, 0)
    assert (judge.asked[0] == ord("b")).all()


def test_text_predicts_the_next_byte(text_file, tmp_path):
    tokens, targets = Text(length=12).bind(text_file, tmp_path).batch(3, 0, 0)
    np.testing.assert_array_equal(tokens[:, 1:], targets[:, :-1])


def test_text_measures_bits(text_file, tmp_path):
    task = Text(length=12).bind(text_file, tmp_path)
    found = task.evaluate(PerfectJudge(task, np.log(2.0)), 10, 0)
    assert found["bits_per_byte"] == pytest.approx(1.0)


def test_text_path_is_relative_to_the_spec_and_data_wins(text_file, tmp_path):
    task = Text(path="words.txt", length=12)
    assert task.bind(None, tmp_path).batch(1, 0, 0)[0].shape == (1, 12)
    assert task.bind(tmp_path / "other.txt", tmp_path).path.endswith("other.txt")


@pytest.mark.parametrize(
    ("content", "id"), [(None, "unreadable-data"), (b"", "empty-data"), (b"abc", "short-data")]
)
def test_text_says_what_is_wrong_with_the_file(tmp_path, content, id):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArchError) as caught:
        Text(length=16).bind(path, tmp_path).prepare()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == id
    assert "text.txt" in diagnostic.message
    assert diagnostic.help


def test_text_without_a_file_says_how_to_give_one(tmp_path):
    with pytest.raises(ArchError, match="no file") as caught:
        Text().bind(None, tmp_path).prepare()
    assert caught.value.diagnostics[0].id == "no-data"


def test_a_folder_is_not_a_text(tmp_path):
    with pytest.raises(ArchError, match="cannot be read"):
        Text().bind(tmp_path, tmp_path).prepare()


def test_text_sample_is_readable_whatever_the_model_writes(text_file, tmp_path):
    class Wild(PerfectJudge):
        def generate(self, prompt, count, seed):
            return np.array([[0, 27, 255, 10, *b"ok"]])

    sample = Text(length=12).bind(text_file, tmp_path).sample(Wild(None, 0), 0)
    assert sample.endswith("\nok")
    assert "\x1b" not in sample
    assert "\x00" not in sample


def test_importing_a_task_loads_neither_torch_nor_numpy():
    code = """
import sys, time
import archdsl.blocks.asking
start = time.process_time()  # a busy machine makes no import dear
import archdsl.search.tasks.mqar, archdsl.search.tasks.text
took = time.process_time() - start
assert not {"torch", "numpy", "optuna"} & set(sys.modules), "loaded"
assert took < 0.1, took
"""
    subprocess.run([sys.executable, "-c", code], check=True)
