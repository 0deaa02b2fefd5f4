"""``archdsl bench kernels``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archdsl.cli.model import require_device
from archdsl.cli.output import Failure, console, plural, table, write

if TYPE_CHECKING:
    from rich.table import Table

    from archdsl.kernels.bench import Row
    from archdsl.kernels.peers import Peer

FAMILIES = ("scan", "decay", "delta")

PEER = "flash-linear-attention"

MODES = ("fwd", "fwdbwd", "step")

INTERRUPTED = 130

HEADINGS = ("kernel", "shape", "mode", "ms", "limit", "loop", "peer", "error", "MiB")


def _families(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Names of families, comma separated."""
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    wrong = [name for name in names if name not in FAMILIES]
    if wrong or not names:
        known = ", ".join(FAMILIES)
        said = f"there is no family `{''.join(wrong[:1])}`; there are {known}"
        raise click.BadParameter(said, ctx, param)
    return names


@click.command(short_help="Time the recurrence kernels beside what the machine could do.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--families", callback=_families, default=",".join(FAMILIES), show_default=True,
    help="Which, comma separated.",
)  # fmt: skip
@click.option("--against", type=click.Choice([PEER]), help="Time these kernels too, if installed.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the rows here too.")
@click.option("--batch", type=click.IntRange(1), help="Sequences at once, in place of 4.")
@click.option("--length", type=click.IntRange(2), help="Tokens, in place of 2,048 (and 16,384).")
@click.option("--heads", type=click.IntRange(1), help="Heads, in place of 4.")
@click.option("--width", type=click.IntRange(1), help="Of a head, or of the scan.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), help="As is usual for the device."
)
@click.option(
    "--mode", "modes", type=click.Choice(MODES), multiple=True,
    help="Only these; training and steps where left out.",
)  # fmt: skip
@click.option(
    "--compiled/--eager", "compiled", default=None, help="Only under torch.compile, or only not."
)
@click.option(
    "--repeat", type=click.IntRange(1), default=5, show_default=True, help="Calls in a timing."
)
@click.option("--loop/--no-loop", default=True, help="Time the token loop too.")
@click.option("--threads", type=click.IntRange(1), help="Threads of PyTorch.")
def kernels(
    device: str, families: tuple[str, ...], against: str | None, file: Path | None,
    batch: int | None, length: int | None, heads: int | None, width: int | None,
    dtype: str | None, modes: tuple[str, ...], compiled: bool | None, repeat: int, loop: bool,
    threads: int | None,
) -> None:  # fmt: skip
    """Time the kernels of every recurrence family, forward and backward and a decoded token.

    Parity with float64 comes first: where it fails, no speed is shown. The limit is what the bytes
    and the matrix products alone take, measured beside each row; `loop` is the recurrence token by
    token. The standard table has 25 rows on a CPU and takes some minutes on two cores; each is told as
    it is found, and Ctrl-C keeps what was measured. Rows of a GPU need `--device cuda` and one.
    """
    require_device(device)
    # torch takes a second to import: a wrong option is refused before
    import torch

    from archdsl.kernels import bench

    if threads is not None:
        torch.set_num_threads(threads)
    asked = {"batch": batch, "length": length, "heads": heads, "width": width}
    cases = bench.cases(device, families, {name: x for name, x in asked.items() if x is not None})
    cases = bench.selected(cases, modes, compiled, dtype)
    effort = bench.Effort(repeat, loop, _peers(against, device))
    click.echo(f"{plural(len(cases), 'row')}; {found_gpu()}", err=True)
    report(bench.rows(cases, effort), bench.machine(), file, len(cases))


def found_gpu() -> str:
    """Whether there is a GPU, and what follows."""
    import torch

    if torch.cuda.is_available():
        return f"GPU: {torch.cuda.get_device_name()}"
    return "no GPU here, so that rows of `--device cuda` are left open"


def _peers(against: str | None, device: str) -> Mapping[tuple[str, str], Peer] | None:
    """The peer's kernels.

    Raises:
        Failure: they are not installed.
    """
    if against is None:
        return None
    from archdsl.kernels.peers import flash_linear_attention

    try:
        return flash_linear_attention(device)
    except ImportError as error:
        raise Failure(
            f"{PEER} cannot be imported ({error}); install it with"
            f" `pip install {PEER}` or leave `--against` out"
        ) from None


def report(
    rows: Iterable[Row], machine: Mapping[str, str | int], file: Path | None, count: int
) -> None:
    """Measure `count` rows and show them; each is written when it is found, so none is ever lost.

    Raises:
        Failure: the file cannot be written.
    """
    done: list[Row] = []
    interrupted = False
    _keep(file, done, machine)
    try:
        for row in rows:
            done.append(row)
            _keep(file, done, machine)
            click.echo(f"{len(done)}/{count} {progress(row)}", err=True)
    except KeyboardInterrupt:
        interrupted = True
    click.echo(", ".join(f"{name} {value}" for name, value in machine.items()))
    if done:
        console().print(drawn(done))
        click.echo(
            "milliseconds; limit: how many times it; loop, peer: how many times ours; *: compiled"
        )
    if file is not None:
        click.echo(f"wrote {file}", err=True)
    if interrupted:
        click.echo(f"interrupted after {plural(len(done), 'row')}", err=True)
        raise click.exceptions.Exit(INTERRUPTED)


def _keep(file: Path | None, rows: list[Row], machine: Mapping[str, str | int]) -> None:
    if file is not None:
        write(file, document(rows, machine))


def document(rows: list[Row], machine: Mapping[str, str | int]) -> str:
    """The rows as JSON, the machine beside them."""
    return json.dumps({"machine": dict(machine), "rows": rows}, indent=1) + "\n"


def progress(row: Row) -> str:
    """A row measured, in one line."""
    how = "compiled " if row["compiled"] else ""
    said = f"parity fails ({row['parity']:.1e})" if row["ms"] is None else f"{row['ms']:.3g} ms"
    return f"{row['family']} {row['variant']} {row['shape']} {how}{row['mode']}: {said}"


def drawn(rows: list[Row]) -> Table:
    """Rows as a table: milliseconds beside limit, loop and peer; no speed where parity failed.

    A column that no row fills is left out.
    """
    cells = [_cells(row) for row in rows]
    kept = [i for i in range(len(HEADINGS)) if any(row[i] for row in cells)]
    words = ("kernel", "shape", "mode")
    right = tuple(name for name in HEADINGS if name not in words)
    made = table(*(HEADINGS[i] for i in kept), right=right, whole=words)
    for row in cells:
        made.add_row(*(row[i] for i in kept))
    return made


def _cells(row: Row) -> tuple[str, ...]:
    mode = row["mode"] + ("*" if row["compiled"] else "")
    shape = row["shape"] if row["dtype"] == "float32" else f"{row['shape']} {row['dtype']}"
    memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.3g}"
    ms, limit = row["ms"], row["limit_ms"]
    slower = "" if ms is None or not limit else f"{_time(limit)} {ms / limit:.1f}x"
    return (
        f"{row['family']} {row['variant']}", shape, mode, _time(ms), slower,
        *(_faster(x, ms) for x in (row["loop_ms"], row["peer_ms"])),
        f"{row['parity']:.0e}", memory,
    )  # fmt: skip


def _faster(other: float | None, ms: float | None) -> str:
    """Another's milliseconds and how many times ours they are."""
    return _time(other) if other is None or not ms else f"{_time(other)} {other / ms:.1f}x"


def _time(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"
