"""``archdsl components``: what may be written in a file, from the schemas that check it."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import click
from pydantic import BaseModel

from archdsl.blocks import registry
from archdsl.blocks.base import Kind, Layer
from archdsl.cli.output import MAPPING, Failure, drawn_text, table, width
from archdsl.compiler.reading.names import standard, standard_names
from archdsl.compiler.reading.quantities import COSTS
from archdsl.compiler.terms.expect import fields
from archdsl.compiler.terms.spelling import value_text
from archdsl.diagnostics import did_you_mean
from archdsl.grammar import ast
from archdsl.grammar.flat import format_expression

TITLES = {
    "layer": "layers",
    "mixer": "layers written in the language itself, std/",
    "memory": "memories of miras",
    "bias": "biases of miras",
    "retention": "retentions of miras",
    "learner": "learners of miras",
    "draw": "drawn depths of loop",
    "halting rule": "halting rules of loop",
    "task": "tasks",
    "cost": "costs, for require and minimize",
    "sampler": "samplers of search",
    "metric": "metrics of search, for rank",
}
"""What each group is called, in order; a kind that is not here comes last, under its own name."""

BODIES = {"layers": " { … }", "labelled": " { label: … }", "equations": " { name = … }", "none": ""}


@dataclass(frozen=True)
class Parameter:
    """One parameter: its default as it would be written, and what it takes in words."""

    name: str
    default: str | None
    takes: str = ""

    def __str__(self) -> str:
        return f"{self.name}!" if self.default is None else f"{self.name} = {self.default}"


@dataclass(frozen=True)
class Entry:
    """A name that may be written in a file.

    Args:
        kind: its group.
        name: the name.
        parameters: in the order of positional arguments.
        about: what it is.
        body: what stands behind its arguments.
        text: the definition, where it is written in the language.
        package: where it comes from, if not from archdsl.
    """

    kind: str
    name: str
    parameters: tuple[Parameter, ...]
    about: str
    body: str = ""
    text: str = ""
    package: str = ""

    @property
    def call(self) -> str:
        """How it is written."""
        arguments = ", ".join(map(str, self.parameters))
        return f"{self.name}({arguments}){self.body}" if arguments else f"{self.name}{self.body}"

    @property
    def line(self) -> str:
        """What it is, in one sentence."""
        paragraph = " ".join(self.about.split("\n\n")[0].split())
        first = re.split(r"(?<=\.)\s+(?=[A-Z`])", paragraph)[0]
        return f"{first} (from {self.package})".lstrip() if self.package else first


@click.command(short_help="List what may be written in a file.")
@click.argument("name", required=False)
def components(name: str | None) -> None:
    """List everything that may be written in a file, or say all about NAME.

    A parameter with ! has no default and must be given. Components of other packages are listed too.
    """
    known = list(entries())
    if name is None:
        click.echo(_listing(known))
        return
    meant = [entry for entry in known if entry.name == name]
    if not meant:
        guess = did_you_mean(name, {entry.name for entry in known})
        raise Failure(f"there is no component `{name}`{'; ' if guess else ''}{guess}")
    click.echo("\n\n".join(map(_in_full, meant)))


# --- what there is --------------------------------------------------------------------------------


def entries() -> Iterator[Entry]:
    """Everything, group by group."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    for kind in kinds:
        for name in registry.names(kind):
            yield _component(kind, name)
    for name in standard_names():
        yield _mixer(name)
    for name, cost in COSTS.items():
        yield Entry("cost", name, _parameters(cost), _about(cost))


def _component(kind: Kind, name: str) -> Entry:
    found = registry.find(kind, name)
    assert found is not None
    body = BODIES[found.body] if issubclass(found, Layer) else ""
    ours = (kind, name) in registry.BUILT_IN
    package = "" if ours else found.__module__.partition(".")[0]
    return Entry(kind, name, _parameters(found), _about(found), body, package=package)


def _parameters(model: type[BaseModel]) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(name, _default(model, name), str(expect))
        for name, expect in fields(model).items()
    )


def _default(model: type[BaseModel], name: str) -> str | None:
    info = model.model_fields[name]
    if info.is_required():
        return None
    return value_text(info.get_default(call_default_factory=True), fields(model)[name])


def _about(model: type[BaseModel]) -> str:
    written = inspect.cleandoc(model.__doc__ or "").split("\n\nArgs:")[0]
    return written.replace("``", "`")


def _mixer(name: str) -> Entry:
    found = standard(name)
    assert found is not None
    scope, definition = found
    given = definition.parameters or () if isinstance(definition, ast.Def) else ()
    parameters = tuple(
        Parameter(one.name, format_expression(one.default) if one.default else None)
        for one in given
    )
    about = _comment_above(scope.program, definition)
    return Entry("mixer", name, parameters, about, text=definition.span.text)


def _comment_above(program: ast.Program, definition: ast.Node) -> str:
    """The comment lines right above a definition; a blank line may stand between."""
    before = [item.span.end for item in program.items if item.span.end <= definition.span.start]
    start = max(before, default=0)
    own = [c.text for c in program.comments if start <= c.span.start < definition.span.start]
    return "\n".join(own)


# --- how it is shown ------------------------------------------------------------------------------


def _listing(known: Sequence[Entry]) -> str:
    kinds = list(dict.fromkeys([*TITLES, *(entry.kind for entry in known)]))
    groups = [(kind, [entry for entry in known if entry.kind == kind]) for kind in kinds]
    return "\n\n".join(_group(kind, members) for kind, members in groups if members)


def _group(kind: str, members: Sequence[Entry]) -> str:
    lines = [f"{TITLES.get(kind, kind)}:"]
    for entry in members:
        lines += _wrapped(entry.call, "  ", "      ")
        lines += _wrapped(entry.line, "      ", "      ")
    return "\n".join(lines)


def _in_full(entry: Entry) -> str:
    parts = ["\n".join(_wrapped(entry.call, "", "    ")), f"a {entry.kind}. {entry.about}".strip()]
    if entry.text:
        parts.append(entry.text)
    elif entry.parameters:
        rows = table("parameter", "default", "takes")
        for one in entry.parameters:
            rows.add_row(
                one.name, "must be given" if one.default is None else one.default, one.takes
            )
        parts.append(drawn_text(rows))
    return "\n\n".join(parts)


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, width(), initial_indent=first, subsequent_indent=rest, break_long_words=False
    )


COMMANDS: MAPPING = {"components": components}
