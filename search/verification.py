"""``archdsl verify tasks`` as a function: every task against what is published about it.

The generator is checked where it stands, at its published sizes; small reference models are trained on sizes
for which a CPU has time. See :class:`archdsl.search.tasks.anchors.Published`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.blocks.registry import find, names
from archdsl.search.errors import unknown_component
from archdsl.search.tasks.anchors import MEMORYLESS, Anchor, Published
from archdsl.search.tasks.base import IGNORED, LearningTask
from archdsl.search.workers.processes import mapped

if TYPE_CHECKING:
    from archdsl.search.tasks.base import Tokens

SEQUENCES = 512
"""Held-out sequences that are looked at, and sequences to train on."""

ERRORS = 4
"""Standard errors that a share may lie beside what is stated: one in 16,000 does by chance."""

LOOKS = 8
"""Times a model in training is judged."""

JUDGED = 256
"""Held-out sequences that a model is judged on."""


@dataclass(frozen=True)
class Check:
    """Something a task is checked for; with a model where ``anchor`` says which."""

    task: str
    what: str
    expected: str
    anchor: Anchor | None = None


@dataclass(frozen=True)
class Row:
    """What a check found.

    Args:
        check: what was looked at.
        found: in words.
        ok: whether it is as it should be.
        steps: optimiser steps that it took.
        seconds: that it took.
    """

    check: Check
    found: str
    ok: bool
    steps: int = 0
    seconds: float = 0.0

    def data(self) -> dict[str, Any]:
        """As JSON holds it."""
        about = {"task": self.check.task, "check": self.check.what}
        figures = {"expected": self.check.expected, "found": self.found, "ok": self.ok}
        return {**about, **figures, "steps": self.steps, "seconds": round(self.seconds, 2)}


def stated(wanted: Sequence[str] | None = None) -> dict[str, Published]:
    """What is published about each task, by its name; tasks that say nothing are left out.

    Args:
        wanted: names; ``None`` takes every task there is.

    Raises:
        ArchError: a name is no task's.
    """
    known = names("task")
    for name in wanted or ():
        if name not in known:
            raise unknown_component("task", name)
    found = {name: getattr(find("task", name), "published", None) for name in wanted or known}
    return {name: published for name, published in found.items() if published is not None}


def checks(known: Mapping[str, Published]) -> list[Check]:
    """Everything there is to check, task by task."""
    return [check for name, published in known.items() for check in _checks(name, published)]


def _checks(name: str, published: Published) -> Iterator[Check]:
    yield Check(name, "vocabulary", str(published.vocabulary))
    yield Check(name, "positions", str(published.positions))
    if published.scored is not None:
        yield Check(name, "scored positions", f"{published.scored:.2%}")
    yield Check(name, "held out", "unseen")
    for anchor in published.anchors:
        model = f"{anchor.mixer or 'no mixer'}, width {anchor.width}"
        sizes = f", on {anchor.sizes}" if anchor.sizes else ""
        yield Check(name, f"{model}{sizes}", _bound(name, anchor), anchor)


def _bound(name: str, anchor: Anchor) -> str:
    return f"{'≥' if _larger(name) == anchor.solves else '≤'} {anchor.bound:g}"


def _larger(name: str) -> bool:
    """Whether a larger value of the task's first measure is the better one."""
    return next(iter(_class(name).measures.values())) == "maximize"


def _class(name: str) -> type[LearningTask]:
    cls = find("task", name)
    assert cls is not None
    assert issubclass(cls, LearningTask)
    return cls


def rows(wanted: Sequence[Check], jobs: int = 1) -> Iterator[Row]:
    """What every check finds, in order.

    Args:
        wanted: of :func:`checks`.
        jobs: processes.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield from mapped(partial(row, folder=Path(folder)), wanted, jobs)


def row(check: Check, folder: Path) -> Row:
    """What one check finds.

    Args:
        check: which.
        folder: for the data of tasks that learn from a file.
    """
    start = time.perf_counter()
    found = trained(check, folder) if check.anchor else seen(check, folder)
    return replace(found, seconds=time.perf_counter() - start)


# --- sequences ------------------------------------------------------------------------------------


def seen(check: Check, folder: Path) -> Row:
    """A check of the generator at its published sizes."""
    cls = _class(check.task)
    task, published = _with_data(cls(), folder), cls.published
    assert published is not None
    tokens, targets = task.held_out(SEQUENCES, 0)
    if check.what == "vocabulary":
        largest = max(int(tokens.max()), int(targets.max()))
        fits = largest < task.symbols == published.vocabulary
        return Row(check, f"{task.symbols}, up to {largest}", fits)
    if check.what == "positions":
        lengths = {tokens.shape[1], task.positions, task.batch(2, 0, 0)[0].shape[1]}
        return Row(check, " and ".join(map(str, lengths)), lengths == {published.positions})
    if check.what == "held out":
        again = _shown_before(task, tokens)
        return Row(check, f"{again} of {len(tokens)} seen" if again else "unseen", not again)
    assert published.scored is not None
    return _scored(check, targets, published.scored)


def _with_data(task: LearningTask, folder: Path) -> LearningTask:
    own = Path(tempfile.mkdtemp(dir=folder))  # another process may be writing its own
    bound = task.bind(task.example(own), own)
    bound.prepare()
    return bound


def _shown_before(task: LearningTask, held_out: Tokens) -> int:
    """How many held-out sequences are among the first ones to train on."""
    batches = (task.batch(64, 0, step)[0] for step in range(SEQUENCES // 64))
    known = {bytes(sequence.tobytes()) for batch in batches for sequence in batch}
    return sum(sequence.tobytes() in known for sequence in held_out)


def _scored(check: Check, targets: Tokens, expected: float) -> Row:
    """The mean share of judged positions, against its standard error and a rounding of the last digit."""
    shares = (targets != IGNORED).mean(1)
    allowed = ERRORS * float(shares.std()) / sqrt(len(shares)) + 1e-9
    share = float(shares.mean())
    return Row(check, f"{share:.2%}", abs(share - expected) <= allowed)


# --- models ---------------------------------------------------------------------------------------


def trained(check: Check, folder: Path) -> Row:
    """A small model's training, from each of its starts until one is as it should be."""
    assert check.anchor is not None
    rows: list[Row] = []
    while len(rows) < check.anchor.starts and not (rows and rows[-1].ok):
        rows.append(_from_start(check, check.anchor, len(rows), folder))
    return rows[-1]


def _from_start(check: Check, anchor: Anchor, seed: int, folder: Path) -> Row:
    """Training until the bound is reached or the steps are over."""
    import archdsl
    from archdsl.search.workers.training import Trainer

    arch = archdsl.loads(text(check.task, anchor)).sample(0)
    task = _with_data(arch.tasks["learned"], folder)  # type: ignore[arg-type]
    model = task.around(arch.compile(device="cpu", seed=seed), seed)
    trainer = Trainer(model, task, arch.train, anchor.steps, seed)
    measure, sign = next(iter(task.measures)), 1 if _larger(check.task) else -1
    while True:
        until = trainer.step + -(-anchor.steps // LOOKS)
        for _ in trainer.run(min(anchor.steps, until)):
            pass
        value = trainer.evaluate()[measure]
        reached = sign * value >= sign * anchor.bound
        if trainer.step >= anchor.steps or reached:
            return Row(check, f"{value:.3f}", reached == anchor.solves, trainer.step)


def text(task: str, anchor: Anchor) -> str:
    """A reference model and its training as a spec."""
    mixers = [anchor.mixer] if anchor.mixer != MEMORYLESS else []
    parts = mixers + ["swiglu"] * anchor.channel
    block = "\n        ".join(f"residual {{ rms_norm {part} }}" for part in parts)
    return f"""
model {{
    embed(dim = {anchor.width}, position = {anchor.position})
    repeat(2) {{
        {block}
    }}
    rms_norm
    lm_head
}}
task learned = {task}{f"({anchor.sizes})" if anchor.sizes else ""}
train {{
    learning_rate = {anchor.learning_rate}
    batch = {anchor.batch}
    schedule = constant
    evaluate = {JUDGED}
}}
"""
