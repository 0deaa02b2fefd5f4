"""``archdsl show``."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text
from rich.tree import Tree

from archdsl.cli.files import architecture, file_argument, seed_option, space
from archdsl.cli.output import MAPPING, Failure, deliver, drawn_text, exact, in_bytes, width
from archdsl.cli.space import described
from archdsl.compiler.graphs.draw import Branch, dot, kernels, mermaid, outline
from archdsl.compiler.graphs.passes import STAGES, run

if TYPE_CHECKING:
    from archdsl import Arch
    from archdsl.compiler.graphs.graph import Graph

FORMS = ("tree", "text", "mermaid", "dot", "svg")

LONG = 12
"""A part that was shown before is shown again only where it takes no more lines than this."""


@click.command(short_help="Draw an architecture, and what was recognised.")
@file_argument
@click.option(
    "--stage", type=click.Choice(["space", "arch", *STAGES]), default="recognise",
    show_default=True, help="The choices, the closed file, or the graph after a pass.",
)  # fmt: skip
@click.option(
    "--as", "form", type=click.Choice(FORMS), default="tree", show_default=True,
    help="How a graph is drawn; `svg` needs Graphviz.",
)  # fmt: skip
@seed_option("Which architecture of a file with choices.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write instead of printing.")
def show(file: str, stage: str, form: str, seed: int, out: Path | None) -> None:
    """Draw the architecture in FILE: its layers, what the compiler recognised, and why.

    --stage kernels lists which kernel runs each operation.
    """
    if stage == "space":
        deliver(described(space(file)), out)
        return
    arch = architecture(file, seed)
    deliver(arch.text if stage == "arch" else drawing(arch, stage, form), out)


def drawing(arch: Arch, stage: str, form: str) -> str:
    """The graph of an architecture after a stage."""
    graph = run(arch.graph, stage)
    if form == "tree":
        return chosen_kernels(graph) if stage == "kernels" else tree(graph, arch.hash)
    return DRAWINGS[form](graph)


def chosen_kernels(graph: Graph) -> str:
    """What each operation runs as, and why."""
    return "\n\n".join(
        "\n".join([choice.path, *indented(choice.kernel), *indented(choice.reason)])
        for choice in kernels(graph)
    )


def indented(text: str) -> list[str]:
    """A text below its title, in as many lines as it needs."""
    return textwrap.wrap(text, width(), initial_indent="    ", subsequent_indent="        ")


# --- the tree -------------------------------------------------------------------------------------


def tree(graph: Graph, digest: str) -> str:
    """The components as a tree, with widths, parameters and what was recognised."""
    branches = outline(graph)
    params = sum(branch.params for branch in branches)
    root = Tree(Text.assemble(("model ", "bold"), f"{exact(params)} parameters  {digest[:12]}"))
    grown = _Grown()
    for branch in branches:
        grown.add(root, branch)
    return drawn_text(root)


class _Grown:
    """Adds branches to a tree; a long one that was added before is only named again."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def add(self, parent: Tree, branch: Branch) -> None:
        """One branch and what is inside it."""
        again = branch.lines > LONG and id(branch) in self.seen
        self.seen.add(id(branch))
        grown = parent.add(heading(branch, again))
        if again:
            return
        for note in branch.notes:
            grown.add(Text(note, style="italic green"))
        for child in branch.children:
            self.add(grown, child)


def heading(branch: Branch, again: bool = False) -> Text:
    """The line of a branch: name, widths, parameters, state."""
    figures = [
        branch.widths,
        f"{exact(branch.params)} parameters" if branch.params else "",
        f"{in_bytes(branch.state)} state" if branch.state else "",
        f"{in_bytes(branch.cache)} cache a token" if branch.cache else "",
        "as above" if again else "",
    ]
    rest = "  ".join(filter(None, figures))
    return Text.assemble((branch.title, "bold cyan"), ("  " + rest if rest else "", "default"))


# --- text and pictures ----------------------------------------------------------------------------


def svg(graph: Graph) -> str:
    """A picture, drawn by Graphviz.

    Raises:
        Failure: Graphviz is not installed, or cannot draw it.
    """
    program = shutil.which("dot")
    if program is None:
        raise Failure(
            "`--as svg` needs the program `dot` of Graphviz, and it is not on this machine;"
            " install Graphviz, or take `--as dot` or `--as mermaid`"
        )
    made = subprocess.run(
        [program, "-Tsvg"],
        input=dot(graph),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if made.returncode:
        raise Failure(f"`dot` cannot draw this: {made.stderr.strip()}")
    return made.stdout


DRAWINGS: Mapping[str, Callable[[Graph], str]] = {
    "text": lambda graph: graph.text(),
    "mermaid": mermaid,
    "dot": dot,
    "svg": svg,
}
"""How a graph is written, by the name that ``--as`` takes."""

COMMANDS: MAPPING = {"show": show}
