import os
import random
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import optuna
import pytest
from fakes import SEARCH, FakeSpace
from runs import EVERYONE, OBJECTIVES, facts, records_of, request, run, space_of, start

from archdsl.blocks.asking import Sampler
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.search.main import greeting, opened, settings_of
from archdsl.search.metrics.hidden_covariance import HiddenCovariance
from archdsl.search.samplers.random import Random
from archdsl.search.storage.records import SCORES, Record
from archdsl.search.storage.store import open_store
from archdsl.search.workers.worker import Failure


def states(result):
    return [record.state for record in result.records]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed search with two objectives."""
    return run(tmp_path_factory.mktemp("whole"), space_of("tpe", "two", 10))


def test_a_search_leaves_an_answer(whole):
    assert whole.status == "finished"
    assert whole.exit_status == 0
    assert len(whole.records) == 10
    assert whole.best.state == "complete"
    for name in ("report.html", "best.arch", "best.safetensors", "study.journal"):
        assert (whole.folder / name).stat().st_size, name
    assert (whole.folder / "best.arch").read_text() == whole.best.arch["text"]


def test_everything_measured_is_kept(whole):
    best = whole.best
    assert best.arch["hash"]
    assert best.arch["choices"]["model.memory"]
    assert best.arch["versions"]["optuna"]
    assert best.costs["params"] > 0
    assert best.costs["state_bytes"] == best.values[1]
    assert best.scores["hidden_covariance"] < 0
    assert [rung.step for rung in best.rungs] == [4, 8]
    assert best.rungs[1].curves["recall"][-1][0] == 8
    assert best.rungs[1].measures["recall.accuracy"] == best.values[0]
    assert best.attributes["scores"]["torch"]
    assert best.seconds > 0


def test_stages_cut_what_is_behind(whole):
    reasons = {record.reason for record in whole.records if record.state == "pruned"}
    assert reasons <= {"rank", "rung"}
    assert "rank" in reasons
    for record in whole.records:
        assert (record.reason == "rank") == (not record.rungs)
        assert (record.state == "complete") == (len(record.rungs) == 2)


def test_every_trial_has_its_spec_and_only_unbeaten_ones_their_weights(whole):
    trials = whole.folder / "trials"
    assert {p.name for p in trials.glob("*.arch")} == {f"{n:04d}.arch" for n in range(10)}
    weights = {int(p.stem) for p in trials.glob("*.safetensors")}
    assert weights == {record.number for record in whole.front}
    assert not list(trials.glob("*.checkpoint"))


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_five_and_then_ten_are_ten(tmp_path, sampler):
    space = space_of(sampler, "two", 10)
    at_once = run(tmp_path / "once", space)
    first = run(tmp_path / "twice", space, trials=5)
    assert len(first.records) == 5
    second = run(tmp_path / "twice", space)
    assert facts(second.records) == facts(at_once.records)
    assert second.best.number == at_once.best.number


def test_a_study_that_is_done_is_done(whole, tmp_path):
    started = time.monotonic()
    again = run(whole.folder, space_of("tpe", "two", 10))
    assert facts(again.records) == facts(whole.records)
    assert time.monotonic() - started < 20


def test_how_many_trials_are_done_is_never_more_than_there_are(whole):
    space = space_of("tpe", "two", 10)
    for trials, said in ((20, "10 of 20"), (10, "10 of 10"), (4, "10")):
        settings = settings_of(space, request(whole.folder, trials=trials), Path())
        assert f"continuing: {said} trials are done" in greeting(
            space, "s", settings, whole.records
        )


def test_another_seed_is_another_search(tmp_path):
    one = run(tmp_path / "one", trials=3)
    other = run(tmp_path / "other", trials=3, seed=7)
    assert [r.params for r in one.records] != [r.params for r in other.records]


def test_a_small_space_ends_early(tmp_path):
    space = space_of(trials=50, section={**EVERYONE, "rungs": (1,)}, largest=100)
    result = run(tmp_path, space)
    assert result.status == "exhausted"
    assert len(result.records) == 5
    assert len({r.key for r in result.records}) == len(result.records)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("nan", "diverged"), ("error", "error"), ("segfault", "crashed"), ("hang", "timeout"),
     ("memory", "out-of-memory")],
)  # fmt: skip
def test_trouble_is_a_recorded_failure_and_the_search_goes_on(tmp_path, trouble, reason):
    section = {**EVERYONE, "rungs": (2,), "trial_timeout": Fraction(12)}
    space = space_of(trials=5, trouble={"linear": trouble}, section=section, largest=100)
    result = run(tmp_path, space)
    failed = [record for record in result.records if record.state == "fail"]
    assert len(failed) == 1
    assert {record.reason for record in failed} == {reason}
    assert all(record.message for record in failed)
    assert all(record.arch["choices"]["model.memory"] == "linear" for record in failed)
    assert result.best is not None
    assert "Failures" in result.report.read_text()


def test_a_trial_that_takes_too_long_is_told_its_own_limit(tmp_path):
    class Late:
        def request(self, order, left, watch):
            assert left == 60 - 45
            raise Failure("timeout", f"it took longer than {left:g} s")

    with ExitStack() as open_things:
        study = opened(space_of(), "fake", Path(), request(tmp_path), open_things)
        study.worker = Late()
        slow = Record(0, 0, "running", None, {SCORES: {"values": {}, "seconds": 45.0}})
        with pytest.raises(Failure, match="the 60 s of `trial_timeout`, 45 s of them in earlier"):
            study._in_time(slow, {"do": "train"})


def test_training_that_is_done_again_has_its_time_again(tmp_path):
    """As where another machine takes a trial over, and its checkpoint is on the disk of the first."""
    with ExitStack() as open_things:
        study = opened(space_of(), "fake", Path(), request(tmp_path), open_things)
        rung = {"step": 4, "objectives": [0.0], "measures": {}, "curves": {}, "seconds": 40.0}
        found = {SCORES: {"values": {}, "seconds": 5.0}, "rung:0": rung}
        record = Record(0, 3, "running", None, found)
        assert study._spent(record, {"do": "train"}) == 5
        study.trials.mkdir()
        (study.trials / "0003-recall.checkpoint").touch()
        assert study._spent(record, {"do": "train"}) == 45
        assert study._spent(record, {"do": "keep"}) == 5, (
            "what is trained is not lost for its saving"
        )


def test_when_everything_fails_there_is_a_report_and_no_best(tmp_path):
    trouble = dict.fromkeys(("gru", "linear", "rnn"), "error")
    result = run(tmp_path, space_of(trials=2, trouble=trouble, section=EVERYONE))
    assert states(result) == ["fail", "fail"]
    assert result.exit_status == 1
    assert result.report.exists()
    assert not (tmp_path / "best.arch").exists()


def test_a_failed_candidate_is_nobodys_competitor(tmp_path):
    section = {"rank": HiddenCovariance(), "promote": Fraction(1, 1000), "rungs": (2,)}
    trouble = dict.fromkeys(("gru", "linear", "rnn"), "error")
    result = run(tmp_path, space_of(trials=3, trouble=trouble, section=section))
    assert states(result) == ["fail", "fail", "fail"]


def test_another_seed_is_another_study(tmp_path):
    run(tmp_path, trials=1)
    before = (tmp_path / "study.journal").read_bytes()
    with pytest.raises(ArchError, match="seed") as caught:
        run(tmp_path, trials=1, seed=5)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == "study-changed"
    assert "--study" in diagnostic.help
    assert (tmp_path / "study.journal").read_bytes() == before
    assert len(run(tmp_path, trials=1, seed=5, study="new").records) == 1


@pytest.mark.parametrize(("direction", "trials"), [("maximize", 1), ("minimize", 0)])
def test_a_study_of_another_program_is_left_alone(tmp_path, direction, trials):
    storage = f"sqlite:///{tmp_path}/studies.db"
    other = optuna.create_study(storage=storage, study_name="fake", direction=direction)
    for _ in range(trials):
        other.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ArchError, match="not begun by archdsl") as caught:
        run(tmp_path, storage=storage)
    assert caught.value.diagnostics[0].id == "not-a-study"
    assert other.user_attrs == {}
    assert len(other.trials) == trials


@pytest.mark.parametrize("line", ['{"op_code": 99, "worker_id": "a"}', '{"op_code": 4}'])
def test_a_study_whose_lines_do_not_agree_is_left_alone(tmp_path, line):
    run(tmp_path, trials=1)
    journal = tmp_path / "study.journal"
    journal.write_text(f"{journal.read_text()}{line}\n")
    before = journal.read_bytes()
    with pytest.raises(ArchError, match="do not make a study together") as caught:
        run(tmp_path, trials=1)
    assert caught.value.diagnostics[0].id == "damaged-study"
    assert journal.read_bytes() == before


def test_storages_nobody_knows_are_refused_in_words(tmp_path):
    with pytest.raises(ArchError, match="redis") as caught:
        run(tmp_path, storage="redis://localhost/studies")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == "unsupported-storage"
    assert "postgresql://" in diagnostic.help


@pytest.mark.parametrize(
    "storage",
    [
        "postgresql:/host/studies",
        "postgresql://host:port/studies",
        "sqlite:study.db",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_an_address_that_is_none_is_no_file_either(tmp_path, storage):
    with pytest.raises(ArchError) as caught:
        run(tmp_path, storage=storage)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == "malformed-storage"
    assert f"{storage.partition(':')[0]}://" in diagnostic.help


@pytest.mark.parametrize("storage", ["", "."])
def test_a_folder_is_no_storage(tmp_path, storage):
    with pytest.raises(ArchError, match="is a directory"):
        run(tmp_path, storage=storage)


def test_a_server_that_does_not_answer_is_said_in_words(tmp_path):
    pytest.importorskip("psycopg")
    with pytest.raises(ArchError) as caught:
        run(tmp_path, storage="postgresql://nobody:secret@127.0.0.1:9/studies")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == "storage-silent"
    assert "secret" not in diagnostic.message


def test_a_driver_that_is_not_installed_is_said_in_words(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ArchError, match="not installed") as caught:
        run(tmp_path, storage="postgresql://nobody@127.0.0.1/studies")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == "no-storage-driver"
    assert "pip install 'archdsl[postgresql]'" in diagnostic.help


def test_a_database_file_is_a_storage_like_any_other(tmp_path, whole):
    space, storage = space_of("tpe", "two", 10), f"sqlite:///{tmp_path}/studies.db"
    run(tmp_path / "one", space, trials=4, storage=storage)
    found = run(tmp_path / "two", space, storage=storage)
    assert facts(found.records) == facts(whole.records)


def test_data_that_nobody_reads_is_a_mistake(tmp_path, text_file):
    with pytest.raises(ArchError, match=r"words\.txt") as caught:
        run(tmp_path, data=text_file)
    assert caught.value.diagnostics[0].id == "unused-data"


def test_a_space_that_cannot_be_counted_is_searched(tmp_path):
    class Endless(type(space_of())):
        def count(self):
            raise ArchError(Diagnostic("too-entangled", "nobody knows"))

    result = run(tmp_path, Endless(SEARCH.model_copy(update={"trials": 1})))
    assert len(result.records) == 1
    assert result.count is None


def test_a_sampler_of_one_objective_refuses_two(tmp_path):
    class Narrow(Random):
        several = False

    space = FakeSpace(SEARCH.model_copy(update={"sampler": Narrow()}), OBJECTIVES["two"])
    with pytest.raises(ArchError, match="takes one objective, and the spec has 2") as caught:
        run(tmp_path, space)
    assert caught.value.diagnostics[0].id == "one-objective"


def test_a_component_that_only_has_a_name_is_refused(tmp_path):
    space = FakeSpace(SEARCH.model_copy(update={"sampler": Bare()}), OBJECTIVES["one"])
    with pytest.raises(ArchError, match="the sampler `bare` cannot be used") as caught:
        run(tmp_path, space)
    assert caught.value.diagnostics[0].id == "unusable-component"


class Bare(Sampler):
    name: ClassVar[str] = "bare"


def test_a_spec_without_a_task_says_so(tmp_path):
    class NoTask(type(space_of())):
        def decide(self, choose):
            arch = super().decide(choose)
            return type("Bare", (type(arch),), {"tasks": {}})(arch.assignment, arch.choices)

    with pytest.raises(ArchError, match="no task") as caught:
        run(tmp_path, NoTask(SEARCH))
    assert caught.value.diagnostics[0].id == "nothing-to-learn"


def test_ctrl_c_leaves_a_study_that_goes_on(tmp_path, monkeypatch):
    from archdsl.search.study.study import Study

    real, calls = Study._trained, []

    def interrupted(self, record, rung):
        calls.append(record.number)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, record, rung)

    space = space_of("tpe", "two", 6, section=EVERYONE)
    with monkeypatch.context() as patch:
        patch.setattr(Study, "_trained", interrupted)
        stopped = run(tmp_path / "a", space)
    assert stopped.status == "interrupted"
    assert stopped.exit_status == 130
    assert "stopped" in stopped.report.read_text()
    assert stopped.records[-1].state == "running"
    resumed = run(tmp_path / "a", space)
    assert facts(resumed.records) == facts(run(tmp_path / "b", space).records)


def lines_of(out):
    path = out / "study.journal"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed_after(out, lines, settings):
    """Kill a search with -9 once it has written so much; False where it ended before."""
    process, until = start(out, **settings), lines_of(out) + lines
    while process.poll() is None and lines_of(out) < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_kill_9_loses_and_repeats_nothing(tmp_path):
    settings = {"sampler": "tpe", "objectives": "two", "trials": 6}
    out, draw, kept = tmp_path / "killed", random.Random(0), {}
    while killed_after(out, draw.randrange(4, 12), settings):
        found = facts(records_of(out))
        assert all(found[number] == fact for number, fact in kept.items())
        kept |= {fact[0]: fact for fact in found if fact[1] != "running"}
    assert kept
    undisturbed = run(tmp_path / "whole", space_of(**settings))
    assert facts(records_of(out)) == facts(undisturbed.records)


def test_two_processes_share_a_study(tmp_path):
    settings = {"trials": 8, "trouble": {"linear": "slow", "gru": "slow", "rnn": "slow"}}
    both = [start(tmp_path / "shared", **settings) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    records = records_of(tmp_path / "shared")
    assert len(records) == 8
    assert all(record.finished for record in records)
    assert len({record.key for record in records}) == 8


def test_a_living_process_keeps_its_trial(tmp_path):
    run(tmp_path, trials=1)
    store = open_store(None, "fake", tmp_path)
    other = open_store(None, "fake", tmp_path)
    for each in (store, other):
        each.attach(["maximize"], store.storage.get_study_user_attrs(0)["archdsl"])
    record = store.records()[0]
    running = replace(record, state="running")
    mine = replace(running, attributes={**running.attributes, "owner": vars(store.owner)})
    assert other.abandoned([mine]) == []
    store.close()
    assert other.abandoned([mine]) == [mine]
    other.close()


def test_a_full_disk_stops_the_search_and_the_next_start_goes_on(tmp_path, monkeypatch):
    from archdsl.search.storage import journal

    real, written = os.write, []

    def full(handle, data):
        written.append(handle)
        if len(written) > 12:
            raise OSError(28, "No space left on device")
        return real(handle, data)

    space = space_of("tpe", "two", 6)
    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "write", full)
        with pytest.raises(ArchError, match="no space left"):
            run(tmp_path / "a", space)
    resumed = run(tmp_path / "a", space)
    assert facts(resumed.records) == facts(run(tmp_path / "b", space).records)


def test_nothing_of_torch_is_loaded_by_the_search_itself():
    import subprocess
    import sys

    code = "import archdsl.search.main, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_paths_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(Path("here"), trials=1)
    assert (tmp_path / "here" / "best.safetensors").exists() or result.best is None
