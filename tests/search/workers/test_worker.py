import os
import signal
import threading
import time

import pytest
from fakes import FakeArch

from archdsl.diagnostics import ArchError
from archdsl.search.workers.worker import Failure, Worker


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    made = Worker(tmp_path_factory.mktemp("worker") / "worker.log", "fakes:load_fake", threads=1)
    yield made
    made.stop()


def request(tmp_path, trouble=None, width="4", **given):
    choices = {"model.memory": "gru", "model.width": width}
    return {
        "do": "train", "trial": 0, "seed": 0, "device": "cpu", "data": None, "folder": ".",
        "rungs": [2, 4], "rung": 0, "checkpoint": str(tmp_path / "0000.checkpoint"),
        "arch": FakeArch({}, choices, {"gru": trouble} if trouble else {}).text, **given,
    }  # fmt: skip


def test_it_trains_rung_by_rung_and_resumes_from_a_checkpoint(worker, tmp_path):
    first = worker.request(request(tmp_path), 60)
    assert set(first["measures"]) == {"recall.accuracy"}
    assert (tmp_path / "0000-recall.checkpoint").exists()
    second = worker.request(request(tmp_path, rung=1), 60)
    worker.stop()
    resumed = worker.request(request(tmp_path, rung=1), 60)
    assert resumed["measures"] == second["measures"]
    assert resumed["curves"] == second["curves"]


def test_it_keeps_weights_even_after_a_restart(worker, tmp_path):
    worker.request(request(tmp_path), 60)
    worker.request(request(tmp_path, rung=1), 60)
    weights = tmp_path / "weights.safetensors"
    worker.request(request(tmp_path, do="keep", weights=str(weights)), 60)
    kept = weights.read_bytes()
    worker.stop()
    worker.request(request(tmp_path, do="keep", weights=str(weights)), 60)
    assert weights.read_bytes() == kept


def test_it_scores(worker, tmp_path):
    metrics = [{"name": "snip", "arguments": {}}, {"name": "params", "arguments": {}}]
    found = worker.request(request(tmp_path, do="score", metrics=metrics), 60)
    assert set(found["scores"]) == {"snip", "params"}
    assert found["seconds"] > 0
    assert worker.about["torch"]


@pytest.mark.parametrize(
    ("trouble", "reason", "says"),
    [
        ("nan", "diverged", "step 0"),
        ("error", "error", "ValueError: this model"),
        ("memory", "out-of-memory", ""),
        ("segfault", "crashed", "SIGSEGV"),
        ("hang", "timeout", "longer than 3 s"),
    ],
)
def test_trouble_is_a_failure_with_a_reason_and_the_next_candidate_runs(
    worker, tmp_path, trouble, reason, says
):
    worker._ready()
    with pytest.raises(Failure) as caught:
        worker.request(request(tmp_path, trouble), 3 if trouble == "hang" else 60)
    assert caught.value.reason == reason
    assert says in caught.value.message
    assert "\n" not in caught.value.message
    assert worker.request(request(tmp_path, trial=1), 60)["measures"]


def test_torch_out_of_memory_is_bounded_by_a_limit(tmp_path):
    limited = Worker(tmp_path / "worker.log", "fakes:load_fake", threads=1, memory=2**28)
    try:
        with pytest.raises(Failure) as caught:
            limited.request(request(tmp_path, width="20000"), 60)
        assert caught.value.reason == "out-of-memory"
    finally:
        limited.stop()


def test_a_worker_that_is_killed_is_a_failure(worker, tmp_path):
    worker._ready()
    pid = worker._process.pid
    killer = threading.Timer(1.0, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(Failure) as caught:
        worker.request(request(tmp_path, "hang"), 60)
    assert caught.value.reason == "killed"


def test_a_full_disk_is_the_machines_failure(worker, tmp_path):
    asked = request(tmp_path, "disk", do="keep", weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(ArchError) as caught:
        worker.request(asked, 60)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == "study-not-written"
    assert "no space left" in diagnostic.message


def test_what_a_candidate_prints_goes_to_the_log(worker, tmp_path):
    with pytest.raises(Failure):
        worker.request(request(tmp_path, "error", trial=7), 60)
    assert "ValueError" in worker.log.read_text()


def test_a_worker_that_cannot_start_says_where_to_look(tmp_path):
    broken = Worker(tmp_path / "worker.log", "no_such_module:nothing")
    with pytest.raises(ArchError) as caught:
        broken.request(request(tmp_path), 10)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == "no-worker"
    assert "no_such_module" in diagnostic.notes[0]


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_the_users_mistake(tmp_path, device):
    worker = Worker(tmp_path / "worker.log", "fakes:load_fake", device=device)
    with pytest.raises(ArchError) as caught:
        worker.request(request(tmp_path), 60)
    assert [found.id for found in caught.value.diagnostics] == ["unusable-device"]


def test_it_ends_with_the_search(tmp_path):
    worker = Worker(tmp_path / "worker.log", "fakes:load_fake", threads=1)
    worker._ready()
    process = worker._process
    process.stdin.close()
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is not None
    worker.stop()
