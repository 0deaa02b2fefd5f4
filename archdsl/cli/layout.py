"""``archdsl fmt``."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from archdsl.cli.files import STANDARD_INPUT, expanded, files_argument, source
from archdsl.cli.output import MAPPING, plural, show_errors, write
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.grammar.format import format_program
from archdsl.grammar.parse import parse_source


@dataclass(frozen=True)
class Layout:
    """One file: its name, its text and the canonical one."""

    name: str
    before: str
    after: str

    @property
    def changed(self) -> bool:
        """Whether the file is not in its canonical layout yet."""
        return self.before != self.after

    def diff(self) -> str:
        """The change, as a unified diff."""
        before, after = (text.splitlines(keepends=True) for text in (self.before, self.after))
        names = (self.name, self.name)
        lines = difflib.unified_diff(before, after, *names)
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


@click.command(short_help="Bring files into the one canonical layout.")
@files_argument
@click.option("--check", "only_check", is_flag=True, help="Change nothing; list what would change.")
@click.option("--diff", "only_diff", is_flag=True, help="Change nothing; print what would change.")
@click.pass_context
def fmt(ctx: click.Context, files: tuple[str, ...], only_check: bool, only_diff: bool) -> None:
    """Bring FILE… into the one canonical layout, in place; - reads and writes a stream.

    A file with mistakes in its syntax is left as it is. With --check or --diff the exit status is 1
    if a file would change.
    """
    names = list(dict.fromkeys(expanded(files)))
    broken: list[Diagnostic] = []
    layouts = list(_layouts(names, broken))
    changed = [layout for layout in layouts if layout.changed]
    if only_diff:
        click.echo("".join(layout.diff() for layout in changed), nl=False)
    elif not only_check:
        _write(layouts)
    if names != [STANDARD_INPUT] or only_check:
        click.echo(_summary(changed, layouts, only_check or only_diff), err=only_diff)
    show_errors(broken)
    if broken or (changed and (only_check or only_diff)):
        ctx.exit(1)


def _layouts(names: list[str], broken: list[Diagnostic]) -> Iterator[Layout]:
    """Each file that parses; the mistakes of the others are added to ``broken``."""
    for name in names:
        try:
            text = source(name)
            yield Layout(name, text.text, format_program(parse_source(text)))
        except ArchError as error:
            broken += error.diagnostics


def _write(layouts: list[Layout]) -> None:
    for layout in layouts:
        if layout.name == STANDARD_INPUT:
            click.echo(layout.after, nl=False)
        elif layout.changed:
            write(Path(layout.name), layout.after)


def _summary(changed: list[Layout], layouts: list[Layout], would: bool) -> str:
    verb = "would change" if would else "changed"
    lines = [f"{verb} {layout.name}" for layout in changed]
    rest = plural(len(layouts) - len(changed), "file")
    return "\n".join([*lines, f"{plural(len(changed), 'file')} {verb}, {rest} left as they are"])


COMMANDS: MAPPING = {"fmt": fmt}
