import errno
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import optuna
import pytest

from archdsl.diagnostics import ArchError
from archdsl.search.storage import journal as journal_module
from archdsl.search.storage.journal import Journal
from archdsl.search.storage.locks import Lease, alive, held


def study(path):
    storage = optuna.storages.JournalStorage(Journal(path))
    return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)


def add(study, count=1):
    for number in range(count):
        study.add_trial(optuna.trial.create_trial(value=float(number)))


def diagnostic(caught):
    (found,) = caught.value.diagnostics
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "study.journal"


def test_trials_are_there_for_the_next_process(path):
    add(study(path), 3)
    assert len(study(path).trials) == 3


@pytest.mark.parametrize(
    "torn", [b'{"op_code": 4, "wor', b"\0\0\0\0", b'{"op_code": 4}', b"half\nmore"]
)
def test_a_torn_end_is_put_aside(path, torn):
    add(study(path), 3)
    sound = path.read_bytes()
    path.write_bytes(sound + torn)
    reopened = study(path)
    assert len(reopened.trials) == 3
    add(reopened)
    assert len(study(path).trials) == 4
    assert torn in path.with_name("study.journal.torn").read_bytes()
    for line in path.read_bytes().splitlines():
        json.loads(line)


def test_an_end_torn_while_we_run_is_put_aside_before_the_next_write(path):
    ours = study(path)
    add(ours)
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "study')
    add(ours)
    assert len(study(path).trials) == 2


def test_damage_in_the_middle_is_named_and_nothing_is_touched(path):
    add(study(path), 3)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b"garbage\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(ArchError) as caught:
        study(path)
    assert diagnostic(caught).id == "damaged-study"
    assert "line 2" in diagnostic(caught).message
    assert path.read_bytes() == b"".join(lines)


def test_a_file_that_is_no_study_is_left_alone(path):
    path.parent.mkdir()
    path.write_text("my precious notes\n")
    with pytest.raises(ArchError) as caught:
        study(path)
    assert diagnostic(caught).id == "not-a-study"
    assert path.read_text() == "my precious notes\n"


def test_a_device_keeps_no_study():
    with pytest.raises(ArchError) as caught:
        study(Path("/dev/null"))
    assert diagnostic(caught).id == "not-a-study"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ArchError) as caught:
        study(tmp_path / "run" / "study.journal")
    assert diagnostic(caught).id == "study-not-written"
    assert "--out" in diagnostic(caught).help


def test_a_folder_that_was_removed_meanwhile(path):
    ours = study(path)
    add(ours, 1)
    shutil.rmtree(path.parent)
    with pytest.raises(ArchError) as caught:
        add(ours, 1)
    assert diagnostic(caught).id == "study-not-written"


@pytest.mark.parametrize("taken", [0, 17])
def test_a_full_disk_loses_nothing(path, monkeypatch, taken):
    ours = study(path)
    add(ours, 2)
    before = path.read_bytes()
    real = os.write

    def full(handle, data):
        if taken and len(data) > taken:
            return real(handle, data[:taken])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "write", full)
        with pytest.raises(ArchError) as caught:
            add(ours)
    assert "no space left" in diagnostic(caught).message
    assert path.read_bytes() == before
    add(ours)
    assert len(study(path).trials) == 3


def test_what_belongs_together_is_one_write_or_none(path):
    study(path)
    journal = Journal(path)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        _interrupted(journal)
    assert path.read_bytes() == before
    with journal.together():
        journal.append_logs([{"op_code": 8}])
        assert path.read_bytes() == before
        journal.append_logs([{"op_code": 6}])
    assert path.read_bytes() == before + b'{"op_code":8}\n{"op_code":6}\n'


def _interrupted(journal):
    with journal.together():
        journal.append_logs([{"op_code": 8}])
        raise KeyboardInterrupt


def test_only_what_was_written_since_is_read(path, monkeypatch):
    ours = study(path)
    add(ours, 2)
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "open", None)  # nothing is opened
        assert len(ours.get_trials()) == 2
    add(study(path))
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "stu')  # another process is in the middle of it
    assert len(ours.get_trials()) == 3
    journal = Journal(path)
    whole = list(journal.read_logs(0))
    assert list(journal.read_logs(2)) == whole[2:]
    assert list(journal.read_logs(len(whole))) == []


def _write(path, count):
    add(study(path), count)


def test_processes_write_one_at_a_time(path):
    study(path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, 20)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(study(path).trials) == 80


def _hold_and_die(path, ready):
    with held(path):
        ready.set()
        os.kill(os.getpid(), 9)


def test_a_lock_dies_with_its_process(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold_and_die, args=(tmp_path / "lock", ready))
    process.start()
    process.join()
    assert ready.is_set()
    with held(tmp_path / "lock"):
        pass


def _lease_and_die(path):
    Lease(path)
    os.kill(os.getpid(), 9)


def test_a_lease_shows_who_lives(tmp_path):
    ours = Lease(tmp_path / "ours")
    assert alive(tmp_path / "ours")
    ours.release()
    assert not alive(tmp_path / "ours")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_lease_and_die, args=(tmp_path / "theirs",))
    process.start()
    process.join()
    assert (tmp_path / "theirs").exists()
    assert not alive(tmp_path / "theirs")
