"""``archdsl bench``: a group of measuring commands, each in a module ``bench_NAME`` of its own."""

from __future__ import annotations

from importlib import import_module

import click

from archdsl.cli.output import MAPPING

BENCHES = ("kernels", "model")
"""Subcommands; the command of ``NAME`` is called so in the module ``bench_NAME``."""


class Benches(click.Group):
    """Imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them."""
        return list(BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand, from its module."""
        if cmd_name not in BENCHES:
            return None
        module = import_module(f"archdsl.cli.bench_{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=Benches, short_help="Measure speed: kernels, or a whole model.")
def bench() -> None:
    """Measure speed on this machine; parity first, and no speed where it fails."""


COMMANDS: MAPPING = {"bench": bench}
