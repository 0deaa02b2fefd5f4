"""A search that is killed again and again: ``python -m tests.studies.kill --kills 5``.

A small real search runs as a process of its own. At random moments it is ended by ``kill -9`` (at times
its worker with it) and started again with the same command. At the end every trial that was ever finished
must be there as it was, no architecture twice, and all of it equal to an undisturbed run. A run of half the
trials and then of all must equal a run of all.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

SPEC = """\
let width  = 16 | 32 | 48
let heads  = 2 | 4
let memory = gla | gated_deltanet | retnet | hgrn2

model {
    embed(dim = width)
    repeat(1 | 2) {
        residual { rms_norm  memory(heads = heads) }
        residual { rms_norm  swiglu(expand = 1 | 2) }
    }
    rms_norm
    lm_head(tied = true)
}

require params <= 20K

task recall = mqar(vocab = 32, length = 24, pairs = 4)

train { batch = 8  evaluate = 32 }

search {
    trials  = 50
    sampler = tpe
    rank    = hidden_covariance
    promote = 1/2
    rungs   = [4, 10]
    maximize recall.accuracy
    minimize params
}
"""

COMMAND = [sys.executable, "-c", "from archdsl.cli import main; main()", "search"]

Facts = dict[int, Any]
"""What is known of each finished trial, by its number; times and owners apart."""


def start(folder: Path, trials: int) -> subprocess.Popen[bytes]:
    """The search as a user starts it, in a process group of its own."""
    out = folder / "run.log"
    with out.open("ab") as log:
        return subprocess.Popen(
            [*COMMAND, "spec.arch", "--out", "run", "--trials", str(trials), "--quiet"],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def facts(folder: Path) -> Facts:
    """Every finished trial of a run."""
    from archdsl.search.storage.store import open_store

    run = folder / "run"
    if not (run / "study.journal").exists():
        return {}
    store = open_store(None, "spec", run)
    try:
        signature = store.storage.get_study_user_attrs(0)["archdsl"]
        store.attach(["maximize", "minimize"], signature)
        return {r.number: fact(r) for r in store.records() if r.finished}
    except (IndexError, KeyError):
        return {}  # the study was not founded yet
    finally:
        store.close()


def fact(record: Any) -> tuple[Any, ...]:
    """What must be equal in two equal searches."""
    rungs = [(r.step, r.objectives, dict(r.measures), dict(r.curves)) for r in record.rungs]
    return record.state, record.reason, record.values, record.key, record.scores, rungs


def finish(folder: Path, trials: int) -> None:
    """Run a search to its end."""
    ended(start(folder, trials), folder)


def ended(running: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a search that must end well."""
    status = running.wait()
    assert status == 0, f"exit status {status}: {(folder / 'run.log').read_text()[-2000:]}"


def workers(pid: int) -> list[int]:
    """The processes a process has started (Linux; nothing elsewhere)."""
    known = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in known.read_text().split()] if known.exists() else []


def timed(folder: Path, trials: int) -> tuple[float, float]:
    """Run a search to its end; seconds until its first trial was finished, and until its end."""
    begin, first = time.monotonic(), 0.0
    running = start(folder, trials)
    while running.poll() is None:
        time.sleep(0.2)
        if not first and facts(folder):
            first = time.monotonic() - begin
    ended(running, folder)
    return first, time.monotonic() - begin


def killed(
    folder: Path, trials: int, kills: int, chance: random.Random, moments: tuple[float, float]
) -> Facts:
    """Run a search that is killed; after each kill nothing may be lost.

    Args:
        folder: of the spec.
        trials: of the study.
        kills: how often.
        chance: when, and how.
        moments: seconds an undisturbed run takes to its first finished trial, and in all.
    """
    first, whole = moments
    known: Facts = {}
    for number in range(kills):
        running = start(folder, trials)
        time.sleep(chance.uniform(0.3 * first, first + 1.5 * (whole - first) / kills))
        victims = [running.pid, *(workers(running.pid) if chance.random() < 0.5 else [])]
        if running.poll() is None:
            for victim in victims:
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
        running.wait()
        now = facts(folder)
        lost = [n for n, before in known.items() if now.get(n) != before]
        assert not lost, f"kill {number + 1}: trials {lost} are not what they were"
        known = now
        print(f"kill {number + 1} ({len(victims)} processes): {len(known)} trials kept")
    finish(folder, trials)
    final = facts(folder)
    assert all(final[n] == before for n, before in known.items()), "a finished trial has changed"
    return final


def folder_with(spec: str, under: Path, name: str) -> Path:
    """A folder with the spec in it."""
    folder = under / name
    folder.mkdir()
    (folder / "spec.arch").write_text(spec)
    return folder


def study(trials: int, kills: int, seed: int, spec: str = SPEC) -> Facts:
    """The whole study: what an undisturbed run finds, and AssertionError where another does not."""
    with tempfile.TemporaryDirectory() as name:
        under = Path(name)
        calm = folder_with(spec, under, "calm")
        moments = timed(calm, trials)
        expected = facts(calm)
        assert len(expected) == trials, f"{len(expected)} trials of {trials}"
        print(
            f"undisturbed: {trials} trials in {moments[1]:.0f} s, the first after {moments[0]:.0f} s"
        )
        disturbed = folder_with(spec, under, "killed")
        found = killed(disturbed, trials, kills, random.Random(seed), moments)
        compare(found, expected, f"killed {kills} times")
        halves = folder_with(spec, under, "halves")
        finish(halves, trials // 2)
        compare(
            facts(halves),
            {n: f for n, f in expected.items() if n < trials // 2},
            "half of it",
            keys_only=True,
        )
        finish(halves, trials)
        compare(facts(halves), expected, f"{trials // 2} + {trials - trials // 2} trials")
        return expected


def compare(found: Facts, expected: Facts, what: str, keys_only: bool = False) -> None:
    """Demand that two runs are one and the same."""
    assert found.keys() == expected.keys(), (
        f"{what}: trials {sorted(found.keys() ^ expected.keys())} differ"
    )
    keys = [one[3] for one in found.values()]
    assert len(set(keys)) == len(keys), f"{what}: an architecture was run twice"
    if not keys_only:
        odd = [n for n in expected if found[n] != expected[n]]
        assert not odd, f"{what}: trials {odd} differ: {found[odd[0]]} is not {expected[odd[0]]}"
    print(f"{what}: the same {len(found)} trials, none twice")


def arguments(about: str | None, kills: int, trials: int) -> argparse.ArgumentParser:
    """What every study of kills is asked."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--trials", type=int, default=trials)
    parser.add_argument("--seed", type=int, default=0)
    return parser


@contextmanager
def demanding() -> Iterator[None]:
    """End with a word and exit status 1 where something that was promised is not so."""
    try:
        yield
    except AssertionError as error:
        sys.exit(f"broken: {error}")


def main() -> None:
    """Run the study."""
    options = arguments(__doc__, kills=5, trials=50).parse_args()
    with demanding():
        study(options.trials, options.kills, options.seed)


if __name__ == "__main__":
    main()
