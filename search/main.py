"""From a spec to an answer: the one verb behind ``archdsl search``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from archdsl.diagnostics import ArchError
from archdsl.search.errors import user_error
from archdsl.search.helpers import Helpers
from archdsl.search.metrics.base import TrainingFree
from archdsl.search.reports.outputs import Result, write_outputs
from archdsl.search.samplers.base import OptunaSampler
from archdsl.search.samplers.tpe import TPE
from archdsl.search.seeds import seed_of
from archdsl.search.space.objectives import Objective, objectives_of
from archdsl.search.space.protocols import Arch, Site, Space
from archdsl.search.space.sites import counted, every, fitting
from archdsl.search.storage.databases import answering
from archdsl.search.storage.guards import LEASE
from archdsl.search.storage.records import Record
from archdsl.search.storage.store import open_store
from archdsl.search.study.fronts import pareto_front
from archdsl.search.study.pace import Course
from archdsl.search.study.placing import enqueued
from archdsl.search.study.progress import Lines, Silent, Terminal
from archdsl.search.study.study import Settings, Status, Study
from archdsl.search.tasks.base import LearningTask
from archdsl.search.workers.memory import SHARE, free_memory
from archdsl.search.workers.worker import LOADER, Worker

LOOKED_AT = 200
SECONDS = 2.0
"""Architectures looked at, and for how long, to say how many the constraints reject."""


@dataclass(frozen=True)
class Request:
    """What the user asked for, beside the spec; see :func:`archdsl.search.run`.

    ``helper`` is the command that starts one more process of this search, for ``jobs`` above 1.
    """

    out: Path | None = None
    data: Path | None = None
    trials: int | None = None
    storage: str | None = None
    seed: int | None = None
    study: str | None = None
    quiet: bool = False
    device: str | None = None
    loader: str = LOADER
    jobs: int = 1
    lease: float = LEASE
    helper: Sequence[str] = ()
    enqueue: Sequence[Path] = ()


def search(space: Space, name: str, folder: Path, request: Request) -> Result:
    """Search a space; see :func:`archdsl.search.run`.

    Args:
        space: the candidates.
        name: of the spec, for the run's folder and the study.
        folder: where relative paths of the spec start.
        request: what else was asked for.
    """
    console = Console(stderr=False, quiet=request.quiet, highlight=False)
    with ExitStack() as open_things, answering():
        study = opened(space, name, folder, request, open_things)
        helpers = Helpers(request.helper, request.jobs - 1, study.folder / "helpers.log")
        open_things.callback(helpers.stop)
        helpers.start()
        console.print(
            *greeting(space, study.store.name, study.settings, study.records()),
            *_edited(study),
            sep="\n", emoji=False,
        )  # fmt: skip
        status = _searched(study, console, request)
        study.worker.stop()
        return _answered(study, status, console)


def help_out(space: Space, name: str, folder: Path, request: Request) -> Status:
    """Work on the study of another process, and leave its answer to that; see :func:`search`."""
    with ExitStack() as open_things, answering():
        return opened(space, name, folder, request, open_things).run()


def opened(
    space: Space, name: str, folder: Path, request: Request, open_things: ExitStack
) -> Study:
    """The study of a request, found or founded, with a worker that is starting.

    Raises:
        ArchError: the spec, the data or the study does not allow it.
    """
    name = request.study or name
    out = request.out or Path("runs") / name
    first = space.sample(0)
    objectives = objectives_of(space.objectives, first)
    settings = settings_of(space, request, folder)
    if len(objectives) > 1 and not settings.sampler.several:
        raise _one_objective(settings.sampler.name, len(objectives))
    data = prepared(first, settings)
    store = open_store(request.storage, name, out, request.lease)
    open_things.callback(store.close)
    out.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // request.jobs) if request.jobs > 1 else None
    share = free_memory() if request.jobs > 1 else None
    memory = int(share * SHARE / request.jobs) if share else None
    text = space.to_json() if request.loader == LOADER else None
    log = out / "worker.log"
    worker = Worker(log, request.loader, threads, memory, text, settings.device)
    open_things.callback(worker.stop)
    worker.start()
    store.attach([o.direction for o in objectives], _signature(space, settings, objectives, data))
    queue = enqueued(space, request.enqueue)
    return Study(space, settings, objectives, store, worker, out, Silent(), data, queue)


def settings_of(space: Space, request: Request, folder: Path) -> Settings:
    """The ``search`` section, with what the user gave beside it.

    Raises:
        ArchError: a component of the section is not one the search can use.
    """
    section = space.search
    sampler, rank = section.sampler or TPE(), section.rank
    if not isinstance(sampler, OptunaSampler):
        raise _unusable("sampler", sampler.name)
    if rank is not None and not isinstance(rank, TrainingFree):
        raise _unusable("metric", rank.name)
    return Settings(
        trials=request.trials or section.trials,
        seed=section.seed if request.seed is None else request.seed,
        sampler=sampler,
        rank=rank,
        promote=Fraction(section.promote),
        rungs=tuple(sorted(set(section.rungs))),
        timeout=float(section.trial_timeout),
        device=request.device,
        data=request.data.absolute() if request.data else None,
        folder=folder.absolute(),
    )


def prepared(arch: Arch, settings: Settings) -> dict[str, str]:
    """Check the tasks' data before anything is started, and identify it.

    Raises:
        ArchError: a task cannot be trained, or its data cannot be used.
    """
    found: dict[str, str] = {}
    for name, task in arch.tasks.items():
        if not isinstance(task, LearningTask):
            raise _unusable("task", task.name)
        bound = task.bind(settings.data, settings.folder)
        bound.prepare()
        found[name] = bound.fingerprint()
    if settings.data is not None and not any(found.values()):
        raise _unused(settings.data)
    return found


def greeting(space: Space, name: str, settings: Settings, records: Sequence[Record]) -> list[str]:
    """What the user sees at once: how large the space is and how much of it may be built."""
    size = counted(space)
    many = "too many architectures to count" if size is None else f"{size:,} architectures"
    lines = [f"[bold]{escape(name)}[/]: {many if size != 1 else '1 architecture'}"]
    rejected = rejections(space, size)
    if rejected:
        lines[0] += f", of which the constraints reject {rejected}"
    done = sum(record.finished for record in records)
    if records:
        of = f" of {settings.trials}" if done <= settings.trials else ""
        lines.append(f"continuing: {done}{of} trials are done")
    return lines


def _edited(study: Study) -> list[str]:
    """What an edit of the spec means for the trials there are."""
    outside = len(study.outside())
    if not outside:
        return []
    return [
        f"{outside} trials of earlier editions of the spec do not lie in it: kept, and not used"
    ]


def rejections(space: Space, size: int | None) -> str:
    """How many architectures break a constraint, or about which share; empty where none is seen to."""
    start = time.monotonic()
    few = size is not None and size <= LOOKED_AT
    draws = (fitting(space, random_choices(seed)) for seed in range(LOOKED_AT))
    broken = looked = 0
    for arch in every(space) if few else draws:
        if time.monotonic() - start > SECONDS:
            break
        broken += arch is None or not space.feasible(arch)
        looked += 1
    if not broken:
        return ""
    return f"{broken}" if looked == size else f"about {broken / looked:.0%}"


def random_choices(seed: int) -> Callable[[Site], int]:
    """A chooser that draws every choice uniformly."""
    draws = count()
    return lambda site: seed_of(seed, next(draws)) % site.size


def _searched(study: Study, console: Console, request: Request) -> Status:
    """Run the study under a display; Ctrl-C ends it early and tidily."""
    records = study.records()
    shows = Terminal if console.is_terminal else Lines
    display: Silent | Terminal | Lines = (
        Silent() if request.quiet else shows(console, study.objectives, _course(study), records)
    )
    study.display = display
    try:
        with display:
            status = study.run()
            study.restore()
            return status
    except KeyboardInterrupt:
        return "interrupted"


def _course(study: Study) -> Course:
    """The stages of the study's trials, of which there are no more than architectures."""
    settings, size = study.settings, counted(study.space)
    trials = settings.trials if size is None else min(settings.trials, size)
    return Course(trials, settings.rungs, settings.promote if settings.rank else None)


def _answered(study: Study, status: Status, console: Console) -> Result:
    records = study.records()
    result = Result(
        status=status,
        name=study.store.name,
        folder=study.folder,
        records=tuple(records),
        front=tuple(pareto_front(records, study.objectives)),
        objectives=tuple(study.objectives),
        settings=study.settings,
        count=counted(study.space),
    )
    write_outputs(result)
    literal = partial(console.print, soft_wrap=True, markup=False, emoji=False)
    literal(result.title)
    if result.front:
        console.print(result.table(console.width))
    literal(result.farewell())
    return result


def _signature(
    space: Space, settings: Settings, objectives: Sequence[Objective], data: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "format": 1,
        "text_hash": space.text_hash,
        "seed": settings.seed,
        "data": dict(data),
        "objectives": [f"{o.direction} {o.text}" for o in objectives],
    }


def _one_objective(name: str, count: int) -> ArchError:
    return user_error(
        "one-objective",
        f"the sampler `{name}` takes one objective, and the spec has {count}",
        "keep one of them, or take a sampler for several: `sampler = nsga2`",
    )


def _unused(data: Path) -> ArchError:
    return user_error(
        "unused-data",
        f"no task of the spec learns from a file, and `{data.name}` was given",
        "leave `--data` out, or name a task that takes a file: `task corpus = text`",
    )


def _unusable(kind: str, name: str) -> ArchError:
    return user_error(
        "unusable-component",
        f"the {kind} `{name}` cannot be used by the search",
        f"its package must derive it from the {kind} base class in `archdsl.search`",
    )
