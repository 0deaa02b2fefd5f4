"""Memories that learn against Gated DeltaNet, trained at equal parameters on recall.

    python -m tests.studies.miras_recall --json recall.json --plot docs/miras_recall.png

trains two layers of each mixer on MQAR and on noisy in-context recall, the channel mixer as wide as makes
the parameters equal, and prints the accuracy on held-out sequences. What is trained is written at once and
never trained again, so the same command goes on with a study that was ended in any way.
What the papers lead one to expect, and what came out, is told in ``docs/miras.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import archdsl
from archdsl import Arch
from archdsl.compiler.models.model import Model
from archdsl.search.tasks.in_context_recall import NoisyInContextRecall
from archdsl.search.tasks.mqar import MQAR

MIXERS = {
    "Gated DeltaNet": "gated_deltanet(heads = 2, expand_k = 1, expand_v = 1)",
    "Titans": "titans(heads = 2, expand = 1, chunk = 8)",
    "Moneta": "moneta(heads = 2, expand = 1, chunk = 8, rank = 8)",
    "Yaad": "yaad(heads = 2, expand = 1, chunk = 8, rank = 8)",
    "Memora": "memora(heads = 2, expand = 1, chunk = 8, rank = 8)",
    "ATLAS": "atlas(heads = 4, expand = 1/2, window = 4, newton = 3, chunk = 8)",
}
WIDTH, BUDGET = 32, 46_000

STEPS, RATE, EVERY = 240, 1e-2, 40
"""Training steps, the largest learning rate, and steps between two looks at the accuracy."""


@dataclass(frozen=True)
class Exercise:
    """A task, the sequences of a training step, and how often a guess among its values is right."""

    task: Any
    batch: int
    chance: float


EXERCISES = {
    "MQAR": Exercise(MQAR(vocab=18, length=16, pairs=4, random_non_queries=False), 64, 1 / 9),
    "noisy recall": Exercise(
        NoisyInContextRecall(vocab=16, noise_vocab=8, length=32, examples=None), 32, 1 / 4
    ),
}


@dataclass(frozen=True)
class Result:
    """One trained model; accuracy on 256 held-out sequences after every ``EVERY`` steps and the last."""

    task: str
    mixer: str
    seed: int
    steps: int
    parameters: int
    state_bytes: int
    seconds: float
    accuracy: list[float]

    @property
    def name(self) -> Name:
        """What was asked for."""
        return self.task, self.mixer, self.seed, self.steps


@cache
def architecture(mixer: str, symbols: int) -> Arch:
    """Two layers, of the width of the channel mixer that comes nearest to the budget."""

    def arch(expand: Fraction) -> Arch:
        return archdsl.loads(
            f"model {{ embed(vocab = {symbols}, dim = {WIDTH}) repeat(times = 2) {{"
            f" residual {{ rms_norm {mixer} }} residual {{ rms_norm swiglu(expand = {expand}) }} }}"
            " rms_norm lm_head(tied = true) }"
        ).sample(0)

    sizes = [Fraction(eighths, 8) for eighths in range(4, 64)]
    above = bisect_left(sizes, BUDGET, lo=1, hi=len(sizes) - 1, key=lambda e: arch(e).cost.params)
    return min(map(arch, sizes[above - 1 : above + 1]), key=lambda a: abs(a.cost.params - BUDGET))


class Judge:
    """The most likely symbols of a model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predictions(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Symbols ``[count, length]`` behind tokens ``[count, length]``."""
        with torch.no_grad():
            found: NDArray[np.int64] = self.model(torch.from_numpy(tokens)).argmax(-1).numpy()
        return found


def accuracy(model: Model, task: Any) -> float:
    """The share of held-out answers that is right."""
    model.eval()
    found: float = task.evaluate(Judge(model), 256, 0)["accuracy"]
    model.train()
    return found


Name = tuple[str, str, int, int]
"""Task, mixer, seed, steps."""


class Run:
    """One model on its way: AdamW with one cycle of its rate, clipped gradients.

    What a run needs to go on is written to ``path`` whenever its accuracy is looked at; going on gives
    what an undisturbed run gives, since a batch follows from seed and step.
    """

    def __init__(self, name: Name, path: Path | None) -> None:
        self.name, self.path = name, path
        task, mixer, seed, steps = name
        self.exercise = EXERCISES[task]
        self.arch = architecture(MIXERS[mixer], self.exercise.task.symbols)
        self.model = self.arch.compile(seed=seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), RATE, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, RATE, total_steps=steps, pct_start=0.2
        )
        self.step, self.seconds, self.accuracy = 0, 0.0, list[float]()
        if path is not None and path.exists():
            self._load(path)

    def _load(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        if tuple(saved["name"]) != self.name:
            return
        for part in ("model", "optimizer", "schedule"):
            getattr(self, part).load_state_dict(saved[part])
        self.step, self.seconds, self.accuracy = (
            saved[part] for part in ("step", "seconds", "accuracy")
        )

    def _save(self) -> None:
        if self.path is None:
            return
        state: dict[str, Any] = {
            part: getattr(self, part).state_dict() for part in ("model", "optimizer", "schedule")
        }
        state |= {part: getattr(self, part) for part in ("name", "step", "seconds", "accuracy")}
        new = self.path.with_name(self.path.name + ".new")
        torch.save(state, new)
        new.replace(self.path)

    def train(self) -> Result:
        """All steps that are left."""
        steps = self.name[-1]
        while self.step < steps:
            start = time.process_time()
            for _ in range(min(EVERY, steps - self.step)):
                self._learn()
            self.accuracy.append(accuracy(self.model, self.exercise.task))
            self.seconds += time.process_time() - start
            self._save()
        cost = self.arch.cost
        state = cost.state_bytes(self.exercise.task.positions)
        return Result(*self.name, cost.params, state, round(self.seconds, 1), self.accuracy)

    def _learn(self) -> None:
        """One step."""
        batch = self.exercise.task.batch(self.exercise.batch, self.name[2], self.step)
        tokens, targets = map(torch.from_numpy, batch)
        loss = self.model.loss(tokens, targets)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1


def asked(steps: int, seeds: int) -> Iterator[Name]:
    """Every mixer on every task, a seed at a time."""
    for seed in range(seeds):
        for task in EXERCISES:
            for mixer in MIXERS:
                yield task, mixer, seed, steps


def results(missing: Sequence[Name], minutes: float, path: Path | None) -> Iterator[Result]:
    """What has not been trained; begins no run after so many minutes."""
    start = time.monotonic()
    for name in missing:
        if time.monotonic() > start + 60 * minutes:
            return
        yield Run(name, path).train()


def table(found: Sequence[Result]) -> str:
    """A line a mixer and task: parameters, state, the accuracy's mean and that of each seed, time."""
    lines = [
        f"{'task':14}{'mixer':16}{'params':>8}{'state':>8}{'accuracy':>10}  {'seeds':14}{'CPU s':>6}"
    ]
    for task in EXERCISES:
        for mixer in MIXERS:
            rows = [r for r in found if (r.mixer, r.task) == (mixer, task)]
            if rows:
                last = [r.accuracy[-1] for r in rows]
                each = " ".join(f"{value:.3f}" for value in last)
                size = f"{rows[0].parameters:8}{rows[0].state_bytes:8}"
                seconds = mean(r.seconds for r in rows)
                lines.append(
                    f"{task:14}{mixer:16}{size}{mean(last):10.3f}  {each:14}{seconds:6.0f}"
                )
    return "\n".join(lines)


def plotted(found: Sequence[Result], path: Path) -> None:
    """A picture a task: the accuracy over the steps, a thin line a seed and a thick one their mean."""
    import matplotlib as mpl  # a development dependency, for this picture alone

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(
        1, len(EXERCISES), figsize=(11, 4.5), sharey=True, layout="constrained"
    )
    for axes, (task, exercise) in zip(places, EXERCISES.items(), strict=True):
        for place, mixer in enumerate(MIXERS):
            rows = [r for r in found if (r.mixer, r.task) == (mixer, task)]
            drawn(axes, rows, mixer, f"C{place}")
        axes.axhline(exercise.chance, color="0.6", linewidth=1, linestyle=":", label="a guess")
        axes.set(title=task, xlabel="step", ylim=(0, 1.02))
        axes.grid(alpha=0.25)
    places[0].set_ylabel("accuracy on held-out sequences")
    places[-1].legend()
    figure.savefig(path, dpi=110)


def drawn(axes: Any, rows: Sequence[Result], label: str, colour: str) -> None:
    """One mixer's lines."""
    if not rows:
        return
    steps = [min(EVERY * (n + 1), rows[0].steps) for n in range(len(rows[0].accuracy))]
    for row in rows:
        axes.plot(steps, row.accuracy, color=colour, linewidth=0.6, alpha=0.6)
    average = [mean(values) for values in zip(*(r.accuracy for r in rows), strict=True)]
    axes.plot(steps, average, color=colour, linewidth=1.8, label=label)


def kept(path: Path | None) -> list[Result]:
    """The results of an earlier run."""
    if path is None or not path.exists():
        return []
    return [Result(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def write(found: Sequence[Result], path: Path | None) -> None:
    """All results as JSON, in place of what was there, whole or not at all."""
    if path is not None:
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps([asdict(r) for r in found], indent=1) + "\n", encoding="utf-8")
        new.replace(path)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="results to write; runs already in it are kept")
    parser.add_argument("--plot", type=Path, help="picture to write")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so long")
    given = parser.parse_args()
    torch.set_num_threads(1)
    wanted = list(asked(given.steps, given.seeds))
    found = {result.name: result for result in kept(given.json)}
    missing = [names for names in wanted if names not in found]
    underway = given.json and given.json.with_suffix(".run")
    for result in results(missing, given.minutes, underway):
        found[result.name] = result
        write(list(found.values()), given.json)
        print(result, file=sys.stderr, flush=True)
    shown = [found[names] for names in wanted if names in found]
    print(table(shown))
    if given.plot:
        plotted(shown, given.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
