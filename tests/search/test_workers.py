"""Several processes, one study: the same trials as one process, whoever is killed."""

import os
import signal
import time
from dataclasses import replace
from fractions import Fraction

import pytest
from runs import command, facts, records_of, run, space_of, start

from archdsl.search.helpers import Helpers
from archdsl.search.storage.guards import Pulse, lock_key
from archdsl.search.storage.records import SCORES, Record, rung_key
from archdsl.search.storage.store import Lost, open_store
from archdsl.search.study.halving import at_rung, by_score

HALF = Fraction(1, 2)


def trial(number, state="running", score=None, rungs=()):
    attributes = {} if score is None else {SCORES: {"values": {"m": score}, "seconds": 0.0}}
    for rung, value in enumerate(rungs):
        attributes[rung_key(rung)] = {
            "step": rung, "objectives": [value], "measures": {}, "curves": {}, "seconds": 0.0,
        }  # fmt: skip
    return Record(number, number, state, None, attributes)


# --- decisions ------------------------------------------------------------------------------------


def test_a_verdict_looks_at_earlier_trials_alone():
    mine = trial(1, score=1.0)
    assert (
        by_score(mine, [trial(0, "pruned", 0.0), mine, trial(2, "pruned", 9.0)], "m", HALF) == "on"
    )
    assert by_score(mine, [trial(0, "pruned", 2.0), mine], "m", HALF) == "cut"


def test_a_verdict_waits_only_for_what_could_change_it():
    mine = trial(1, score=1.0)
    assert by_score(mine, [trial(0), mine], "m", HALF) == "wait"
    assert by_score(mine, [trial(0, score=0.0), mine], "m", HALF) == "on"
    assert by_score(mine, [trial(0, score=2.0), mine], "m", HALF) == "wait", "it may still fail"
    mine = trial(4, score=1.0)
    better = [trial(n, "pruned", 2.0) for n in range(3)]
    assert by_score(mine, [*better, trial(3), mine], "m", HALF) == "cut"


@pytest.mark.parametrize("seed", range(40))
def test_a_verdict_is_what_it_will_be_when_all_have_ended(seed):
    import random

    draw = random.Random(seed)
    mine = trial(8, score=draw.random())
    ends = [trial(n, draw.choice(("pruned", "complete", "fail")), draw.random()) for n in range(8)]
    final = by_score(mine, [*ends, mine], "m", HALF)
    assert final != "wait"
    for _ in range(20):
        seen = [
            draw.choice((end, replace(end, state="running"), trial(end.number))) for end in ends
        ]
        assert by_score(mine, [*seen, mine], "m", HALF) in (final, "wait")


def test_a_rung_waits_for_those_before_that_may_reach_it():
    mine = trial(2, score=0.0, rungs=(0.5,))
    reached = trial(0, "fail", rungs=(0.9,))
    assert at_rung(mine, [reached, trial(1), mine], 0, 1, HALF, ["maximize"]) == "wait"
    assert at_rung(mine, [reached, trial(1, "pruned"), mine], 0, 1, HALF, ["maximize"]) == "cut"
    assert at_rung(mine, [reached, trial(1, "pruned"), mine], 0, 1, HALF, ["minimize"]) == "on"


@pytest.mark.parametrize(("foretold", "verdict"), [(1.0, "cut"), (-1.0, "on")])
def test_a_rung_cuts_as_far_as_it_has_foretold_the_last_one(foretold, verdict):
    earlier = [trial(n, "complete", rungs=(float(n), foretold * n)) for n in range(10)]
    mine = trial(20, rungs=(2.5,))
    assert at_rung(mine, [*earlier, mine], 0, 1, HALF, ["maximize"]) == verdict


def test_a_rung_waits_for_the_ends_it_is_measured_by_and_for_no_newer_ones():
    mine = trial(20, rungs=(0.5,))
    old, new = (trial(number, rungs=(0.9,)) for number in (11, 12))
    assert at_rung(mine, [old, mine], 0, 1, HALF, ["maximize"]) == "wait"
    assert at_rung(mine, [new, mine], 0, 1, HALF, ["maximize"]) == "cut"


# --- signs of life --------------------------------------------------------------------------------


class Attributes:
    """A storage of study attributes alone."""

    def __init__(self):
        self.kept = {}

    def set_study_user_attr(self, study, key, value):
        self.kept[key] = value

    def get_study_user_attrs(self, study):
        return dict(self.kept)


def test_who_does_not_count_on_is_dead_after_a_lease(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    storage = Attributes()
    one, other = (Pulse(storage, 0, name, lease=10.0) for name in ("one", "other"))
    one._beat(1)
    assert one.hears("other")
    assert one.hears("never heard of"), "it may have begun before us"
    clock[0] += 9
    other._beat(1)
    one._beat(2)
    clock[0] += 9
    one._beat(3)
    assert one.hears("other")
    assert not one.hears("never heard of")
    clock[0] += 2
    one._beat(4)
    assert not one.hears("other")
    other._beat(2)
    one._beat(5)
    assert one.hears("other"), "it was only slow"


def test_who_says_goodbye_is_dead_at_once():
    storage = Attributes()
    one, other = (Pulse(storage, 0, name, lease=60.0) for name in ("one", "other"))
    other.stop()
    one._beat(1)
    assert not one.hears("other")


def test_every_study_has_its_own_lock():
    assert lock_key("a") == lock_key("a") != lock_key("b")
    assert 0 <= lock_key("a") < 2**63


def test_who_was_taken_for_dead_writes_nothing_more(tmp_path):
    run(tmp_path, trials=1)
    slow, quick = (open_store(None, "fake", tmp_path) for _ in range(2))
    for each in (slow, quick):
        each.attach(["maximize"], each.storage.get_study_user_attrs(0)["archdsl"])
    from archdsl.search.storage.records import Proposal

    record = slow.create(Proposal(None, {}, {}, {}))
    quick.take_over(record)
    with pytest.raises(Lost):
        slow.note(record, "late", 1)
    with pytest.raises(Lost):
        slow.finish(record, "fail")
    assert quick.finish(record, "fail").state == "fail"
    for each in (slow, quick):
        each.close()


# --- whole studies --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), space_of("random", "two", 10))


def test_three_processes_on_a_database_decide_as_one(tmp_path, alone):
    settings = {"sampler": "random", "objectives": "two", "trials": 10}
    storage = f"sqlite:///{tmp_path}/studies.db"
    running = [start(tmp_path / name, settings, storage=storage) for name in "abc"]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    assert facts(records_of(tmp_path, storage)) == facts(alone.records)


def test_helpers_are_started_again_when_they_are_killed(tmp_path, alone):
    settings = {"sampler": "random", "objectives": "two", "trials": 10}
    again = command(tmp_path, settings, "help")
    helpers = Helpers(again, 1, tmp_path / "helpers.log")
    tmp_path.mkdir(exist_ok=True)
    helpers.start()
    killed = None
    while not killed:
        time.sleep(0.02)
        owners = {record.owner.pid for record in known(tmp_path) if record.owner}
        killed = next(iter(owners), None)
    os.kill(killed, signal.SIGKILL)
    helpers._threads[0].join(timeout=120)
    assert facts(records_of(tmp_path)) == facts(alone.records)
    helpers.stop()


def known(folder):
    try:
        return records_of(folder)
    except KeyError:  # the study was not founded yet
        return []
