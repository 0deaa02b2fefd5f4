"""``archdsl import`` and ``archdsl export``: layer patterns of other tools."""

from __future__ import annotations

import os.path
from pathlib import Path

import click

from archdsl.cli.files import (
    STANDARD_INPUT,
    architecture,
    file_argument,
    seed_option,
    standard_input,
)
from archdsl.cli.output import MAPPING, deliver
from archdsl.compiler.patterns import FORMATS, arch_text, of_arch, read, sizes_of_arch, write
from archdsl.grammar.format import format_program
from archdsl.grammar.parse import parse
from archdsl.grammar.text import read_source

out_option = click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file."
)


@click.command("import", short_help="Turn another tool's layer pattern into a file.")
@click.argument("source", metavar="CONFIG|PATTERN")
@out_option
def import_(source: str, out: Path | None) -> None:
    """Write a file with the layer pattern of CONFIG, a model's config.json, or of a Megatron PATTERN.

    What is read: Megatron's hybrid patterns, Hugging Face's layer_types and layers_block_type, Jamba's
    periods and offsets, Kimi's lists, flash-linear-attention's attn, Zamba's shared blocks. Keys of one
    configuration that disagree are an error. - reads from standard input.
    """
    if source == STANDARD_INPUT:
        text, name = standard_input().text, "a configuration"
    elif "." in source or os.path.isfile(source):  # no pattern has a dot
        text, name = read_source(source).text, Path(source).name
    else:
        text, name = source, f"the pattern {source}"
    kinds, sizes = read(text)
    deliver(format_program(parse(arch_text(kinds, sizes, name))), out)


@click.command("export", short_help="Write a file's layer pattern for another tool.")
@file_argument
@click.option("--as", "form", type=click.Choice(list(FORMATS)), required=True, help="The notation.")
@seed_option("Of the draw, for a file with choices.")
@out_option
def export(file: str, form: str, seed: int, out: Path | None) -> None:
    """Write the layer pattern of FILE as a Megatron string or as keys of a model's configuration."""
    arch = architecture(file, seed)
    deliver(write(of_arch(arch), form, sizes_of_arch(arch)) + "\n", out)


COMMANDS: MAPPING = {"import": import_, "export": export}
