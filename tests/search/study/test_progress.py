import io

import pytest
from fakes import ACCURACY, STATE
from rich.console import Console

from archdsl.search.storage.records import Record
from archdsl.search.study.pace import Course
from archdsl.search.study.progress import Lines, Terminal, quantity_of_time
from archdsl.search.study.words import in_short, named, quantity


def trial(number, state="complete", reason="", accuracy=0.5):
    attributes = {
        "arch": {"choices": {"model.memory": "gla", "model.stack.ratio": "3:1"}},
        "rung:0": {"step": 5, "objectives": [accuracy, 1024.0], "measures": {}, "curves": {},
                   "seconds": 1.0},
        "outcome": {"reason": reason, "message": "no [memory] left"},
    }  # fmt: skip
    values = (accuracy, 1024.0) if state == "complete" else None
    return Record(number, number, state, values, attributes)


def shown(display_class, terminal):
    console = Console(file=io.StringIO(), width=110, force_terminal=terminal)
    with display_class(console, [ACCURACY, STATE], Course(10, (200, 400))) as display:
        records = [trial(0), trial(1, "pruned", "rung"), trial(2, "fail", "out-of-memory")]
        for number, record in enumerate(records):
            display.stage(number, "training", 400)
            display.step({"step": 40, "loss": 2.5})
            display.ended(record, records[: number + 1])
        if terminal:
            display.live.refresh()
    return console.file.getvalue()


def test_lines_say_what_ended():
    lines = shown(Lines, False).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("[1/10")
    assert "recall.accuracy 0.5000, state_bytes 1 KiB: memory gla, ratio 3:1" in lines[0]
    assert "cut after 5 steps" in lines[1]
    assert "failed (no [memory] left)" in lines[2]


def test_the_terminal_shows_counts_the_best_and_failures():
    text = shown(Terminal, True)
    for word in ("10 trials", "trained", "cut", "failed", "best so far", "step 40/400, loss 2.500",
                 "left", "no [memory] left"):  # fmt: skip
        assert word in text, word


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (65, "1 min 5 s"), (3 * 3600 + 120, "3 h 2 min"), (None, "")]
)
def test_times_read_well(seconds, text):
    assert quantity_of_time(seconds) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("state_bytes(length = 4096)", 262144, "256 KiB"),
        ("state_bytes", 2101248, "2 MiB"),
        ("params", 187136, "187k"),
        ("params", 1_304_000, "1.3M"),
        ("recall.accuracy", 0.99721, "0.9972"),
        ("recall.accuracy", 1.0, "1.0000"),
        ("corpus.bits_per_byte", 2.345678, "2.3457"),
        ("latency(length = 1024)", 0.01234, "12.3 ms"),
        ("x", 0.0, "0.0000"),
        ("x", 1e-7, "1e-07"),
    ],
)
def test_figures_read_well(name, value, text):
    assert quantity(name, value) == text


def test_names_are_as_short_as_they_can_be():
    assert named({"a.x": "1", "b.y": "2"}) == {"x": "1", "y": "2"}
    assert named({"a.x": "1", "b.x": "2"}) == {"a.x": "1", "b.x": "2"}


def test_a_trial_in_one_line():
    assert in_short(trial(3), [ACCURACY, STATE]).startswith("trial 3 recall.accuracy 0.5000")
