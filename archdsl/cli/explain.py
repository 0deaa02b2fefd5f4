"""``archdsl explain``."""

from __future__ import annotations

import textwrap

import click

from archdsl.catalogue import Explanation, ids
from archdsl.catalogue import explain as explanation_of
from archdsl.cli.output import MAPPING, Failure, width
from archdsl.diagnostics import did_you_mean


@click.command(short_help="Say what a diagnostic means.")
@click.argument("id", required=False)
def explain(id: str | None) -> None:
    """Say what the diagnostic ID means and what to do about it; list every id without one."""
    if id is None:
        click.echo(listing())
        return
    found = explanation_of(id)
    if found is None:
        guess = did_you_mean(id, ids())
        raise Failure(f"there is no diagnostic `{id}`{'; ' if guess else ''}{guess}")
    click.echo(in_full(found))


def listing() -> str:
    """Every id and its title."""
    known = [found for found in map(explanation_of, ids()) if found]
    column = max((len(found.id) for found in known), default=0)
    return "\n".join(f"{found.id:{column}}  {found.title}" for found in known)


def in_full(found: Explanation) -> str:
    """Title, text, and the two examples."""
    text = "\n\n".join(map(_filled, found.text.split("\n\n")))
    wrong, right = (textwrap.indent(part, "    ") for part in (found.wrong, found.right))
    return f"{found.id}: {found.title}\n\n{text}\n\nwrong:\n\n{wrong}\n\nright:\n\n{right}"


def _filled(paragraph: str) -> str:
    return textwrap.fill(paragraph, min(width(), 100), break_long_words=False)


COMMANDS: MAPPING = {"explain": explain}
