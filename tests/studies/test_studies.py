"""A small sample of each study, so that the studies themselves keep working."""

import gc
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from studies import compiled, curves, decode, fuzz, kill, mutations, timing

import archdsl
from archdsl.diagnostics import Severity


def test_inputs_depend_on_seed_and_number_alone():
    assert mutations.text(0, 7) == mutations.text(0, 7)
    assert len({mutations.text(0, index) for index in range(60)}) > 50


@pytest.mark.parametrize("text", [mutations.WIDE, mutations.DESIGN], ids=["wide", "design"])
def test_what_is_changed_was_right(text, tmp_path):
    path = tmp_path / "a.arch"
    path.write_text(text)
    assert [d for d in archdsl.check(path) if d.severity is Severity.ERROR] == []


def test_fuzz(tmp_path):
    gc.freeze()  # what other tests left is not looked through in an input's second
    tally = fuzz.run(1, range(150), tmp_path)
    assert sum(tally.inputs.values()) == 150
    assert tally.accepted
    assert [(failure.what, failure.data) for failure in tally.failures] == []


def test_fuzz_notices_what_must_not_happen(tmp_path, monkeypatch):
    def endless(path):
        while True:
            pass

    def wrong(path):
        raise ZeroDivisionError

    path = tmp_path / "a.arch"
    path.write_text("model {")
    assert "hang" in fuzz.attempt(endless, path, 0.05)[1]
    assert "ZeroDivisionError" in fuzz.attempt(wrong, path, 5)[1]
    assert fuzz.attempt(fuzz.checked, path, 5)[1] == ""


def test_fuzz_finds_the_smallest_input(tmp_path, monkeypatch):
    def touchy(path):
        assert b"gla" not in path.read_bytes(), "gla"

    monkeypatch.setattr(fuzz, "checked", touchy)
    touchy.__name__ = "checked"
    data = mutations.DESIGN.encode()
    (tmp_path / "a").write_bytes(data)
    _, what, detail = fuzz.attempt(touchy, tmp_path / "a", 5)
    assert fuzz.minimised(fuzz.Failure(what, 0, data, detail)) == b"gla"


def test_timing():
    figure = timing.imported(3)
    assert (
        figure.value < 3 * figure.bound
    )  # the bound itself is for a machine that does nothing else


def test_decode():
    found = decode.decoded(length=2 * decode.WINDOW, batch=2)
    assert found.kept, found


@pytest.mark.parametrize("name", curves.MODELS)
def test_curves(name, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"to be or not to be, that is the question. " * 40)
    data = curves.bytes_of(path)
    setting = curves.Setting(steps=6, batch=4, length=32, warmup=2)
    curve = curves.train(name, data, setting)
    assert len(curve.losses) == setting.steps
    assert curve.losses[-1] < curve.losses[0]
    assert curves.diverged(curve, guess=0.0)
    assert not curves.diverged(curve, guess=10.0)


@pytest.mark.timeout(900)
def test_kill():
    assert sorted(kill.study(trials=4, kills=1, seed=0)) == [0, 1, 2, 3]


def test_compiled(tmp_path):
    assert compiled.verdict(compiled.ZOO / "gla.arch", "aot_eager")[0]
    passed, said = compiled.verdict(tmp_path / "none.arch", "aot_eager")
    assert not passed
    assert "there is no file" in said
