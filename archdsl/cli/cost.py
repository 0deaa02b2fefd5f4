"""``archdsl cost``."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import click

from archdsl.blocks.op import BYTES
from archdsl.cli.files import file_argument, seed_option, space
from archdsl.cli.output import MAPPING, drawn_text, exact, in_bytes, plural, table

if TYPE_CHECKING:
    from archdsl import Arch, Space

LARGEST = 2**31 - 1
"""Of a length or a batch."""

KIB = 1024

FLOATS = [name for name in BYTES if "float" in name]

Figures = Mapping[str, float]
"""Every figure of one architecture, by its name in the table."""


@dataclass(frozen=True)
class Setting:
    """What the figures are for: sequences of ``length`` tokens, ``batch`` at once, in ``dtype``.

    ``times`` iterations of every loop, where that is not the file's own number.
    """

    length: int
    batch: int
    dtype: str
    times: int | None = None

    def __str__(self) -> str:
        loops = "" if self.times is None else f", loops of {self.times:,}"
        return f"length {self.length:,}, batch {self.batch:,}, {self.dtype}{loops}"


@click.command(short_help="Say what a file costs, without building it.")
@file_argument
@click.option(
    "--length", type=click.IntRange(1, LARGEST), default=1024, show_default=True,
    help="Tokens in a sequence.",
)  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1, LARGEST), default=1, show_default=True,
    help="Sequences at once, for activations.",
)  # fmt: skip
@click.option(
    "--dtype", type=click.Choice(FLOATS), default="float32", show_default=True,
    help="Of weights, caches and activations; recurrent states are float32.",
)  # fmt: skip
@click.option(
    "--times", type=click.IntRange(1, 10_000),
    help="Iterations of every loop that iterates, in place of the file's.",
)  # fmt: skip
@click.option(
    "-n", "--number", type=click.IntRange(1, 100_000), default=200, show_default=True,
    help="Samples of a file with choices.",
)  # fmt: skip
@seed_option("Of the samples.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def cost(
    file: str,
    length: int,
    batch: int,
    dtype: str,
    times: int | None,
    number: int,
    seed: int,
    form: str,
) -> None:
    """Say what FILE costs, without building it: parameters, FLOPs, state, cache, activations.

    Parameters, state and cache are exact; FLOPs are those of matrix products. For a file with
    choices: the smallest, the middle and the largest among draws that keep its constraints.
    """
    setting, found = Setting(length, batch, dtype, times), space(file)
    if found.count() == 1:
        one = figures(found.sample(0), setting)
        click.echo(json.dumps(one, indent=2) if form == "json" else _table(one, setting))
        return
    drawn = list(draws(found, number, seed))
    feasible = [arch for arch in drawn if arch.feasible]
    several = spread([figures(arch, setting) for arch in feasible or drawn])
    seen = {"count": found.count(), "drawn": len(drawn), "feasible": len(feasible)}
    if form == "json":
        click.echo(json.dumps({**seen, "figures": several}, indent=2))
    else:
        click.echo(_summary(seen) + "\n" + _spread_table(several, setting))


def draws(found: Space, number: int, seed: int) -> Iterator[Arch]:
    """Every architecture of a small space, constraints aside; else ``number`` draws."""
    if found.count() <= number:
        yield from found.enumerate()
        return
    rng = random.Random(seed)
    for _ in range(number):
        yield found.decide(lambda site: rng.randrange(site.size))


def figures(arch: Arch, setting: Setting) -> Figures:
    """Every figure of one architecture."""
    cost = arch.cost if setting.times is None else arch.cost.at(setting.times)
    length, dtype = setting.length, setting.dtype
    return {
        "params": cost.params,
        "active_params": cost.active_params,
        "flops_train": cost.flops(length, "train"),
        "flops_prefill": cost.flops(length, "prefill"),
        "flops_decode": cost.flops(length, "decode"),
        "state_bytes": cost.state_bytes(length, dtype),
        "cache_bytes": cost.cache_bytes(length, dtype),
        "activation_bytes": cost.activation_bytes(length, setting.batch, dtype),
    }


def spread(several: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """The smallest, the middle and the largest of every figure."""
    columns = {name: [one[name] for one in several] for name in (several[0] if several else ())}
    return {
        name: {"min": min(values), "median": median(values), "max": max(values)}
        for name, values in columns.items()
    }


ROWS = {
    "params": "parameters",
    "active_params": "active parameters",
    "flops_train": "FLOPs a token, training",
    "flops_prefill": "FLOPs a token, prefill",
    "flops_decode": "FLOPs a token, decoding",
    "state_bytes": "state, with caches",
    "cache_bytes": "caches alone",
    "activation_bytes": "activations of a training step",
}
"""What each figure is called, in the order of the table."""


def _shown(name: str, figure: float) -> str:
    if not name.endswith("bytes"):
        return exact(figure)
    return in_bytes(figure) + (f" ({exact(figure)} B)" if figure >= KIB else "")


def _table(one: Figures, setting: Setting) -> str:
    rows = table(str(setting), "figure", right=["figure"])
    for name, title in ROWS.items():
        rows.add_row(title, _shown(name, one[name]))
    return drawn_text(rows)


def _spread_table(several: Mapping[str, Mapping[str, float]], setting: Setting) -> str:
    rows = table(str(setting), "min", "median", "max", right=["min", "median", "max"])
    for name, title in ROWS.items():
        values = several[name].values()
        form = in_bytes if name.endswith("bytes") else exact
        rows.add_row(title, *map(form, values))
    return drawn_text(rows)


def _summary(seen: Mapping[str, int]) -> str:
    total, drawn, feasible = seen["count"], seen["drawn"], seen["feasible"]
    what = "all" if drawn == total else f"{drawn:,} drawn of"
    kept = f"{feasible:,} of them keep the constraints"
    if not feasible:
        kept = "none of them keeps the constraints, so these are the figures of all"
    return f"{what} {plural(total, 'architecture')}; {kept}"


COMMANDS: MAPPING = {"cost": cost}
