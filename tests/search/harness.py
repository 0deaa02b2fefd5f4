"""Checks that take minutes, on a real spec: run by hand, not by the test suite.

    python tests/search/harness.py kill   specs/hybrid.arch --trials 20 --kills 5
    python tests/search/harness.py halves specs/hybrid.arch --trials 50
    python tests/search/harness.py disk   specs/hybrid.arch --trials 6      (as root: mounts a tmpfs)

``kill``: a search killed with -9 at random moments and started again each time ends as an undisturbed
one. ``halves``: half the trials and then all of them are the trials of one go. ``disk``: a full disk stops
a search with a message, and the next start goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from archdsl.search.storage.records import Record
from archdsl.search.storage.store import open_store

RUN = """
import json, sys
import archdsl.search
from archdsl.diagnostics import ArchError
given = json.loads(sys.argv[1])
try:
    result = archdsl.search.run(given.pop("spec"), **given)
except ArchError as error:
    sys.exit("\\n".join(f"{d.id}: {d.message} (help: {d.help})" for d in error.diagnostics))
sys.exit(result.exit_status)
"""


def start(spec: str, out: Path, **given: object) -> subprocess.Popen[bytes]:
    """A search in a process of its own."""
    command = [sys.executable, "-c", RUN, json.dumps({"spec": spec, "out": str(out), **given})]
    path = os.pathsep.join(part or os.getcwd() for part in sys.path)
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})


def records(out: Path, name: str) -> list[Record]:
    """What a study holds."""
    store = open_store(None, name, out)
    try:
        store.id = store.storage.get_study_id_from_name(name)
        return store.records()
    finally:
        store.close()


def facts(record: Record) -> object:
    """What equal searches agree on: everything but times and owners."""
    rungs = [(rung.objectives, rung.measures, rung.curves) for rung in record.rungs]
    return (
        record.number,
        record.state,
        record.reason,
        record.values,
        record.key,
        record.scores,
        rungs,
    )


def compared(one: list[Record], other: list[Record]) -> bool:
    """Whether two studies are the same, with a line for every trial that is not."""
    for a, b in zip(one, other, strict=False):
        if facts(a) != facts(b):
            print(f"trial {a.number} differs:\n  {facts(a)}\n  {facts(b)}")
    return len(one) == len(other) and all(map(_same, one, other))


def _same(one: Record, other: Record) -> bool:
    return facts(one) == facts(other)


def kill(spec: str, folder: Path, trials: int, kills: int, seed: int) -> bool:
    """Kill a search at random moments, and compare its end with an undisturbed one."""
    name, out, draw = Path(spec).stem, folder / "killed", random.Random(seed)
    finished: dict[int, object] = {}
    for number in range(kills):
        process = start(spec, out, trials=trials, quiet=True)
        time.sleep(draw.uniform(8, 40))
        process.kill()
        process.wait()
        found = [record for record in records(out, name) if record.finished]
        lost = [n for n, fact in finished.items() if fact not in map(facts, found)]
        finished = {record.number: facts(record) for record in found}
        print(f"kill {number + 1}: {len(found)} trials finished, lost or changed: {lost or 'none'}")
    status = start(spec, out, trials=trials).wait()
    print(f"the last start needed no help: exit status {status}")
    start(spec, folder / "whole", trials=trials, quiet=True).wait()
    return compared(records(out, name), records(folder / "whole", name))


def halves(spec: str, folder: Path, trials: int) -> bool:
    """Half the trials, then all of them; and all of them at once."""
    name = Path(spec).stem
    for count in (trials // 2, trials):
        start(spec, folder / "twice", trials=count).wait()
    start(spec, folder / "once", trials=trials).wait()
    return compared(records(folder / "twice", name), records(folder / "once", name))


def disk(spec: str, folder: Path, trials: int) -> bool:
    """Fill the disk under a search; then make room and go on."""
    name, out = Path(spec).stem, folder / "small"
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(out)], check=True)
    try:
        status = start(spec, out, trials=trials, quiet=True).wait()
        print(f"full: exit status {status}")
        subprocess.run(["mount", "-o", "remount,size=500m", str(out)], check=True)
        print(f"with room: exit status {start(spec, out, trials=trials, quiet=True).wait()}")
        start(spec, folder / "whole", trials=trials, quiet=True).wait()
        return status == 1 and compared(records(out, name), records(folder / "whole", name))
    finally:
        subprocess.run(["umount", str(out)], check=True)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("check", choices=["kill", "halves", "disk"])
    parser.add_argument("spec")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="harness-"))
    passed = {
        "kill": lambda: kill(given.spec, folder, given.trials, given.kills, given.seed),
        "halves": lambda: halves(given.spec, folder, given.trials),
        "disk": lambda: disk(given.spec, folder, given.trials),
    }[given.check]()
    print("passed" if passed else f"FAILED; see {folder}")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
