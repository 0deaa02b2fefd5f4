"""`archdsl bench kernels`: rows on the terminal and in a file, and what cannot be done in words."""

import json
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console

from archdsl.cli import cli
from archdsl.cli.bench_kernels import drawn, progress
from archdsl.kernels import bench

SMALL = ("--length", "40", "--batch", "1", "--heads", "1", "--width", "8", "--repeat", "1")

COLUMNS = {
    "family", "variant", "shape", "dtype", "device", "mode", "compiled", "ms", "limit_ms",
    "loop_ms", "peer", "peer_ms", "parity", "peak_bytes",
}  # fmt: skip


def bench_kernels(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "kernels", *arguments], env={"COLUMNS": "120"})


def test_rows_are_shown_and_written_with_the_machine(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    done = bench_kernels("--families", "scan,decay", "--eager", *SMALL, "--json", str(file))
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    assert found["machine"]["torch"] == torch.__version__
    assert all(set(row) == COLUMNS for row in found["rows"])
    assert {row["family"] for row in found["rows"]} == {"scan", "decay"}
    assert {row["mode"] for row in found["rows"]} == {"fwdbwd", "step"}
    assert "per channel" in done.output
    assert torch.__version__ in done.output


def test_a_mode_and_a_dtype_are_chosen() -> None:
    table = bench.selected(bench.cases(), ["fwd"], False, "bfloat16")
    assert {case.mode for case in table} == {"fwd"}
    assert {case.dtype for case in table} == {torch.bfloat16}
    assert not any(case.compiled for case in table)


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted after 1 row"),
        (RuntimeError("no memory"), 1, "no memory"),
    ],
)
def test_what_was_measured_before_the_end_is_kept(
    end: BaseException, status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = bench.measure

    def rows(table: Any, effort: Any) -> Iterator[bench.Row]:
        yield measured(table[0], effort)
        raise end

    monkeypatch.setattr(bench, "rows", rows)
    file = tmp_path / "rows.json"
    done = bench_kernels("--families", "scan", "--no-loop", *SMALL, "--json", str(file))
    assert done.exit_code == status
    assert len(json.loads(file.read_text())["rows"]) == 1
    assert said in f"{done.output}{done.exception}"


def test_no_speed_where_parity_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.PARITY, torch.float32, 0.0)
    case = bench.Case("decay", "per head", batch=1, length=20, heads=1, width=4)
    row = bench.measure(case)
    assert row["ms"] is None
    assert "parity fails" in progress(row)


def shown(**changed: Any) -> list[str]:
    """The lines of a table of one long row, 100 columns wide."""
    row: Any = {
        "family": "decay", "variant": "per channel", "shape": "B4 T16384 H4 D64", "mode": "fwdbwd",
        "dtype": "float32", "device": "cpu", "compiled": True, "ms": 734.0, "limit_ms": 286.0,
        "loop_ms": 7340.0, "peer": None, "peer_ms": None, "parity": 5e-7, "peak_bytes": 416825344,
    }  # fmt: skip
    console = Console(width=100, file=StringIO())
    console.print(drawn([row | changed]))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_a_row_fits_a_hundred_columns_and_says_how_many_times() -> None:
    lines = shown()
    assert len(lines) == 3
    cells = ("decay per channel", "B4 T16384 H4 D64", "fwdbwd*", "734", "286 2.6x", "7340 10.0x")
    assert all(cell in lines[2] for cell in cells)


def test_a_peer_has_a_column_where_one_was_timed() -> None:
    assert "peer" not in shown()[0]
    assert "peer" in shown(peer="fla", peer_ms=1468.0)[0]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--families", "scan,gru"), 2, "there is no family `gru`; there are scan, decay, delta"),
        (("--json", "/nowhere/rows.json", *SMALL), 1, "cannot be written"),
    ],
)
def test_mistakes_are_said_in_a_sentence(
    arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = bench_kernels(*arguments)
    assert done.exit_code == status
    assert message in " ".join(done.output.split())
    assert "Traceback" not in done.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said_in_a_sentence() -> None:
    done = bench_kernels("--device", "cuda")
    assert done.exit_code == 1
    assert "`cuda` cannot be used on this machine" in done.output


def test_a_missing_peer_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fla", None)
    done = bench_kernels("--against", "flash-linear-attention", *SMALL)
    assert done.exit_code == 1
    assert "pip install flash-linear-attention" in " ".join(done.output.split())
