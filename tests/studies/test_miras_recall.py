"""The study of recall: equal parameters, and an interrupted study goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from studies import miras_recall as study


@pytest.mark.parametrize("task", study.EXERCISES)
def test_every_mixer_has_as_many_parameters(task: str) -> None:
    symbols = study.EXERCISES[task].task.symbols
    counts = [study.architecture(m, symbols).cost.params for m in study.MIXERS.values()]
    assert max(counts) / min(counts) < 1.02


def test_an_interrupted_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[study.Name] = []

    def train(run: study.Run) -> study.Result:
        trained.append(run.name)
        if len(trained) == 5:
            raise KeyboardInterrupt
        return study.Result(*run.name, 46_000, 6400, 1.0, [0.25, 0.5 + run.name[2] / 4])

    monkeypatch.setattr(study.Run, "__init__", lambda run, name, path: setattr(run, "name", name))
    monkeypatch.setattr(study.Run, "train", train)
    arguments = ["", "--seeds", "2", "--steps", "80", "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(KeyboardInterrupt):
        study.main()
    study.main()
    wanted = list(study.asked(80, 2))
    assert trained == [*wanted[:5], *wanted[4:]], "what was finished is not trained again"
    found = study.kept(tmp_path / "found.json")
    assert [result.name for result in found] == wanted
    assert "0.625  0.500 0.750" in study.table(found)


def test_an_interrupted_run_gives_what_an_undisturbed_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "EVERY", 2)
    name = ("MQAR", "Gated DeltaNet", 0, 4)
    whole = study.Run(name, None)
    whole.train()
    begun = study.Run(name, tmp_path / "run")
    learn = begun._learn
    monkeypatch.setattr(begun, "_learn", lambda: learn() if begun.step < 3 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        begun.train()
    again = study.Run(name, tmp_path / "run")
    assert again.step == 2
    assert again.train().accuracy == whole.accuracy
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert one.equal(other)
