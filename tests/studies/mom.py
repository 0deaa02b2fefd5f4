"""What routing costs: ``python -m tests.studies.mom`` prints each mixture beside one memory.

Time and memory of forward and backward of one layer on B4 T2048, four memories of which a token takes
two. One layer and its mixture run by turns, and the figure is the median of the ratios of neighbours, so
that a machine that is busy for a while is busy for both. With ``--strict`` the exit status is 1 where a
bound is broken.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import process_time

import torch
from torch import Tensor

import archdsl
from archdsl.compiler.models.model import Model
from archdsl.kernels.bench import peak

MIXERS = ("gated_deltanet(heads = 4)", "gla(heads = 4)", "hgrn", "titans(heads = 4)")
OPTIONS = (
    "",
    ", projections = shared",
    ", shared = true",
)
"""Options of the mixture; the shared memory takes every token, so it is half as much work again."""

TIME, MEMORY = 2.6, 3.0
"""How many times one memory's time and memory two of four may take; two tokens' work is the ideal."""


@dataclass(frozen=True)
class Row:
    """One mixture beside one memory: ratios, and one memory's seconds and bytes."""

    name: str
    seconds: float
    bytes: int
    time: float
    memory: float
    bounded: bool

    @property
    def kept(self) -> bool:
        """Whether both ratios are within their bounds."""
        return not self.bounded or (self.time <= TIME and self.memory <= MEMORY)

    def __str__(self) -> str:
        sign = "    " if not self.bounded else "ok  " if self.kept else "OVER"
        return (
            f"{sign} {self.name}: {self.time:.2f}× the time of one ({self.seconds * 1e3:.0f} ms),"
            f" {self.memory:.2f}× the memory ({self.bytes / 2**20:.0f} MiB)"
        )


def layer(text: str, width: int) -> Model:
    """The model of one layer on embedded tokens."""
    return (
        archdsl.loads(f"model {{ embed(dim = {width}, vocab = 512) {text} }}").sample(0).compile()
    )


def training(model: Model, tokens: Tensor) -> Callable[[], object]:
    """Forward and backward once."""

    def run() -> None:
        model.zero_grad(set_to_none=True)
        model(tokens).square().mean().backward()

    return run


def seconds(action: Callable[[], object]) -> float:
    """Processor time it takes: on one thread that of a quiet machine, whatever else runs."""
    start = process_time()
    action()
    return process_time() - start


def measured(mixer: str, options: str, width: int, length: int, repeats: int) -> Row:
    """One mixture against one memory."""
    tokens = torch.randint(512, (4, length), generator=torch.Generator().manual_seed(0))
    shared = (
        "" if "shared = " in options.replace("projections = shared", "") else ", shared = false"
    )
    mixture = f"mom(memories = 4, top = 2{shared}{options}) {{ {mixer} }}"
    one, many = (training(layer(text, width), tokens) for text in (mixer, mixture))
    seconds(one), seconds(many)
    pairs = [(seconds(one), seconds(many)) for _ in range(repeats)]
    memory = peak(one), peak(many)
    return Row(
        name=mixture,
        seconds=median(a for a, _ in pairs),
        bytes=memory[0],
        time=median(b / a for a, b in pairs),
        memory=memory[1] / memory[0],
        bounded=not options and mixer == MIXERS[0],
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="what routing costs")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--mixers", nargs="*", default=list(MIXERS))
    parser.add_argument("--strict", action="store_true")
    asked = parser.parse_args()
    print(
        f"load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    rows = []
    for mixer in asked.mixers:
        for options in OPTIONS:
            row = measured(mixer, options, asked.width, asked.length, asked.repeats)
            print(row, flush=True)
            rows.append(row)
    return int(asked.strict and not all(row.kept for row in rows))


if __name__ == "__main__":
    sys.exit(main())
