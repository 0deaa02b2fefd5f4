"""``archdsl compile`` and ``archdsl generate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from archdsl.cli.cost import FLOATS
from archdsl.cli.files import architecture, file_argument, seed_option
from archdsl.cli.output import MAPPING, Failure, in_bytes, plural, writing

if TYPE_CHECKING:
    from archdsl import Arch
    from archdsl.compiler.models.model import Model

BYTE_VALUES = 256

START = b"\n"
"""What stands before a text that begins from nothing: a model needs something to read."""


@click.command("compile", short_help="Build the module, and write a checkpoint.")
@file_argument
@click.option("--out", type=click.Path(path_type=Path), help="Checkpoint to write, as safetensors.")
@click.option("--dtype", type=click.Choice(FLOATS), default="float32", show_default=True)
@click.option("--device", default="cpu", show_default=True, help="Where it is built: cpu, cuda, …")
@seed_option("Of the weights, and of the architecture where FILE has choices.")
def compile_(file: str, out: Path | None, dtype: str, device: str, seed: int) -> None:
    """Build the module of FILE, with fresh weights, and write it as a checkpoint.

    The checkpoint holds the closed .arch text, so it alone rebuilds its model.
    """
    model = built(architecture(file, seed), device, dtype, seed)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    click.echo(f"{plural(model.cost.params, 'parameter')}, {in_bytes(size)} in {dtype}")
    if out is not None:
        with writing(out):
            model.save(str(out))
        click.echo(f"wrote {out}")


def built(arch: Arch, device: str, dtype: str, seed: int) -> Model:
    """The model, or one line about why the machine cannot hold it.

    Raises:
        Failure: there is no such device, or not enough memory.
    """
    require_device(device)
    try:
        return arch.compile(device=device, dtype=dtype, seed=seed)
    except (MemoryError, RuntimeError) as error:
        if (
            not isinstance(error, MemoryError)
            and "alloc" not in str(error)
            and "memory" not in str(error)
        ):
            raise
        size = plural(arch.cost.params, "parameter")
        raise Failure(f"there is not enough memory on `{device}` for {size}") from None


def require_device(device: str) -> None:
    """Complain about a device that PyTorch cannot use here.

    Raises:
        Failure: it cannot.
    """
    # torch takes a second to import: only who needs a model pays for it
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise Failure(f"`{device}` cannot be used on this machine") from None


@click.command(short_help="Let a byte-level model write.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--prompt", default="", help="Text to go on from.")
@click.option(
    "--count", type=click.IntRange(1, 1_000_000), default=400, show_default=True,
    help="Bytes to write.",
)  # fmt: skip
@click.option("--temperature", type=click.FloatRange(0), default=0.8, show_default=True)
@click.option("--top", type=click.IntRange(1), help="Draw from so many of the likeliest bytes.")
@seed_option("Of the draws.")
def generate(
    checkpoint: Path, prompt: str, count: int, temperature: float, top: int | None, seed: int
) -> None:
    """Let the byte-level model in CHECKPOINT write on from a prompt."""
    import torch

    from archdsl.compiler.models.checkpoint import load_model

    model = load_model(checkpoint)
    require_bytes(model, checkpoint)
    start = prompt.encode("utf-8", errors="surrogateescape")
    tokens = torch.tensor([list(start or START)])
    written = model.generate(tokens, count, temperature=temperature, top=top, seed=seed)
    click.echo(readable(start + bytes(written[0, tokens.shape[1] :].tolist())))


def require_bytes(model: Model, checkpoint: Path) -> None:
    """Complain about a model that does not write bytes one after the other.

    Raises:
        Failure: it reads or gives something else.
    """
    if not model.cost.causal:
        raise Failure(f"the model in `{checkpoint}` sees a whole sequence at once: it cannot write")
    output = model.graph.output.type
    if output.kind != "logits" or output.width != BYTE_VALUES:
        raise Failure(
            f"the model in `{checkpoint}` gives {output}, and text needs one of {BYTE_VALUES} bytes"
        )


def readable(text: bytes) -> str:
    """UTF-8 where it is, with signs in place of what a terminal must not get."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else "·"
        for char in text.decode("utf-8", errors="replace")
    )


COMMANDS: MAPPING = {"compile": compile_, "generate": generate}
