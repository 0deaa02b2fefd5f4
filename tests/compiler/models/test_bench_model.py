"""``archdsl bench model``: parity first, a row a measurement, and what was measured is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import archdsl
from archdsl.cli import cli
from archdsl.compiler.models import bench
from archdsl.compiler.models.bench import Row, Setting

TINY = """
model {
    embed(dim = 16, vocab = 11)
    residual { rms_norm  gated_deltanet(heads = 2, expand_k = 1) }
    residual { rms_norm  swiglu }
    rms_norm
    lm_head(tied = true)
}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.arch"
    path.write_text(TINY)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["bench", "model", *map(str, arguments)])


def test_rows_are_printed_and_written(spec: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    done = run(spec, "--length", 20, "--rounds", 1, "--json", out)
    assert done.exit_code == 0, done.output
    written = json.loads(out.read_text())
    assert "PyTorch" in written["machine"]
    rows: list[Row] = written["rows"]
    assert [(row["mode"], row["variant"]) for row in rows] == [
        ("train", "unfused"), ("train", "fused"), ("step", "unfused"), ("step", "fused"),
    ]  # fmt: skip
    for row in rows:
        assert set(row) == set(Row.__annotations__)
        assert row["parity"] <= bench.PARITY["float32"]
        assert row["ms"] is not None
        assert row["ms"] > 0
    assert rows[0]["tokens_per_second"] == pytest.approx(20_000 / rows[0]["ms"])
    logits = 4 * 20 * 11
    assert all(row["peak_bytes"] is not None and row["peak_bytes"] > logits for row in rows[:2])
    assert rows[2]["limit_ms"] is not None


def test_no_speed_where_the_models_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "parity", lambda arch, setting: 1.0)
    rows = list(bench.measure(archdsl.loads(TINY).sample(0), Setting(length=5)))
    assert len(rows) == 4
    assert all(row["ms"] is None and row["tokens_per_second"] is None for row in rows)


def test_parity_notices_a_weight_that_learns_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arch, loss_of = archdsl.loads(TINY).sample(0), bench.loss_of

    def wrong(model: object, variant: str) -> object:
        right = loss_of(model, variant)
        return right if variant == "unfused" else lambda tokens: 2 * right(tokens)

    assert bench.parity(arch, Setting(length=9)) < bench.PARITY["float32"]
    monkeypatch.setattr(bench, "loss_of", wrong)
    assert bench.parity(arch, Setting(length=9)) > 0.5


def test_an_interruption_keeps_what_was_measured(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(arch: object, setting: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "_stepping", interrupted)
    done = run(spec, "--length", 8, "--rounds", 1, "--json", tmp_path / "rows.json")
    assert "what was measured is kept" in done.output
    assert len(json.loads((tmp_path / "rows.json").read_text())["rows"]) == 2


def test_a_peer_that_is_not_there_is_left_out_in_words(spec: Path) -> None:
    how = ("--length", 8, "--rounds", 1, "--modes", "step")
    done = run(spec, *how, "--against", "flash-linear-attention")
    assert done.exit_code == 0
    assert "runs on a GPU alone" in done.output


def test_a_device_that_is_not_there_is_one_line(spec: Path) -> None:
    done = run(spec, "--device", "nonsense")
    assert done.exit_code == 1
    assert "`nonsense` cannot be used" in done.output
