"""Candidates scored a minute, and where the time goes: ``python -m tests.studies.throughput``.

The search itself runs, with all of its storing and deciding, but nobody is trained: every candidate is cut
when it has been scored. Each of two processes has one core. The processors' time, which other programs on the
machine do not change much, is split into what the search process does (propose, constrain, store, messages,
the rest) and what its worker does (open: the architecture made of the space; build: the model; passes: the
forward and backward passes that all metrics share; metrics: their own arithmetic).

Then, in one process: what looking at a model with all of the default metrics costs, over one forward and
backward pass on the same sequences, for candidates of the spec and for recurrent cells; and beside it the
same with ``synflow``, which takes a pass of its own. On eight tokens a pass is so short that what the metrics
compute of a few small matrices shows: that is printed, and not asked to be within the bound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.studies.kill import ROOT

SPEC = ROOT / "specs" / "hybrid.arch"

SHARE = 0.85
"""Of the time that the forward and backward passes should take."""

RATIO = 1.3
"""What all default metrics may cost, in forward and backward passes."""

LOOKED_AT = 8
"""Candidates of a space of which that is measured, at least where there are so many."""

CELL = """
model {
    embed(dim = 32, vocab = 1000)
    stack(depth = 3) {
        cell(state = [h], output = h) {
            r = sigmoid(linear(x, h))
            z = sigmoid(linear(x, h))
            c = tanh(linear(x, r * h))
            h = z * h + (1 - z) * c
        }
    }
    lm_head(tied = true, bias = true)
}
task words = memorization(vocab = 1000, length = LENGTH)
"""
"""A language model of recurrent cells, as NAS-Bench-NLP has them."""


class Clock:
    """Time by what it is spent on; what is done inside something else counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside: list[str] = []
        self._since = time.process_time()

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count time for ``what`` meanwhile."""
        self._turn()
        self._inside.append(what)
        try:
            yield
        finally:
            self._turn()
            self._inside.pop()

    def wrap(self, owner: Any, name: str, what: str) -> None:
        """Count every call of a method."""
        real: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **given: Any) -> Any:
            with self.on(what):
                return real(*args, **given)

        setattr(owner, name, timed)

    def _turn(self) -> None:
        now = time.process_time()
        if self._inside:
            self.seconds[self._inside[-1]] += now - self._since
        self._since = now


def scored(folder: Path, rounds: int, warm: int, sampler: str | None) -> dict[str, Any]:
    """Score candidates in this process and its worker: how many, in how many seconds, and the split.

    Args:
        folder: of the runs; processes that share it share their studies.
        rounds: studies, each of as many candidates as the spec's.
        warm: the first candidates of this process, which are not counted: a process is slow at first.
        sampler: instead of the spec's.
    """
    import archdsl
    from archdsl.blocks.registry import find
    from archdsl.search import main
    from archdsl.search.main import Request
    from archdsl.search.storage.store import Store
    from archdsl.search.study import study as module
    from archdsl.search.study.proposals import Proposer

    space, clock = archdsl.load(SPEC), Clock()
    for name in ("decide", "feasible", "sample"):
        clock.wrap(space, name, "constrain")
    clock.wrap(Proposer, "propose", "propose")
    for name in ("records", "create", "note", "finish", "take_over", "elsewhere"):
        clock.wrap(Store, name, "store")
    clock.wrap(module, "write_text", "store")
    found = Tally(clock, warm)
    with ExitStack() as things:
        worker = _lasting()(folder / "worker.log", threads=1, space=space.to_json())
        things.callback(worker.stop)
        main.Worker = lambda *_: worker  # type: ignore[assignment, misc]
        found.listen(worker)
        for number in range(rounds):
            given = Request(out=folder / str(number), seed=number)
            made = main.opened(space, "throughput", SPEC.parent, given, things)
            if sampler is not None:
                made.proposer.sampler = find("sampler", sampler)()
            made._worth_training = lambda record, records: "cut"  # type: ignore[method-assign]
            with clock.on("rest"):
                made.run()
    return found.figures()


def _lasting() -> Any:
    """A worker that goes on from one study to the next, as it does from one candidate to the next."""
    from archdsl.search.workers.worker import Worker

    class Lasting(Worker):
        def start(self) -> None:
            if self._process is None:
                super().start()

    return Lasting


class Tally:
    """Counts candidates, and adds up what the worker says.

    Args:
        clock: of the search process.
        warm: the first candidates, which are not counted.
    """

    def __init__(self, clock: Clock, warm: int) -> None:
        self.clock, self.warm, self.count, self.began = clock, warm, 0, 0.0
        self.split: Counter[str] = Counter()

    def listen(self, worker: Any) -> None:
        """Hear every answer of a worker."""
        real = worker.request

        def request(*args: Any) -> Any:
            with self.clock.on("messages"):
                answer = real(*args)
            self.count += 1
            if self.count == self.warm:
                self.clock.seconds.clear()
                self.began = time.perf_counter()
            elif self.count > self.warm:
                self.split.update(answer["split"])
            return answer

        worker.request = request

    def figures(self) -> dict[str, Any]:
        """What came of it."""
        split = Counter(self.clock.seconds)
        seconds = time.perf_counter() - self.began
        return {
            "candidates": self.count - self.warm, "seconds": seconds,
            "split": {**split, **self.split},
        }  # fmt: skip


def ratios(space: Any, sequences: int | None, *names: str) -> list[float]:
    """What a look with the default metrics costs over one pass, for a few feasible candidates.

    Args:
        space: of the candidates.
        sequences: of a look; ``None`` for as many as a search takes.
        names: of further metrics.
    """
    from archdsl.blocks.registry import find
    from archdsl.search.metrics import chosen

    metrics: Any = [*chosen(None), *(find("metric", name)() for name in names)]  # type: ignore[misc]
    archs = [arch for arch in space.enumerate() if arch.feasible]
    return [ratio(arch, metrics, sequences) for arch in archs[:: max(1, len(archs) // LOOKED_AT)]]


def ratio(arch: Any, metrics: list[Any], sequences: int | None, repeats: int = 7) -> float:
    """The least time of a look over the least time of a pass, in turns."""
    import torch

    from archdsl.search.metrics.evidence import gather
    from archdsl.search.metrics.look import look

    model, task = arch.compile().eval(), next(iter(arch.tasks.values()))
    needs = frozenset().union(*(metric.needs for metric in metrics))
    tokens, targets = look(task, 0, torch.device("cpu"), sequences)

    def one() -> None:
        model.loss(tokens, targets).backward()
        model.zero_grad(set_to_none=True)

    def whole() -> None:
        evidence = gather(model, arch, task, needs, sequences=sequences)
        for metric in metrics:
            metric.score(evidence)

    turns = [(seconds(one), seconds(whole)) for _ in range(repeats)]
    return min(look for _, look in turns) / min(single for single, _ in turns)


def seconds(action: Callable[[], None]) -> float:
    """The processor's time of one call."""
    start = time.process_time()
    action()
    return time.process_time() - start


def cost_shown() -> bool:
    """Print what the default metrics cost; whether it is within the bound."""
    import torch

    import archdsl

    torch.set_num_threads(1)
    within = True
    cells = {length: archdsl.loads(CELL.replace("LENGTH", str(length))) for length in (64, 8)}
    cases = (
        ("hybrid.arch", archdsl.load(SPEC), None, True),
        ("a cell, 64 tokens", cells[64], None, True),
        ("a cell, 8 tokens as in the validation", cells[8], 64, False),
    )
    for name, space, sequences, bound in cases:
        default, more = (ratios(space, sequences, *names) for names in ((), ("synflow",)))
        mean = sum(default) / len(default)
        asked = f", of which {RATIO} are asked" if bound else ""
        print(
            f"default metrics on {name}: {mean:.2f} forward and backward passes (up to"
            f" {max(default):.2f}){asked}; with synflow {sum(more) / len(more):.2f}"
        )
        within &= mean <= RATIO or not bound
    return within


def measured(rounds: int, processes: int, warm: int, sampler: str | None) -> list[dict[str, Any]]:
    """The same by several processes on one study."""
    with tempfile.TemporaryDirectory() as folder:
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.studies.throughput", "--inside", folder,
                 "--rounds", str(rounds), "--warm", str(warm),
                 *(["--sampler", sampler] if sampler else [])],
                stdout=subprocess.PIPE, text=True, cwd=ROOT,
            )
            for _ in range(processes)
        ]  # fmt: skip
        return [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]


def shown(found: list[dict[str, Any]]) -> bool:
    """Print the figures; whether the passes take their share."""
    rate = sum(60 * each["candidates"] / each["seconds"] for each in found)
    many = sum(each["candidates"] for each in found)
    split: Counter[str] = Counter()
    for each in found:
        split.update(each["split"])
    whole = sum(split.values())
    print(f"{rate:.0f} candidates a minute by {len(found)} processes ({many} candidates)")
    for what, seconds in split.most_common():
        print(f"  {what:<10} {1e3 * seconds / many:8.2f} ms  {seconds / whole:6.1%}")
    share = split["passes"] / whole
    print(f"forward and backward passes: {share:.1%} of the time, of which {SHARE:.0%} is asked")
    return share >= SHARE


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--warm", type=int, default=8)
    parser.add_argument("--sampler", help="instead of the spec's")
    parser.add_argument("--inside", type=Path)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(scored(options.inside, options.rounds, options.warm, options.sampler)))
        return
    found = measured(options.rounds, options.processes, options.warm, options.sampler)
    kept = [shown(found), cost_shown()]
    sys.exit(0 if all(kept) else "a bound is not kept")


if __name__ == "__main__":
    main()
