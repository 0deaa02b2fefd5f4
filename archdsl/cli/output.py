"""What every command needs to print: diagnostics, tables, numbers, and files written whole."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from archdsl.console import render
from archdsl.diagnostics import Diagnostic

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

MAPPING = dict[str, click.Command]
"""What a command module calls ``COMMANDS``: its commands by name."""

NEW_FILE = 0o666
"""Permissions of a new file, before the user's mask."""


class Failure(click.ClickException):
    """Something that cannot be done, said in one line; exit status 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """The line, on standard error."""
        click.echo(f"{click.style('error', fg='red', bold=True)}: {self.message}", err=True)


# --- terminals ------------------------------------------------------------------------------------


def width() -> int:
    """Columns of the terminal; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def colored(stream: IO[str]) -> bool:
    """Whether colours may be written to a stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def console() -> Console:
    """A Rich console on standard output."""
    from rich.console import Console  # 40 ms that `check` and `fmt` never need

    return Console(
        file=sys.stdout, width=width(), highlight=False, markup=False, emoji=False,
        no_color=not colored(sys.stdout),
    )  # fmt: skip


def drawn_text(what: RenderableType) -> str:
    """Something of Rich's as text for standard output."""
    shown = console()
    with shown.capture() as capture:
        shown.print(what)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def table(*headings: str, right: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """An empty table.

    Args:
        headings: of the columns.
        right: those whose figures stand below each other.
        whole: those whose words are not broken into lines.
    """
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        made.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=heading in [*right, *whole],
            overflow="fold",
        )
    return made


# --- diagnostics and bugs -------------------------------------------------------------------------


def show_errors(diagnostics: Iterable[Diagnostic]) -> None:
    """Diagnostics on standard error, in full."""
    known = list(diagnostics)
    if known:
        click.echo(render(known, color=colored(sys.stderr), width=width()), err=True, color=True)


def report(error: Exception) -> str:
    """A bug of ours in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    words = " ".join(str(error).split())[:200]
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return (
        f"this is a bug in archdsl ({said}{place}); please report it with the file that shows it"
        " (`archdsl --debug …` prints the traceback)"
    )


# --- numbers --------------------------------------------------------------------------------------


def plural(count: int, noun: str) -> str:
    """``1 file``, ``2 files``, ``1,536 architectures``."""
    return f"{count:,} {noun}{'s' if count != 1 else ''}"


def exact(number: float) -> str:
    """A number with separators for thousands, without a fraction that says nothing."""
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.2f}"


def in_bytes(count: float) -> str:
    """``256 KiB``; below 1 KiB plain bytes."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.4g} {unit}"
    return f"{count:,.0f} B"


# --- files ----------------------------------------------------------------------------------------


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is written into one line."""
    try:
        yield
    except OSError as error:
        raise Failure(f"`{path}` cannot be written: {(error.strerror or str(error))}") from None


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all; one that is there keeps its permissions.

    Raises:
        Failure: it cannot be written.
    """
    with writing(path):
        target = path.resolve()
        _replace(target, lambda file: file.write(text), _mode(target))


def _replace(target: Path, fill: Callable[[IO[str]], object], mode: int) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            fill(file)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _mode(target: Path) -> int:
    if target.exists():
        return target.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return NEW_FILE & ~mask


def deliver(text: str, out: Path | None) -> None:
    """Write a text to a file, or to standard output where none is named."""
    if out is None:
        click.echo(text, nl=not text.endswith("\n"))
    else:
        write(out, text)
        click.echo(f"wrote {out}", err=True)
