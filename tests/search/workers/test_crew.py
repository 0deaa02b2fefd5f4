import os
import time

import pytest

from archdsl.search.workers import crew
from archdsl.search.workers.crew import Crew, Use, own_cores, used

STAT = """\
cpu  1000 500 100 9000 50 0 10 5 0 0
{rows}
intr 341560 0 0
ctxt 1
"""


class Machine:
    """A machine whose clock goes on two seconds a look, with so many cores used by others and by us."""

    def __init__(self, monkeypatch, others=0.0, own=2.0):
        self.others, self.own, self.now = others, own, Use(0.0, 0.0, 0.0)
        monkeypatch.setattr(time, "monotonic", lambda: self.now.moment + 2.0)

    def look(self):
        last = self.now
        self.now = Use(
            last.moment + 2, last.everyone + 2 * (self.others + self.own), last.own + 2 * self.own
        )
        return self.now


def settled(team, looks=3):
    return [team.looked() for _ in range(looks)][-1]


@pytest.mark.parametrize(
    ("cores", "others", "threads"),
    [
        (2, 0.0, 2), (2, 0.25, 2), (2, 0.5, 1), (2, 1.0, 1), (2, 2.0, 1),
        (8, 0.2, 8), (8, 1.0, 7), (8, 4.0, 4), (8, 8.0, 1),
    ],
)  # fmt: skip
def test_threads_are_as_many_as_others_leave_cores(monkeypatch, cores, others, threads):
    machine = Machine(monkeypatch, others, own=cores - others)
    team = Crew(cores, cores, machine.look)
    team.begin()
    assert settled(team) == threads


def test_threads_beyond_what_was_allowed_are_never_taken(monkeypatch):
    team = Crew(2, 16, Machine(monkeypatch).look)
    team.begin()
    assert settled(team) == 2


def test_what_passes_soon_changes_nothing(monkeypatch):
    machine = Machine(monkeypatch)
    team = Crew(2, 2, machine.look)
    team.begin()
    for others in (1.0, 1.0, 0.0, 1.0, 1.0, 0.0):
        machine.others = others
        assert team.looked() == 2


def test_threads_come_back_when_others_end_and_are_kept_from_one_training_to_the_next(monkeypatch):
    machine = Machine(monkeypatch, others=1.0, own=1.0)
    team = Crew(2, 2, machine.look)
    team.begin()
    assert settled(team) == 1
    team.begin()
    assert team.looked() == 1
    machine.others = 0.0
    assert team.looked() == 2


def test_what_happens_between_trainings_does_not_count(monkeypatch):
    machine = Machine(monkeypatch)
    team = Crew(2, 2, machine.look)
    for _ in range(5):
        machine.others = 2.0  # the search proposes
        team.begin()
        machine.others = 0.0
        assert team.looked() == 2


def test_where_the_system_does_not_say_all_threads_train():
    team = Crew(4, 4, lambda: None)
    team.begin()
    assert settled(team) == 4


def test_one_look_a_second(monkeypatch):
    looks = []

    def look():
        looks.append(time.monotonic())
        return Use(looks[-1], 0.0, 0.0)

    team = Crew(2, 2, look)
    team.begin()
    for _ in range(100):
        team.looked()
    assert len(looks) == 1


def test_use_is_read_of_the_cores_we_may_run_on(tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "own_cores", lambda: frozenset({1, 2}))
    monkeypatch.setattr(os, "getpriority", lambda which, who: 0)
    rows = [f"cpu{core} {100 * core} 7 20 5000 50 3 2 5 0 0" for core in range(4)]
    (tmp_path / "stat").write_text(STAT.format(rows="\n".join(rows)))
    ticks = (100 + 30) + (200 + 30)  # neither idle, nor waiting for a disk, nor at low priority
    found = used(tmp_path / "stat")
    assert found is not None
    assert found.everyone == pytest.approx(ticks / os.sysconf("SC_CLK_TCK"))
    monkeypatch.setattr(os, "getpriority", lambda which, who: 10)
    assert used(tmp_path / "stat").everyone == pytest.approx(
        (ticks + 14) / os.sysconf("SC_CLK_TCK")
    )


@pytest.mark.parametrize("text", [None, "", "cpu  1 2 3\n", "cpu0 a b c\n"])
def test_other_systems_say_nothing(tmp_path, text):
    if text is not None:
        (tmp_path / "stat").write_text(text)
    assert used(tmp_path / "stat") is None


def test_cores_are_counted_without_affinity_too(monkeypatch):
    assert own_cores()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert len(own_cores()) == os.cpu_count()


def test_training_goes_on_with_so_many_threads(tmp_path, monkeypatch):
    import torch
    from fakes import FakeArch

    from archdsl.search.workers.jobs import Candidate

    arch = FakeArch({}, {"model.memory": "gru", "model.width": "4"}, {})
    team = Crew(2, 2, lambda: None)
    monkeypatch.setattr(team, "looked", lambda: 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        Candidate(arch, 0, "cpu", None, tmp_path, team).train([1], 0, tmp_path / "at", print)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
