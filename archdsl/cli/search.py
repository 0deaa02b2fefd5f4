"""``archdsl search``."""

from __future__ import annotations

from pathlib import Path

import click

import archdsl.search
from archdsl.cli.options import folder_option, jobs_option, quiet_option
from archdsl.cli.output import MAPPING


@click.command(short_help="Search the architectures of a file.")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="File for tasks that learn from one.")
@click.option(
    "--trials", type=click.IntRange(1), help="Trials of the whole study, instead of SPEC's."
)
@folder_option("runs/NAME")
@click.option(
    "--storage",
    help="Where trials are kept: a file, sqlite:///FILE, postgresql://… or mysql://….  "
    "[default: study.journal in the run's folder]",
)
@jobs_option("Processes that search on this machine.")
@click.option(
    "--lease",
    type=click.FloatRange(1, 3600),
    help="Seconds of silence after which a process on another machine counts as dead.  [default: 20]",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of proposals, instead of SPEC's.")
@click.option("--study", help="Name of the study.  [default: SPEC's name]")
@click.option("--device", help="Where models are trained.  [default: a GPU if there is one]")
@click.option(
    "--enqueue",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Closed .arch file of an architecture to try first; may be given again.",
)
@quiet_option
@click.pass_context
def search(
    ctx: click.Context, spec: Path, data: Path | None, trials: int | None, out: Path | None,
    storage: str | None, jobs: int, lease: float | None, seed: int | None, study: str | None,
    device: str | None, enqueue: tuple[Path, ...], quiet: bool,
) -> None:  # fmt: skip
    """Search the architectures of SPEC: check, score, train; then a report and the best model.

    The same command continues a study that was ended in any way. Ctrl-C ends it tidily. With a --storage
    that several machines reach, the same command on each of them shares the work.
    """
    result = archdsl.search.run(
        spec, out=out, data=data, trials=trials, storage=storage, seed=seed, study=study,
        quiet=quiet, device=device, jobs=jobs, lease=lease,
        enqueue=enqueue,
    )  # fmt: skip
    ctx.exit(result.exit_status)


COMMANDS: MAPPING = {"search": search}
