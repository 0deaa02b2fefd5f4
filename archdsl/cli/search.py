"""``archdsl search``."""

from __future__ import annotations

from pathlib import Path

import click

import archdsl.search
from archdsl.cli.output import MAPPING


@click.command(short_help="Search the architectures of a file.")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="File for tasks that learn from one.")
@click.option(
    "--trials", type=click.IntRange(1), help="Trials of the whole study, instead of SPEC's."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]"
)
@click.option(
    "--storage", help="Where trials are kept.  [default: study.journal in the run's folder]"
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of proposals, instead of SPEC's.")
@click.option("--study", help="Name of the study.  [default: SPEC's name]")
@click.option("--device", help="Where models are trained.  [default: a GPU if there is one]")
@click.option("--quiet", is_flag=True, help="Print nothing.")
@click.pass_context
def search(
    ctx: click.Context, spec: Path, data: Path | None, trials: int | None, out: Path | None,
    storage: str | None, seed: int | None, study: str | None, device: str | None, quiet: bool,
) -> None:  # fmt: skip
    """Search the architectures of SPEC: check, score, train; then a report and the best model.

    The same command continues a study that was ended in any way. Ctrl-C ends it tidily.
    """
    result = archdsl.search.run(
        spec, out=out, data=data, trials=trials, storage=storage, seed=seed, study=study,
        quiet=quiet, device=device,
    )  # fmt: skip
    ctx.exit(result.exit_status)


COMMANDS: MAPPING = {"search": search}
