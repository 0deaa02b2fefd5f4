"""``archdsl compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from archdsl.cli.options import folder_option, jobs_option, quiet_option
from archdsl.cli.output import MAPPING, drawn_text

if TYPE_CHECKING:
    from archdsl.search.comparison.contest import Entrant

SAMPLERS = "tpe,gp,nsga2,evolution,tree_search,reinforce"


@click.command(short_help="Compare samplers on a file's architectures.")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--samplers",
    default=SAMPLERS,
    show_default=True,
    help="Which, with commas between; random search takes part in any case.",
)
@click.option(
    "--seeds", type=click.IntRange(2, 1000), default=20, show_default=True, help="Runs each."
)
@click.option(
    "--trials", type=click.IntRange(1, 10**6), default=60, show_default=True, help="Of each run."
)
@click.option("--score", help="Training-free metric to make large.  [default: SPEC's rank]")
@click.option(
    "--lottery",
    type=click.IntRange(0, 1000),
    default=0,
    show_default=True,
    help="Seeds for each other setting of each sampler.",
)
@folder_option("runs/compare-NAME")
@jobs_option("Processes.")
@quiet_option
def compare(
    spec: Path, samplers: str, seeds: int, trials: int, score: str | None, lottery: int,
    out: Path | None, jobs: int, quiet: bool,
) -> None:  # fmt: skip
    """Run samplers side by side on SPEC with equal budgets, and say which differences are real.

    What is made large is a training-free score, so nothing is trained. Every trial is kept in trials.jsonl;
    the same command goes on where it was ended, and with more seeds it adds them.
    """
    from archdsl.search.comparison.main import compare as contest
    from archdsl.search.comparison.page import PAGE
    from archdsl.search.comparison.standing import table

    def watch(done: int, of: int, entrant: Entrant) -> None:
        if not quiet:
            click.echo(f"[{done}/{of}] {entrant.label}", err=True)

    wanted = [name.strip() for name in samplers.split(",") if name.strip()]
    found = contest(spec, wanted, seeds, trials, score, lottery, out, jobs, watch)
    if not quiet:
        click.echo(drawn_text(table(found.rows, found.score)))
        click.echo(f"report  {found.folder / PAGE}")


COMMANDS: MAPPING = {"compare": compare}
