"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

MOST_JOBS = 1024


def jobs_option(help: str, default: int | None = 1) -> Callable[[Command], Command]:
    """``--jobs``: processes on this machine."""
    return click.option(
        "--jobs", type=click.IntRange(1, MOST_JOBS), default=default,
        show_default=default is not None, help=help,
    )  # fmt: skip


def folder_option(default: str) -> Callable[[Command], Command]:
    """``--out``: the folder of a run, with its default in words."""
    return click.option(
        "--out", type=click.Path(path_type=Path), help=f"Folder of the run.  [default: {default}]"
    )


quiet_option = click.option("--quiet", is_flag=True, help="Print nothing.")
