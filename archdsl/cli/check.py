"""``archdsl check``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

import archdsl
from archdsl.cli.files import STANDARD_INPUT, expanded, files_argument, standard_input
from archdsl.cli.output import MAPPING, colored, plural, width
from archdsl.compiler.spaces.check import check_source
from archdsl.console import render, render_concise, to_json
from archdsl.diagnostics import ArchError, Diagnostic, Severity


@click.command(short_help="Name every mistake in files.")
@files_argument
@click.option(
    "--format", "form", type=click.Choice(["text", "concise", "json"]), default="text",
    show_default=True, help="In full, one line each, or as data.",
)  # fmt: skip
@click.pass_context
def check(ctx: click.Context, files: tuple[str, ...], form: str) -> None:
    """Name every mistake in FILE…; a folder means all .arch files below it, - standard input.

    Warnings are shown, too. The exit status is 1 if there is an error.
    """
    names = list(dict.fromkeys(expanded(files)))
    found = list(dict.fromkeys(d for name in names for d in diagnostics(name)))
    shown = rendered(found, form) or (summary(names) if form == "text" else "")
    if shown:
        click.echo(shown, color=True)
    if any(diagnostic.severity is Severity.ERROR for diagnostic in found):
        ctx.exit(1)


def diagnostics(name: str) -> Sequence[Diagnostic]:
    """Everything worth saying about a file."""
    if name != STANDARD_INPUT:
        return archdsl.check(name)
    try:
        return check_source(standard_input())
    except ArchError as error:
        return error.diagnostics


def rendered(found: Sequence[Diagnostic], form: str) -> str:
    """The diagnostics in the form asked for; empty where there are none, but for JSON."""
    if form == "json":
        return json.dumps(to_json(found), indent=2, ensure_ascii=False)
    if form == "concise":
        return render_concise(found)
    return render(found, color=colored(sys.stdout), width=width())


def summary(names: Sequence[str]) -> str:
    """The one line of a run that found nothing."""
    return f"{plural(len(names), 'file')} checked, no errors"


COMMANDS: MAPPING = {"check": check}
