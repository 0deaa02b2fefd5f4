"""Runs of the search on fake spaces, in this process or in one that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

from fakes import ACCURACY, SEARCH, STATE, FakeSpace

from archdsl.search.main import Request, search
from archdsl.search.records import Record
from archdsl.search.samplers import NSGA2, TPE, Random
from archdsl.search.storage import open_store

SAMPLERS = {"random": Random(), "tpe": TPE(startup=3), "nsga2": NSGA2(population=3)}
OBJECTIVES = {"one": (ACCURACY,), "two": (ACCURACY, STATE)}


def space_of(
    sampler: str = "random", objectives: str = "one", trials: int = 6, trouble=None, **changes
) -> FakeSpace:
    section = SEARCH.model_copy(
        update={"sampler": SAMPLERS[sampler], "trials": trials, **changes.pop("section", {})}
    )
    return FakeSpace(section, OBJECTIVES[objectives], trouble or {}, **changes)


def run(out: Path, space: FakeSpace | None = None, **given):
    request = Request(out=out, quiet=True, loader="fakes:load_fake", **given)
    return search(space or space_of(), "fake", Path(), request)


def start(out: Path, **settings) -> subprocess.Popen:
    """The same in a process of its own; ``settings`` are of :func:`space_of`."""
    command = [sys.executable, __file__, str(out), json.dumps(settings)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def facts(records) -> list:
    """What two equal searches agree on: everything but times and owners."""
    return [
        (r.number, r.state, r.reason, r.values, dict(r.params), r.scores,
         [(rung.objectives, rung.measures, rung.curves) for rung in r.rungs], r.arch["proposal"])
        for r in records
    ]  # fmt: skip


def records_of(out: Path) -> list[Record]:
    store = open_store(None, "fake", out)
    try:
        store.attach(["maximize"], store.storage.get_study_user_attrs(0)["archdsl"])
        return store.records()
    finally:
        store.close()


EVERYONE = {"promote": Fraction(1), "rank": None}
"""Changes of the section that train every candidate."""


if __name__ == "__main__":
    run(Path(sys.argv[1]), space_of(**json.loads(sys.argv[2])))
