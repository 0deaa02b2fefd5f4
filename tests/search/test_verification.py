"""What is published about the tasks, and how a task that is not so is found out."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from contracts import TASKS

import archdsl
from archdsl.cli import cli
from archdsl.search import verification
from archdsl.search.tasks.anchors import MEMORYLESS, Anchor
from archdsl.search.tasks.memorization import Memorization
from archdsl.search.tasks.mqar import MQAR
from archdsl.search.tasks.text import Text
from archdsl.search.verification import Check, Row, checks, row, rows, seen, stated, text, trained

TINY = Anchor("gru", 0.9, steps=60, sizes="vocab = 16, length = 8", width=16)
LEARNS = replace(TINY, learning_rate=Fraction(2, 100), batch=16)


def name_of(check):
    return f"{check.task}: {check.what}"


def test_every_task_says_what_is_published_and_how_far_models_come():
    known = stated()
    assert set(known) == set(TASKS)
    for published in known.values():
        assert {anchor.solves for anchor in published.anchors} == {True, False}


@pytest.mark.parametrize("check", [c for c in checks(stated()) if c.anchor is None], ids=name_of)
def test_every_generator_is_as_published(check, tmp_path):
    assert row(check, tmp_path).ok


@pytest.mark.parametrize("check", [c for c in checks(stated()) if c.anchor], ids=name_of)
def test_every_reference_model_is_an_architecture(check):
    arch = archdsl.loads(text(check.task, check.anchor)).sample(0)
    assert arch.tasks["learned"].name == check.task
    assert arch.train.batch == check.anchor.batch


class TestAGeneratorThatIsNotAsPublished:
    @pytest.fixture
    def found(self, monkeypatch, tmp_path):
        def of(what, **changes):
            for name, value in changes.items():
                monkeypatch.setattr(MQAR, name, value)
            return seen(Check("mqar", what, ""), tmp_path)

        return of

    def test_has_symbols_outside_its_vocabulary(self, found):
        assert not found("vocabulary", published=replace(MQAR.published, vocabulary=8191)).ok

    def test_has_another_length(self, found):
        result = found("positions", published=replace(MQAR.published, positions=63))
        assert (result.found, result.ok) == ("64", False)

    def test_judges_other_positions(self, found):
        result = found("scored positions", published=replace(MQAR.published, scored=0.13))
        assert (result.found, result.ok) == ("12.50%", False)

    def test_is_judged_on_what_it_was_trained_on(self, found):
        def leaked(task, count, seed):
            return task.batch(64, seed, 3)

        result = found("held out", held_out=leaked)
        assert (result.found, result.ok) == ("64 of 64 seen", False)


def test_a_share_may_lie_beside_what_is_stated_by_chance_alone():
    random = np.random.default_rng(0)
    targets = np.where(random.random((512, 100)) < 0.3, 1, -100)
    error = 0.3 * 0.7 / 100 / 512
    for shares, ok in ((3, True), (6, False)):
        expected = (targets >= 0).mean() + shares * error**0.5
        assert (
            verification._scored(Check("mqar", "scored positions", ""), targets, expected).ok == ok
        )


@pytest.mark.parametrize(
    ("anchor", "ok"),
    [
        (LEARNS, True),
        (replace(LEARNS, solves=False), False),
        (replace(LEARNS, bound=1.1), False),
        (replace(LEARNS, bound=1.1, solves=False), True),
    ],
    ids=["solved", "solved and should not be", "not solved", "fails as it should"],
)
def test_a_model_must_reach_its_bound_or_must_not(anchor, ok, tmp_path):
    found = trained(Check("memorization", "", "", anchor), tmp_path)
    assert found.ok == ok
    assert found.steps < 60 if anchor.bound < 1 else found.steps == 60


def test_a_model_that_must_solve_a_task_begins_again(tmp_path, monkeypatch):
    begun = []

    def second(check, anchor, seed, folder):
        begun.append(seed)
        return Row(check, "", ok=seed == 1)

    monkeypatch.setattr(verification, "_from_start", second)
    check = Check("memorization", "", "", Anchor(MEMORYLESS, 0.9, starts=3))
    assert trained(check, tmp_path).ok
    assert begun == [0, 1]


def test_a_bound_of_what_is_to_be_small_is_reached_from_above(tmp_path):
    anchor = Anchor(MEMORYLESS, 8.5, steps=8, sizes="length = 16", width=16)
    assert next(c.expected for c in checks({"text": Text.published}) if c.anchor) == "≤ 1.1"
    assert trained(Check("text", "", "", anchor), tmp_path).ok


def test_the_text_of_known_entropy_repeats_what_was_before_the_last(tmp_path):
    text = np.frombuffer(Text().example(tmp_path).read_bytes(), np.uint8)
    assert set(text) == set(b"abcd")
    # a fresh byte is the same in one of four cases
    assert (text[2:] == text[:-2]).mean() == pytest.approx(3 / 4 + 1 / 16, abs=0.005)
    assert (text[1:] == text[:-1]).mean() == pytest.approx(1 / 4, abs=0.01)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """One task with one model that is quick."""
    published = replace(Memorization.published, anchors=(LEARNS,))
    monkeypatch.setattr(Memorization, "published", published)
    return published


def verify(*arguments):
    return CliRunner().invoke(cli, ["verify", "tasks", "--jobs", "1", *arguments])


def test_the_command_prints_a_row_a_check_and_writes_them(small, tmp_path):
    out = tmp_path / "verified.json"
    found = verify("--tasks", "memorization", "--json", str(out))
    assert found.exit_code == 0, found.output
    heading, *lines, last = found.output.splitlines()
    assert heading.split() == ["task", "check", "expected", "found", "steps", "s"]
    assert [line.split()[:2] for line in lines] == [["ok", "memorization"]] * 5
    assert "gru, width 16, on vocab = 16, length = 8" in lines[-1]
    assert last.startswith("5 checks, all as they should be")
    data = json.loads(out.read_text())
    assert data["passed"]
    assert [each["check"] for each in data["rows"]][:2] == ["vocabulary", "positions"]


def test_the_command_fails_where_a_check_does(small, monkeypatch):
    monkeypatch.setattr(Memorization, "published", replace(small, scored=0.25, anchors=()))
    found = verify("--tasks", "memorization")
    assert found.exit_code == 1
    assert "not ok  memorization  scored positions  25.00%    50.00%" in found.output
    assert "1 of 4 checks failed" in found.output


def test_the_command_says_which_task_there_is_not():
    found = verify("--tasks", "mqr")
    assert found.exit_code == 1
    assert "there is no task `mqr`" in found.output
    assert "mqar" in found.output


def test_several_processes_find_the_same():
    wanted = [c for c in checks({"mqar": MQAR.published}) if c.anchor is None]
    alone, shared = ([(r.found, r.ok) for r in rows(wanted, jobs)] for jobs in (1, 2))
    assert alone == shared
