"""Runs of the search on fake spaces, in this process or in one that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

from fakes import ACCURACY, SEARCH, STATE, FakeSpace

from archdsl.blocks.registry import find
from archdsl.search.main import Request, help_out, search
from archdsl.search.storage.records import Record
from archdsl.search.storage.store import open_store

SETTINGS: dict[str, dict] = {
    "random": {},
    "exhaustive": {},
    "tpe": {"startup": 3},
    "gp": {"startup": 3, "candidates": 16},
    "nsga2": {"population": 3},
    "nsga3": {"population": 3},
    "evolution": {"population": 4, "tournament": 2},
    "tree_search": {},
    "reinforce": {"startup": 2},
}
"""Of each sampler, so that a dozen trials show what it does: a new one joins here."""
SAMPLERS = {name: find("sampler", name)(**given) for name, given in SETTINGS.items()}
OBJECTIVES = {"one": (ACCURACY,), "two": (ACCURACY, STATE)}


def space_of(
    sampler: str = "random", objectives: str = "one", trials: int = 6, trouble=None, **changes
) -> FakeSpace:
    section = SEARCH.model_copy(
        update={"sampler": SAMPLERS[sampler], "trials": trials, **changes.pop("section", {})}
    )
    return FakeSpace(section, OBJECTIVES[objectives], trouble or {}, **changes)


def run(out: Path, space: FakeSpace | None = None, **given):
    return search(space or space_of(), "fake", Path(), request(out, **given))


def request(out: Path, **given) -> Request:
    return Request(out=out, quiet=True, loader="fakes:load_fake", **given)


def command(out: Path, settings: dict, verb: str = "search", **given) -> list[str]:
    """What runs a search in a process of its own; ``settings`` are of :func:`space_of`."""
    return [sys.executable, __file__, verb, str(out), json.dumps(settings), json.dumps(given)]


def start(out: Path, settings: dict | None = None, **given) -> subprocess.Popen:
    """The same in a process of its own; ``given`` without ``settings`` are the settings."""
    settings, given = (given, {}) if settings is None else (settings, given)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command(out, settings, **given), env=environment)


def facts(records) -> list:
    """What two equal searches agree on: everything but times and owners."""
    return [
        (r.number, r.state, r.reason, r.values, dict(r.params), r.scores,
         [(rung.objectives, rung.measures, rung.curves) for rung in r.rungs], r.arch["proposal"])
        for r in records
    ]  # fmt: skip


def records_of(out: Path, storage: str | None = None) -> list[Record]:
    store = open_store(storage, "fake", out)
    try:
        store.id = store.storage.get_study_id_from_name("fake")
        return store.records()
    finally:
        store.close()


EVERYONE = {"promote": Fraction(1), "rank": None}
"""Changes of the section that train every candidate."""


if __name__ == "__main__":
    verb, out = {"search": search, "help": help_out}[sys.argv[1]], Path(sys.argv[2])
    settings, given = map(json.loads, sys.argv[3:])
    verb(space_of(**settings), "fake", Path(), request(out, **given))
