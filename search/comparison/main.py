"""``archdsl compare`` as a function: run what is missing of a contest, then say what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archdsl.blocks.registry import find
from archdsl.diagnostics import ArchError
from archdsl.search.comparison.contest import DATA_SET, DataSet, Entrant, Trial, Yardstick, run
from archdsl.search.comparison.standing import Row, Ticket, lottery, rows
from archdsl.search.errors import unknown_component, user_error
from archdsl.search.metrics.base import TrainingFree
from archdsl.search.samplers.base import OptunaSampler
from archdsl.search.space.objectives import nothing_to_learn
from archdsl.search.space.protocols import Space
from archdsl.search.space.sites import counted
from archdsl.search.workers.processes import mapped, single_thread

BASELINE = "random"

VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "tpe": ({"startup": 5}, {"startup": 20}, {"candidates": 8}, {"candidates": 96}),
    "gp": ({"startup": 5}, {"startup": 20}, {"candidates": 24}, {"candidates": 256}),
    "nsga2": ({"population": 5}, {"population": 20}, {"population": 30}),
    "nsga3": ({"population": 5}, {"population": 20}, {"population": 30}),
    "evolution": (
        {"population": 10}, {"population": 40}, {"tournament": 2}, {"tournament": 10},
        {"crossover": 0}, {"crossover": 1},
    ),
    "tree_search": ({"exploration": 0.1}, {"exploration": 1}),
    "reinforce": ({"learning_rate": 0.1}, {"learning_rate": 0.2}, {"learning_rate": 1}),
}  # fmt: skip
"""Settings a careful user might as well have chosen: the tickets of the lottery."""


@dataclass(frozen=True)
class Contest:
    """What a comparison showed.

    Args:
        name: of the spec.
        score: the metric's spelling.
        size: architectures in the space, if they can be counted.
        trials: of each run.
        seeds: of each sampler.
        tickets_seeds: of each setting in the lottery.
        rows: a sampler each, the best first.
        tickets: a setting each.
        folder: where the data set and the report are.
        distinct: architectures that were measured.
    """

    name: str
    score: str
    size: int | None
    trials: int
    seeds: int
    tickets_seeds: int
    rows: tuple[Row, ...]
    tickets: tuple[Ticket, ...]
    folder: Path
    distinct: int


Watch = Callable[[int, int, Entrant], None]


def compare(
    spec: Path, samplers: Sequence[str], seeds: int, trials: int, score: str | None = None,
    tickets: int = 0, out: Path | None = None, jobs: int = 1, watch: Watch | None = None,
) -> Contest:  # fmt: skip
    """Run samplers side by side and write ``trials.jsonl`` and ``compare.html``.

    Args:
        spec: the file.
        samplers: their names; ``random`` takes part in any case.
        seeds: runs of each.
        trials: candidates of each run.
        score: the training-free metric that is made large; the spec's ``rank`` by default.
        tickets: seeds of every other setting of each sampler; 0 leaves the lottery out.
        out: folder; ``runs/compare-NAME`` by default. Runs that are in it already are not made again.
        jobs: processes.
        watch: hears of each run that has ended: how many, of how many, and whose.

    Raises:
        ArchError: the spec, a sampler or a score cannot be used, or the folder holds another contest.
    """
    import archdsl

    space = archdsl.load(spec)
    if not space.sample(0).tasks:
        raise nothing_to_learn()
    metric = metric_of(space, score)
    entrants = entrants_of(samplers, tickets > 0)
    folder = out or Path("runs") / f"compare-{spec.stem}"
    data = DataSet(folder / DATA_SET, _about(space, spec.stem, metric))
    if not data.fits:
        raise _another(data.path)
    plan = [
        (entrant, seed)
        for entrant in entrants
        for seed in range(tickets if entrant.variant else seeds)
    ]
    _run_missing(space, plan, trials, metric, data, jobs, watch)
    return _shown(spec.stem, space, entrants, seeds, trials, tickets, metric, data, folder)


def entrants_of(samplers: Sequence[str], variants: bool) -> list[Entrant]:
    """The samplers by name, with their other settings if they take part.

    Raises:
        ArchError: a name is no sampler's.
    """
    found = []
    for name in dict.fromkeys([BASELINE, *samplers]):
        cls = find("sampler", name)
        if cls is None or not issubclass(cls, OptunaSampler):
            raise unknown_component("sampler", name)
        found.append(Entrant(name, cls()))
        for given in VARIANTS.get(name, ()) if variants else ():
            label = ", ".join(f"{key} = {value}" for key, value in given.items())
            found.append(Entrant(f"{name}({label})", cls(**given), variant=True))
    return found


def metric_of(space: Space, score: str | None) -> TrainingFree:
    """The score that is made large.

    Raises:
        ArchError: there is no such metric, or none is named.
    """
    if score is None:
        if not isinstance(space.search.rank, TrainingFree):
            raise _no_score()
        return space.search.rank
    cls = find("metric", score)
    if cls is None or not issubclass(cls, TrainingFree):
        raise unknown_component("metric", score)
    return cls()


def _about(space: Space, name: str, metric: TrainingFree) -> dict[str, Any]:
    return {
        "format": "archdsl compare 1",
        "spec": name,
        "space": space.text_hash,
        "architectures": counted(space),
        "score": metric.label,
    }


def _run_missing(
    space: Any, plan: Sequence[tuple[Entrant, int]], trials: int, metric: TrainingFree,
    data: DataSet, jobs: int, watch: Watch | None,
) -> None:  # fmt: skip
    done = data.runs()
    size = counted(space)
    enough = min(trials, size) if size is not None else trials
    left = [(e, seed) for e, seed in plan if not _has(done.get((e.label, seed), ()), enough)]
    tasks = [(space, entrant, seed, trials, metric) for entrant, seed in left]
    for number, found in enumerate(_results(tasks, data.values(), jobs), start=1):
        known = {trial.number for trial in done.get((found[0].sampler, found[0].seed), ())}
        data.add([trial for trial in found if trial.number not in known])
        if watch is not None:
            watch(number, len(left), left[number - 1][0])


def _has(found: Sequence[Trial], trials: int) -> bool:
    """Whether a run has its first ``trials`` trials, each of them."""
    return {trial.number for trial in found}.issuperset(range(trials))


_judge: Yardstick | None = None


def _results(
    tasks: Sequence[tuple[Any, ...]], known: dict[str, float], jobs: int
) -> Iterator[list[Trial]]:
    return mapped(_one, tasks, jobs, _begin, (known,))


def _begin(known: dict[str, float]) -> None:
    """What each process does first: every process keeps what it has measured."""
    global _judge
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    single_thread()
    _judge = Yardstick(TrainingFree(), dict(known))


def _one(task: tuple[Space, Entrant, int, int, TrainingFree]) -> list[Trial]:
    space, entrant, seed, trials, metric = task
    assert _judge is not None
    _judge.metric = metric
    return list(run(space, entrant, seed, trials, _judge))


def _shown(
    name: str, space: Space, entrants: Sequence[Entrant], seeds: int, trials: int, tickets: int,
    metric: TrainingFree, data: DataSet, folder: Path,
) -> Contest:  # fmt: skip
    from archdsl.search.comparison.page import write_page

    runs = {key: found[:trials] for key, found in data.runs().items()}
    contest = Contest(
        name, metric.label, counted(space), trials, seeds, tickets,
        tuple(rows(runs, entrants, range(seeds), BASELINE)),
        tuple(lottery(runs, entrants, range(min(tickets, seeds)))) if tickets else (),
        folder, len(data.values()),
    )  # fmt: skip
    write_page(contest)
    return contest


def _no_score() -> ArchError:
    return user_error(
        "no-score",
        "the spec has no `rank`, and nothing else says which metric to compare by",
        "name one with `--score`, as in `--score archdsl_rank`",
    )


def _another(path: Path) -> ArchError:
    return user_error(
        "another-contest",
        f"`{path}` holds the trials of another space or score",
        "name another folder with `--out`, or move that file away",
    )
