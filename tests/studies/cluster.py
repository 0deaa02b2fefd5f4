"""Many workers on one database, killed at random: ``python -m tests.studies.cluster``.

A PostgreSQL server of its own is started on the loopback interface (:mod:`tests.studies.servers`). Workers
are the command a user runs on each machine. The study is run once by one worker, undisturbed; then by
several, of which one is killed by ``kill -9`` at random moments and started again. At the end every trial
must have ended, none may be there twice, and with a sampler that does not depend on the order of results
every trial must be equal to the undisturbed one's.

``--storage mysql`` does the same on a MariaDB server, ``--storage sqlite`` on a database file without one.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.studies.kill import COMMAND, ROOT, SPEC, arguments, demanding, fact, folder_with
from tests.studies.servers import SERVERS

CLUSTER_SPEC = (
    SPEC.replace("sampler = tpe", "sampler = SAMPLER")
    .replace("repeat(1 | 2)", "repeat(1 | 2 | 3)")
    .replace("expand = 1 | 2", "expand = 1 | 2 | 3 | 4")
    .replace("20K", "100K")
)
"""The spec of the kill study, with room for hundreds of architectures."""

LEASE = 4.0
"""Seconds of silence after which a worker is dead to the others."""


@dataclass
class Outcome:
    """What a run left behind."""

    seconds: float
    trials: dict[int, Any]
    kills: int
    owners: set[int]


def worker(folder: Path, storage: str, name: str, trials: int) -> subprocess.Popen[bytes]:
    """One machine's command, in a folder of its own."""
    out = folder / "worker.log"
    with out.open("ab") as log:
        return subprocess.Popen(
            [
                *COMMAND, "spec.arch", "--out", "run", "--trials", str(trials), "--storage", storage,
                "--study", name, "--lease", str(LEASE), "--quiet",
            ],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def records(store: Any) -> list[Any]:
    """Every trial of a study, as the search reads it."""
    try:
        store.id = store.storage.get_study_id_from_name(store.name)
    except KeyError:
        return []  # the study was not founded yet
    found: list[Any] = store.records()
    return found


def together(
    under: Path, storage: str, name: str, spec: str, workers: int, trials: int, kills: int,
    chance: random.Random,
) -> Outcome:  # fmt: skip
    """Run a study by several workers, killing one at a time; every killed one is started again."""
    from archdsl.search.storage.store import open_store

    folders = [folder_with(spec, under, f"{name}-{number}") for number in range(workers)]
    begin, store = time.monotonic(), open_store(storage, name, under)
    running = [worker(folder, storage, name, trials) for folder in folders]
    killed, next_kill, known = 0, 1.0, dict[int, Any]()
    try:
        while any(process.poll() is None for process in running):
            time.sleep(0.2)
            done = {r.number: fact(r) for r in records(store) if r.finished}
            lost = [number for number, before in known.items() if done.get(number) != before]
            assert not lost, f"trials {lost} are not what they were"
            known = done
            victim = chance.randrange(workers)
            if killed < kills and len(done) >= next_kill and running[victim].poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(running[victim].pid, signal.SIGKILL)
                running[victim].wait()
                running[victim] = worker(folders[victim], storage, name, trials)
                killed, next_kill = killed + 1, len(done) + chance.uniform(0, 1.5) * trials / kills
                print(f"kill {killed}: worker {victim}, {len(done)} trials finished", flush=True)
    finally:
        for process in running:
            process.kill()
            process.wait()
    bad = [n for n, process in enumerate(running) if process.returncode != 0]
    assert not bad, "\n".join((folders[n] / "worker.log").read_text()[-1500:] for n in bad)
    ended = records(store)
    store.close()
    assert all(record.finished for record in ended), "a trial was lost"
    return Outcome(
        time.monotonic() - begin, {r.number: fact(r) for r in ended}, killed,
        {r.owner.pid for r in ended if r.owner},
    )  # fmt: skip


def study(
    trials: int, workers: int, kills: int, seed: int, sampler: str, storage: str
) -> tuple[Outcome, Outcome]:
    """The whole study; raises AssertionError where a promise is broken."""
    spec = CLUSTER_SPEC.replace("SAMPLER", sampler)
    with tempfile.TemporaryDirectory() as name:
        under = Path(name)
        under.chmod(0o755)
        (under / "server").mkdir()
        with database(storage, under / "server") as url:
            calm = together(under, url, "calm", spec, 1, trials, 0, random.Random(seed))
            print(f"one worker, undisturbed: {len(calm.trials)} trials in {calm.seconds:.0f} s")
            rough = together(under, url, "rough", spec, workers, trials, kills, random.Random(seed))
            judge(calm, rough, trials, sampler)
    return calm, rough


@contextmanager
def database(storage: str, folder: Path) -> Iterator[str]:
    """A database to run on; gives its URL."""
    if storage == "sqlite":
        yield f"sqlite:///{folder}/studies.db"
    elif "://" in storage:
        yield storage
    else:
        with SERVERS[storage](folder) as url:
            yield url


def judge(calm: Outcome, rough: Outcome, trials: int, sampler: str) -> None:
    """Demand what was promised, and say it."""
    from archdsl.blocks.registry import find

    keys = [one[3] for one in rough.trials.values()]
    twice = len(keys) - len(set(keys))
    lost = trials - len(rough.trials)
    print(
        f"{rough.kills} kills of workers: {len(rough.trials)} finished, {lost} lost, {twice} duplicates,"
        f" {len(rough.owners)} processes finished trials, {rough.seconds:.0f} s"
    )
    assert lost == 0, f"{lost} trials are missing"
    assert twice == 0, f"{twice} architectures were run twice"
    failed = [n for n, one in rough.trials.items() if one[0] == "fail"]
    assert not failed, f"trials {failed} failed"
    cls = find("sampler", sampler)
    if getattr(cls, "order_independent", False):
        odd = [n for n in calm.trials if calm.trials[n] != rough.trials[n]]
        assert not odd, f"trials {odd} differ: {rough.trials[odd[0]]} is not {calm.trials[odd[0]]}"
        print(f"all {trials} trials, their results and their best are those of the undisturbed run")


def main() -> None:
    """Run the study."""
    parser = arguments(__doc__, kills=30, trials=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--sampler", default="random")
    parser.add_argument(
        "--storage", default="postgresql", help="postgresql, mysql, sqlite or a URL"
    )
    options = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit("ended")
    )  # the server and the workers end too
    with demanding():
        study(
            options.trials, options.workers, options.kills, options.seed, options.sampler,
            options.storage,
        )  # fmt: skip


if __name__ == "__main__":
    main()
