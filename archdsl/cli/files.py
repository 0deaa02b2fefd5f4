"""Which files a command reads, and what they say."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import archdsl
from archdsl.cli.output import Failure
from archdsl.diagnostics import Source
from archdsl.grammar.text import LARGEST_FILE, read_source, source_of

if TYPE_CHECKING:
    from archdsl import Arch, Space

STANDARD_INPUT = "-"
SHOWN_AS = "<stdin>"
"""The name under which standard input is shown."""

Command = TypeVar("Command", bound=Callable[..., Any])

file_argument = click.argument("file", metavar="FILE")
files_argument = click.argument("files", metavar="FILE…", nargs=-1, required=True)


def seed_option(help: str) -> Callable[[Command], Command]:
    """``--seed``."""
    return click.option(
        "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help=help
    )


def expanded(names: Iterable[str]) -> Iterator[str]:
    """The files that are meant: a folder means every ``.arch`` file below it.

    Raises:
        Failure: a folder has none.
    """
    for name in names:
        if name != STANDARD_INPUT and Path(name).is_dir():
            inside = sorted(path for path in Path(name).rglob("*.arch") if path.is_file())
            if not inside:
                raise Failure(f"there is no .arch file in `{name}`")
            yield from map(str, inside)
        else:
            yield name


def source(name: str) -> Source:
    """The text of a file, or of standard input for ``-``.

    Raises:
        ArchError: it cannot be read.
    """
    return standard_input() if name == STANDARD_INPUT else read_source(name)


def standard_input() -> Source:
    """All of standard input, as far as a file may be long.

    Raises:
        ArchError: it is too large or not UTF-8.
    """
    return source_of(SHOWN_AS, sys.stdin.buffer.read(LARGEST_FILE + 1))


def space(name: str) -> Space:
    """The space a file describes.

    Raises:
        ArchError: the file has mistakes.
    """
    if name == STANDARD_INPUT:
        return archdsl.loads(standard_input().text, SHOWN_AS)
    return archdsl.load(name)


def architecture(name: str, seed: int) -> Arch:
    """The architecture of a closed file; of an open one a draw, and a word about it.

    Raises:
        ArchError: the file has mistakes, or nothing in it meets its constraints.
    """
    found = space(name)
    count = found.count()
    if count > 1:
        click.echo(f"one of {count:,} architectures (--seed {seed})", err=True)
    return found.sample(seed)
