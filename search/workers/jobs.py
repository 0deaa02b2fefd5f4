"""The worker's side: score and train candidates in a process of its own.

Requests and answers are JSON, one a line, on standard input and output. Only this process imports
torch, and nothing that happens to it (out of memory, a crash, a hang) touches the search.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from archdsl.search.metrics.base import TrainingFree
from archdsl.search.metrics.evidence import gather
from archdsl.search.seeds import seed_of
from archdsl.search.tasks.base import LearningTask
from archdsl.search.workers.components import read
from archdsl.search.workers.crew import Crew
from archdsl.search.workers.latency import seconds_of
from archdsl.search.workers.memory import limit_memory
from archdsl.search.workers.parent import follow_parent
from archdsl.search.workers.training import Diverged, Trainer

if TYPE_CHECKING:
    from archdsl.search.space.protocols import Arch

Send = Callable[[Mapping[str, Any]], None]

BETWEEN_MESSAGES = 0.2
BETWEEN_CHECKPOINTS = 30.0
"""Seconds of training between two messages, and between two checkpoints inside a rung."""


def load_closed(text: str) -> Arch:
    """The architecture of a closed ``.arch`` text."""
    import archdsl

    arch: Arch = archdsl.loads(text).sample(0)
    return arch


class Candidate:
    """An architecture under test, with one model for each of its tasks once it is trained.

    Args:
        arch: the architecture.
        seed: of its weights and batches.
        device: where it is trained.
        data: the user's data, if any.
        folder: where relative paths start.
        crew: says with how many threads it is trained; by default the process's, or fewer.
    """

    def __init__(
        self, arch: Arch, seed: int, device: str, data: Path | None, folder: Path,
        crew: Crew | None = None,
    ) -> None:  # fmt: skip
        self.arch, self.seed, self.device = arch, seed, device
        self.crew = crew or Crew(torch.get_num_threads())
        self.tasks = {name: _bound(task, data, folder) for name, task in arch.tasks.items()}
        self.trainers: dict[str, Trainer] = {}
        self.split: dict[str, float] = {}

    def score(self, metrics: list[TrainingFree]) -> dict[str, float]:
        """All metrics from one look at the untrained model; :attr:`split` keeps the processor's seconds."""
        needs = frozenset().union(*(metric.needs for metric in metrics))
        name, task = next(iter(self.tasks.items()))
        torch.manual_seed(self.seed)
        moments = [time.process_time()]
        model = self._model(name)
        moments.append(time.process_time())
        evidence = gather(model, self.arch, task, needs)
        moments.append(time.process_time())
        scores = {metric.label: metric.score(evidence) for metric in metrics}
        moments.append(time.process_time())
        spent = (after - before for before, after in pairwise(moments))
        self.split = dict(zip(("build", "passes", "metrics"), spent, strict=True))
        return scores

    def latency(self, asked: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
        """Seconds of each call that is asked for, with the untrained model."""
        model = self._model(next(iter(self.tasks)))
        return {text: seconds_of(model, **settings) for text, settings in asked.items()}

    def train(self, rungs: list[int], rung: int, checkpoint: Path, tell: Send) -> dict[str, Any]:
        """Train every task up to a rung and judge it there."""
        self._reach(rungs, rung, checkpoint, tell)
        measured = {name: trainer.evaluate() for name, trainer in self.trainers.items()}
        return {
            "measures": {
                f"{n}.{key}": v for n, found in measured.items() for key, v in found.items()
            },
            "curves": {name: trainer.curve for name, trainer in self.trainers.items()},
        }

    def keep(self, rungs: list[int], checkpoint: Path, weights: Path, tell: Send) -> dict[str, Any]:
        """Write the trained models, and what they have to say."""
        self._reach(rungs, len(rungs) - 1, checkpoint, tell)
        samples = [trainer.sample() for trainer in self.trainers.values()]
        for number, (name, trainer) in enumerate(self.trainers.items()):
            trainer.model.save(str(_beside(weights, name) if number else weights))
        return {"sample": "\n\n".join(sample for sample in samples if sample) or None}

    def _reach(self, rungs: list[int], rung: int, checkpoint: Path, tell: Send) -> None:
        for name in self.tasks:
            self._run(name, rungs, rung, _beside(checkpoint, name), tell)

    def _run(self, name: str, rungs: list[int], rung: int, checkpoint: Path, tell: Send) -> None:
        trainer = self.trainers.get(name) or self._trainer(name, rungs[-1], checkpoint)
        self.trainers[name] = trainer
        told = saved = time.monotonic()
        if trainer.step >= rungs[rung]:
            return
        self.crew.begin()
        for progress in trainer.run(rungs[rung]):
            _compute_with(self.crew.looked())
            now = time.monotonic()
            if now - told > BETWEEN_MESSAGES:
                tell(
                    {"kind": "progress", "task": name, "step": progress.step, "loss": progress.loss}
                )
                told = now
            if now - saved > BETWEEN_CHECKPOINTS:
                trainer.save(checkpoint)
                saved = now
        trainer.save(checkpoint)

    def _trainer(self, name: str, steps: int, checkpoint: Path) -> Trainer:
        seed = seed_of(self.seed, "train", name)
        task = self.tasks[name]
        model = task.around(self._model(name), seed)
        trainer = Trainer(model, task, self.arch.train, steps, seed)
        if checkpoint.exists():
            trainer.load(checkpoint)
        return trainer

    def _model(self, name: str) -> Any:
        return self.arch.compile(device=self.device, seed=seed_of(self.seed, "weights", name))


class Jobs:
    """Carries requests out, one at a time; keeps the candidate between its rungs.

    Args:
        opened: makes the architecture of a request.
        tell: sends a message.
    """

    def __init__(self, opened: Callable[[Mapping[str, Any]], Arch], tell: Send) -> None:
        self.opened, self.tell = opened, tell
        self._crew = Crew(torch.get_num_threads())
        self._key: Any = None
        self._candidate: Candidate | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What a request gives, or the failure it is recorded as."""
        start = time.monotonic()
        try:
            result = self._do(request)
        except Diverged as error:
            return _failure("diverged", str(error))
        except Exception as error:
            self._key = self._candidate = None
            return _explained(error, str(Path(request["checkpoint"]).parent))
        return {"kind": "result", "seconds": time.monotonic() - start, **result}

    def _do(self, request: Mapping[str, Any]) -> dict[str, Any]:
        start = time.process_time()
        candidate = self._opened(request)
        if request["do"] == "score":
            split = {"open": time.process_time() - start}
            scores = candidate.score([_metric(m) for m in request["metrics"]])
            return {"scores": scores, "split": split | candidate.split}
        if request["do"] == "latency":
            return {"latencies": candidate.latency(request["asked"])}
        rungs, place = request["rungs"], Path(request["checkpoint"])
        if request["do"] == "train":
            return candidate.train(rungs, request["rung"], place, self.tell)
        return candidate.keep(rungs, place, Path(request["weights"]), self.tell)

    def _opened(self, request: Mapping[str, Any]) -> Candidate:
        key = (request["trial"], request["arch"], request["seed"])
        if self._candidate is None or key != self._key:
            self._candidate = None
            gc.collect()
            gc.freeze()  # what is left stays: the next collection need not look at it
            data = request["data"]
            self._candidate = Candidate(
                self.opened(request),
                request["seed"],
                request["device"] or best_device(),
                Path(data) if data else None,
                Path(request["folder"]),
                self._crew,
            )
            self._key = key
        return self._candidate


def best_device() -> str:
    """The GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _compute_with(threads: int) -> None:
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def usable(device: str | None) -> bool:
    """Whether PyTorch can compute there."""
    try:
        return torch.zeros(1, device=device).item() == 0
    except (RuntimeError, AssertionError, NotImplementedError):
        return False


def _bound(task: Any, data: Path | None, folder: Path) -> LearningTask:
    if not isinstance(task, LearningTask):
        raise TypeError(f"the task `{task.name}` cannot be trained: {type(task).__name__}")
    return task.bind(data, folder)


def _metric(given: Mapping[str, Any]) -> TrainingFree:
    metric = read("metric", given)
    if not isinstance(metric, TrainingFree):
        raise TypeError(f"`{given['name']}` is not a training-free metric")
    return metric


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}-{name}{path.suffix}")


def _failure(reason: str, message: str) -> dict[str, Any]:
    return {"kind": "failure", "reason": reason, "message": message}


def _explained(error: Exception, path: str) -> dict[str, Any]:
    """An exception as a failure of the candidate, unless it is one of the machine."""
    if (code := _full_disk(error)) is not None:
        return {"kind": "disk", "errno": code, "path": path}
    said = (str(error).strip().splitlines() or [""])[0][:300]
    if _out_of_memory(error):
        return _failure("out-of-memory", said or "there was no memory left")
    traceback.print_exc(file=sys.stderr)
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    return _failure("error", f"{type(error).__name__}: {said} ({place})")


def _full_disk(error: Exception) -> int | None:
    """The system's number for a disk that takes no more; safetensors only says it in words."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return error.errno
    words = str(error).lower()
    full = "no space left on device" in words or "storagefull" in words
    return errno.ENOSPC if full else None


def _out_of_memory(error: Exception) -> bool:
    words = ("out of memory", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def opener(loader: str, space: str | None) -> Callable[[Mapping[str, Any]], Arch]:
    """How a request's architecture is made: of the space where there is one, else of its closed text.

    Args:
        loader: ``module:function`` that makes an architecture of a closed text.
        space: the space as JSON, which is read once; so no candidate has to be parsed.
    """
    if space is None:
        load = _resolve(loader)
        return lambda request: load(request["arch"])
    from archdsl.compiler.spaces.space import Space

    known = Space.from_json(space)
    return lambda request: known.arch(request["assignment"])


def _resolve(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def _private_output() -> IO[str]:
    """Standard output for messages alone: what anything else prints goes to standard error."""
    messages = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return messages


def main() -> None:
    """Serve requests until standard input ends. Its first line are the options, as JSON."""
    options = json.loads(sys.stdin.readline())
    messages = _private_output()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_parent()
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    limit_memory(options["memory"])

    def tell(message: Mapping[str, Any]) -> None:
        messages.write(json.dumps(message) + "\n")

    jobs = Jobs(opener(options["loader"], options["space"]), tell)
    about = {"torch": torch.__version__, "device": best_device()}
    tell({"kind": "ready", "usable": usable(options["device"]), **about})
    for line in sys.stdin:
        tell(jobs.answer(json.loads(line)))
