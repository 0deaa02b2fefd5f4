"""How long the user waits: ``python -m tests.studies.timing`` prints each figure beside its bound.

A figure is the median of several runs; with ``--strict`` the exit status is 1 where one is over its bound.
Times on a busy machine say little, so the load is printed too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).parents[2]
HYBRID = ROOT / "specs" / "hybrid.arch"

START = 20
"""Candidates at a search's start that are compiled and scored and not counted."""

IMPORT = "import archdsl, sys; assert 'torch' not in sys.modules"
CHECK = "from archdsl.cli import main; main(['check', sys.argv[1]])"

LARGE = """
def block(mixer) {
    residual { rms_norm  mixer }
    residual { rms_norm  swiglu }
}

model {
    embed(dim = 512, vocab = 256)
    stack(depth = 24, ratio = 3:1) {
        linear: block(gated_deltanet(heads = 4))
        full: block(attention(heads = 8, position = rope))
    }
    rms_norm
    lm_head(tied = true)
}
"""


@dataclass(frozen=True)
class Figure:
    """One measured time.

    Args:
        what: what was done.
        value: the median.
        bound: what it may be at most.
        unit: of both.
    """

    what: str
    value: float
    bound: float
    unit: str = "ms"

    @property
    def kept(self) -> bool:
        """Whether it is within its bound."""
        return self.value <= self.bound

    def __str__(self) -> str:
        sign = "ok  " if self.kept else "OVER"
        return f"{sign} {self.what}: {self.value:.4g} {self.unit} (at most {self.bound:g})"


def seconds(action: Callable[[], object]) -> float:
    """How long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def process(code: str, *arguments: str) -> None:
    """Run Python in a process of its own."""
    subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", *arguments],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def imported(runs: int) -> Figure:
    """``import archdsl``, beyond the start of Python itself."""
    process(IMPORT)
    code = f"import time; start = time.perf_counter(); {IMPORT}; print(time.perf_counter() - start)"
    times = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True
            ).stdout
        )
        for _ in range(runs)
    ]
    return Figure("import archdsl, without torch", 1000 * median(times), 300)


def checked(runs: int) -> Figure:
    """``archdsl check specs/hybrid.arch``, with the start of Python."""
    process(CHECK, str(HYBRID))
    times = [seconds(lambda: process(CHECK, str(HYBRID))) for _ in range(runs)]
    return Figure(f"archdsl check {HYBRID.relative_to(ROOT)}", 1000 * median(times), 600)


# --- text to module -------------------------------------------------------------------------------


def built(runs: int) -> list[Figure]:
    """Text → module for 24 layers of width 512, and the share of it that is allocating weights."""
    import archdsl

    start = archdsl.loads(LARGE).sample(0)
    start.compile()
    beyond, shares = [], []
    for _ in range(runs):
        whole, drawing = compiled(lambda: archdsl.loads(LARGE).sample(0))
        allocating = allocated(start)
        beyond.append(whole - drawing - allocating)
        shares.append(drawing + allocating)
    return [
        Figure("text → module, 24 layers of width 512, beyond weights", 1000 * median(beyond), 150),
        Figure(
            "    allocating and drawing the weights themselves", 1000 * median(shares), float("inf")
        ),
    ]


def compiled(make: Callable[[], Any]) -> tuple[float, float]:
    """How long making and compiling an architecture takes, and how much of it drawing weights does."""
    from archdsl.compiler.models import build

    drawing, spent = build.draw_weights, [0.0]

    def draw(model: nn.Module, seed: int) -> None:
        spent[0] = seconds(lambda: drawing(model, seed))

    build.draw_weights = draw
    try:
        return seconds(lambda: make().compile()), spent[0]
    finally:
        build.draw_weights = drawing


def allocated(arch: object) -> float:
    """How long it takes to make tensors of the sizes of an architecture's parameters, and no more."""
    import torch

    shapes = [tuple(p.shape) for p in arch.compile().parameters()]
    return seconds(lambda: [torch.nn.Parameter(torch.empty(shape)) for shape in shapes])


def overhead(runs: int) -> list[Figure]:
    """Compiling candidates of ``specs/hybrid.arch`` as a share of scoring them, in a search's course.

    What candidates have in common is lowered and rewritten once, so the first ones are left out.
    """
    import archdsl
    from archdsl.search.metrics import chosen
    from archdsl.search.workers.jobs import Candidate

    space = archdsl.load(HYBRID)
    metrics = chosen(space.search.rank)
    beyond, whole = [], []
    for seed in range(START + 5 * runs):
        arch = space.sample(seed)
        compiling, drawing = compiled(lambda a=arch: a)
        weights = drawing + allocated(arch)
        scoring = seconds(lambda a=arch: Candidate(a, 0, "cpu", None, ROOT).score(metrics))
        beyond.append(100 * (compiling - weights) / scoring)
        whole.append(100 * compiling / scoring)
    return [
        Figure("compiling, beyond weights, of scoring a candidate", median(beyond[START:]), 5, "%"),
        Figure("    with allocating and drawing weights", median(whole[START:]), float("inf"), "%"),
    ]


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--strict", action="store_true", help="fail where a bound is not kept")
    options = parser.parse_args()
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians of {options.runs} runs"
    )
    figures = [imported(options.runs)]
    print(figures[-1], flush=True)
    for study in (checked, built, overhead):
        found = study(options.runs)
        for figure in found if isinstance(found, list) else [found]:
            figures.append(figure)
            print(figure, flush=True)
    sys.exit(1 if options.strict and not all(figure.kept for figure in figures) else 0)


if __name__ == "__main__":
    main()
