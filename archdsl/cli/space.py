"""``archdsl count`` and ``archdsl sample``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archdsl.cli.files import file_argument, seed_option, space
from archdsl.cli.output import MAPPING, drawn_text, plural, table, write, writing

if TYPE_CHECKING:
    from archdsl import Arch, Space
    from archdsl.compiler.terms.term import Site

MOST_SHOWN = 12
"""How many alternatives of a site are written out."""


@click.command(short_help="Count the architectures a file describes.")
@file_argument
def count(file: str) -> None:
    """Say how many architectures FILE describes, and choice by choice what there is to choose.

    The number is exact, before any `require`.
    """
    click.echo(described(space(file)), color=True)


def described(found: Space) -> str:
    """How many architectures, and a row for each choice."""
    size, sites = plural(found.count(), "architecture"), found.sites()
    if not sites:
        return size
    rows = table("choice", "alternatives", "what", right=["alternatives"], whole=["choice"])
    for site in sites:
        rows.add_row(site.path, f"{site.size:,}", alternatives(site))
    return f"{size}\n{drawn_text(rows)}"


def alternatives(site: Site) -> str:
    """What a site chooses among: all of it where it is little, else how it begins and ends."""
    if site.size <= MOST_SHOWN:
        return " | ".join(site.text(index) for index in range(site.size))
    return " | ".join([*(site.text(index) for index in range(3)), "…", site.text(site.size - 1)])


@click.command(short_help="Draw architectures, as closed files.")
@file_argument
@click.option(
    "-n", "--number", type=click.IntRange(1, 100_000), default=1, show_default=True,
    help="How many, with seeds counting up from --seed.",
)  # fmt: skip
@seed_option("The same seed gives the same architecture.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for one file each, instead of printing."
)
def sample(file: str, number: int, seed: int, out: Path | None) -> None:
    """Draw architectures of FILE, uniformly from those that keep its constraints.

    Each is printed as a closed .arch file: no choice is left in it.
    """
    drawn = _drawn(file, number, seed)
    if out is not None:
        _save(drawn, out, Path(file).stem)
        return
    for index, (own_seed, arch) in enumerate(drawn):
        if number > 1:
            click.echo(
                f"{(index and chr(10)) or ''}# sample {index + 1} of {number}: seed {own_seed}\n"
            )
        click.echo(arch.text, nl=not arch.text.endswith("\n"))


def _drawn(file: str, number: int, seed: int) -> Iterator[tuple[int, Arch]]:
    found = space(file)
    return ((own, found.sample(own)) for own in range(seed, seed + number))


def _save(drawn: Iterator[tuple[int, Arch]], out: Path, stem: str) -> None:
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for seed, arch in drawn:
        path = out / f"{stem}-{seed}.arch"
        write(path, arch.text)
        click.echo(path)


COMMANDS: MAPPING = {"count": count, "sample": sample}
