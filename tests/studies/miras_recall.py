"""Memories that learn against Gated DeltaNet, trained at equal parameters on recall.

    python -m tests.studies.miras_recall --steps 1000 --seeds 2 --out recall

trains two layers of each mixer on MQAR and on noisy in-context recall, the channel mixer as wide as makes
the parameters equal, and writes a table (CSV) and a plot (HTML) of the accuracy on held-out sequences.
The published papers lead one to expect every learned memory above Gated DeltaNet, on noisy recall Yaad
(whose loss no outlier dominates) above Moneta (whose loss the largest errors dominate).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from fractions import Fraction
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import archdsl
from archdsl import Arch
from archdsl.compiler.model import Model
from archdsl.search.tasks.in_context_recall import NoisyInContextRecall
from archdsl.search.tasks.mqar import MQAR

MIXERS = {
    "Gated DeltaNet": "gated_deltanet(heads = 2, expand_k = 1, expand_v = 1)",
    "Titans": "titans(heads = 2, expand = 2, chunk = 8)",
    "Moneta": "moneta(heads = 2, expand = 2, chunk = 8, rank = 8)",
    "Yaad": "yaad(heads = 2, expand = 2, chunk = 8, rank = 8)",
    "Memora": "memora(heads = 2, expand = 2, chunk = 8, rank = 8)",
    "ATLAS": "atlas(heads = 4, window = 4, newton = 3, chunk = 8)",
}
WIDTH, BUDGET = 32, 46_000

TASKS: dict[str, Any] = {
    "mqar": MQAR(vocab=64, length=32, pairs=4),
    "noisy recall": NoisyInContextRecall(vocab=32, length=32, examples=None),
}


@dataclass(frozen=True)
class Result:
    """One trained model."""

    mixer: str
    task: str
    seed: int
    parameters: int
    state_bytes: int
    accuracy: float


def architecture(mixer: str, symbols: int) -> Arch:
    """Two layers, of the width of the channel mixer that comes nearest to the budget."""

    def arch(expand: Fraction) -> Arch:
        return archdsl.loads(
            f"model {{ embed(vocab = {symbols}, dim = {WIDTH}) repeat(times = 2) {{"
            f" residual {{ rms_norm {mixer} }} residual {{ rms_norm swiglu(expand = {expand}) }} }}"
            " rms_norm lm_head(tied = true) }"
        ).sample(0)

    sizes = [Fraction(eighths, 8) for eighths in range(4, 64)]
    low, high = 0, len(sizes) - 1
    while low < high:
        middle = (low + high) // 2
        if arch(sizes[middle]).cost.params < BUDGET:
            low = middle + 1
        else:
            high = middle
    return arch(sizes[low])


class Judge:
    """The most likely symbols of a model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predictions(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        with torch.no_grad():
            found: NDArray[np.int64] = self.model(torch.from_numpy(tokens)).argmax(-1).numpy()
        return found


def trained(name: str, task_name: str, seed: int, steps: int) -> Result:
    """One model, from scratch."""
    task = TASKS[task_name]
    arch = architecture(MIXERS[name], task.symbols)
    model = arch.compile(seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=steps, pct_start=0.1
    )
    for step in range(steps):
        tokens, targets = map(torch.from_numpy, task.batch(32, seed, step))
        loss = model.loss(tokens, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    accuracy = task.evaluate(Judge(model.eval()), 256, 0)["accuracy"]
    cost = arch.cost
    return Result(name, task_name, seed, cost.params, cost.state_bytes(task.positions), accuracy)


def results(steps: int, seeds: int) -> Iterator[Result]:
    """Every mixer on every task."""
    for task in TASKS:
        for name in MIXERS:
            for seed in range(seeds):
                yield trained(name, task, seed, steps)


def table(found: list[Result]) -> str:
    """A line a mixer: parameters, state, the accuracy of each seed and their mean."""
    lines = [f"{'task':14}{'mixer':16}{'params':>8}{'state':>9}   accuracy"]
    for task in TASKS:
        for name in MIXERS:
            rows = [r for r in found if (r.mixer, r.task) == (name, task)]
            if rows:
                each = " ".join(f"{r.accuracy:.3f}" for r in rows)
                average = mean(r.accuracy for r in rows)
                size = f"{rows[0].parameters:8}{rows[0].state_bytes:9}"
                lines.append(f"{task:14}{name:16}{size}   {average:.3f} ({each})")
    return "\n".join(lines)


def plotted(found: list[Result], path: Path) -> None:
    """Bars of the mean accuracy, a dot a seed."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for task in TASKS:
        rows = [r for r in found if r.task == task]
        means = [mean([r.accuracy for r in rows if r.mixer == n] or [0]) for n in MIXERS]
        figure.add_bar(name=task, x=list(MIXERS), y=means)
    figure.update_layout(yaxis_title="accuracy, mean of the seeds", barmode="group")
    figure.write_html(path, include_plotlyjs="cdn")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where the table (.csv) and the plot (.html) go")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Result] = []
    for result in results(given.steps, given.seeds):
        found.append(result)
        print(result, file=sys.stderr, flush=True)
    print(table(found))
    if given.out:
        with given.out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(Result)])
            writer.writerows(map(astuple, found))
        plotted(found, given.out.with_suffix(".html"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
