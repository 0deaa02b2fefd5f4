"""The command ``archdsl``: thin commands, each of which calls a public verb and renders what it gives.

To add a command, write a module here with one ``click`` command of that name and put it in
:data:`COMMANDS`. A command's module is imported when the command is run, so that ``check`` never waits
for what ``search`` needs; inside the modules only torch, and what imports torch, is imported late.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

import archdsl
from archdsl.cli.output import Failure, report, show_errors
from archdsl.diagnostics import ArchError, did_you_mean

COMMANDS = {
    "check": "check",
    "fmt": "layout",
    "explain": "explain",
    "components": "components",
    "count": "space",
    "sample": "space",
    "cost": "cost",
    "show": "show",
    "compile": "model",
    "generate": "model",
    "import": "patterns",
    "export": "patterns",
    "search": "search",
    "compare": "compare",
    "validate": "validate",
    "verify": "verify",
    "bench": "bench",
}
"""The module of each command, in the order in which ``--help`` lists them."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What the system says of an output that takes no more."""

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended."""


class Commands(click.Group):
    """A group that imports a command when it is asked for, and renders whatever goes wrong in it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, from its module."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"archdsl.cli.{COMMANDS[cmd_name]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names, or the nearest one's name."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            guess = did_you_mean(args[0], COMMANDS)
            ctx.fail(f"there is no command `{args[0]}`{'; ' if guess else ''}{guess}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a user's mistake is shown as diagnostics, a bug of ours in one line."""
        try:
            return super().invoke(ctx)
        except ArchError as error:
            show_errors(error.diagnostics)
            ctx.exit(1)
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                raise
            if isinstance(error, OSError) and error.errno in FULL:
                raise Failure(f"the output cannot be written: {error.strerror}") from None
            raise Failure(report(error)) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(archdsl.__version__, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
def cli(debug: bool) -> None:
    """Describe sequence-model architectures in a text file; check, compile and search them.

    `archdsl COMMAND --help` says more about a command.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 mistakes found, 2 wrong usage, 130 interrupted."""
    _opened()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        cli.main(args=arguments, prog_name="archdsl")
    except KeyboardInterrupt:
        status: int | str | None = INTERRUPTED
    except SystemExit as end:
        status = end.code
    sys.exit(_flushed(status))


def _opened() -> None:
    """Have the three standard streams, and nothing else in their places, where the caller closed some."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _flushed(status: int | str | None) -> int | str | None:
    """Write out what is left; a reader that has gone is no mistake worth a word."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        click.echo(f"error: the output cannot be written: {error.strerror}", err=True)
        return 1
    return status
