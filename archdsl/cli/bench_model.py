"""``archdsl bench model``."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archdsl.cli.cost import FLOATS
from archdsl.cli.files import architecture, file_argument, seed_option
from archdsl.cli.model import require_device
from archdsl.cli.output import Failure, drawn_text, in_bytes, table, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archdsl.compiler.models.bench import Row, Setting
    from archdsl.compiler.models.peer import PeerModel
    from archdsl.compiler.spaces.arch import Arch

MODES = ("train", "step")


@click.command(short_help="Time a whole model, fused and unfused.")
@file_argument
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, …")
@click.option("--dtype", type=click.Choice(FLOATS), default="float32", show_default=True)
@click.option(
    "--batch", type=click.IntRange(1), default=1, show_default=True, help="Sequences at once."
)
@click.option(
    "--length", type=click.IntRange(1), default=1024, show_default=True,
    help="Tokens of a training sequence, and before a step.",
)  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True,
    help="How often each is timed, in turns.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1), help="Threads of PyTorch; as it chooses where left out."
)
@click.option("--modes", type=click.Choice([*MODES, "both"]), default="both", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Time under torch.compile as well.")
@click.option(
    "--against", type=click.Choice(["flash-linear-attention"]),
    help="Time the same architecture of that package's layers beside it.",
)  # fmt: skip
@click.option("--json", "out", type=click.Path(path_type=Path), help="File for the rows.")
@seed_option("Which architecture of a file with choices.")
def model(
    file: str, device: str, dtype: str, batch: int, length: int, rounds: int, threads: int | None,
    modes: str, compiled: bool, against: str | None, out: Path | None, seed: int,
) -> None:  # fmt: skip
    """Time the model of FILE: training tokens a second, step latency, peak memory.

    Fused and unfused must first agree; where they do not, no speed is given. `--compile` compiles each
    of them, forward, backward and step, which takes minutes more. What was measured before an interruption
    is kept.
    """
    import torch

    from archdsl.compiler.models.bench import Setting

    arch = architecture(file, seed)
    require_device(device)
    if threads:
        torch.set_num_threads(threads)
    settings = [
        Setting(Path(file).name, device, dtype, batch, length, rounds, each)
        for each in ([False, True] if compiled else [False])
    ]
    click.echo(machine(device), err=True)
    peer = _peer(arch, settings[0]) if against else None
    rows: list[Row] = []
    try:
        for setting in settings:
            for row in _measured(arch, setting, modes, peer):
                rows.append(row)
                _keep(rows, device, out)
    except KeyboardInterrupt:
        click.echo("interrupted; what was measured is kept", err=True)
    if not rows:
        raise Failure("nothing was measured")
    click.echo(_table(rows))


def _measured(arch: Arch, setting: Setting, modes: str, peer: PeerModel | None) -> Iterator[Row]:
    from archdsl.compiler.models.bench import measure

    return measure(arch, setting, MODES if modes == "both" else (modes,), peer)  # type: ignore[arg-type]


def _peer(arch: Arch, setting: Setting) -> PeerModel | None:
    """The architecture of the peer's layers, or a sentence on why it is not timed."""
    from archdsl.compiler.models import peer

    try:
        reason = peer.refusal(setting.device, setting.dtype)
        if reason is None:
            return peer.build(arch)
    except peer.Unmatched as unmatched:
        reason = str(unmatched)
    click.echo(f"{reason}: it is left out", err=True)
    return None


def machine(device: str) -> str:
    """The processor or GPU, and the versions that matter."""
    import torch

    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{processor()}, {torch.get_num_threads()} threads"
    none = "" if torch.cuda.is_available() else " and no GPU"
    return f"{name}{none}; PyTorch {torch.__version__}; Python {platform.python_version()}"


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _keep(rows: list[Row], device: str, out: Path | None) -> None:
    if out is not None:
        write(out, json.dumps({"machine": machine(device), "rows": rows}, indent=1) + "\n")


def _table(rows: list[Row]) -> str:
    headings = ("mode", "variant", "compiled", "tokens/s", "ms", "limit ms", "peak", "parity")
    drawn = table(*headings, right=headings[3:])
    for row in rows:
        drawn.add_row(
            row["mode"],
            row["variant"],
            "yes" if row["compiled"] else "no",
            _number(row["tokens_per_second"]),
            _number(row["ms"]),
            _number(row["limit_ms"]),
            "–" if row["peak_bytes"] is None else in_bytes(row["peak_bytes"]),
            "–" if row["parity"] is None else f"{row['parity']:.1e}",
        )
    return drawn_text(drawn)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}"
