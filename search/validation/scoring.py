"""Scores of published architectures: each text is read, compiled and looked at as in any search."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from archdsl.blocks.registry import find
from archdsl.search.metrics.base import Need, TrainingFree
from archdsl.search.seeds import seed_of
from archdsl.search.validation.probe import Probe
from archdsl.search.workers.components import read, written

if TYPE_CHECKING:
    from archdsl.search.space.protocols import Arch
    from archdsl.search.validation.base import Benchmark, Entry

ARGUMENTS: tuple[tuple[str, dict[str, object]], ...] = (
    ("archdsl_rank", {}),
    ("hidden_covariance", {}),
    ("hidden_covariance", {"layer": "last"}),
    ("hidden_covariance", {"layer": "mean"}),
    ("jacobian_covariance", {}),
    ("jacobian_cosine", {}),
    ("noised_jacobian", {}),
    ("noised_jacobian", {"noise": "large"}),
    ("synaptic_saliency", {}),
    ("synaptic_saliency", {"signed": True}),
    ("hidden_saliency", {}),
    ("synaptic_diversity", {}),
    ("synaptic_diversity", {"mean": False}),
    ("activation_distance", {}),
    ("activation_distance", {"published": True}),
    ("head_importance", {}),
    ("head_importance", {"mean": True}),
    ("head_confidence", {}),
    ("head_confidence", {"mean": True}),
    ("softmax_confidence", {}),
    ("synflow", {}),
    ("snip", {}),
    ("grasp", {}),
    ("fisher", {}),
    ("grad_norm", {}),
    ("zico", {}),
    ("expressivity", {}),
    ("trainability", {}),
    ("spectral_capacity", {}),
    ("state_capacity", {}),
    ("state_capacity", {"relative": True}),
    ("decay_horizon", {}),
    ("write_interference", {}),
    ("retrieval_margin", {}),
    ("gradient_reach", {}),
)
"""Every metric that is judged, with its arguments."""

TIMED = 16
"""One architecture in so many is looked at again for each metric alone, to see what that takes."""


def judged() -> list[TrainingFree]:
    """Every metric that is judged."""
    found = []
    for name, arguments in ARGUMENTS:
        metric = find("metric", name)
        assert metric is not None, name
        found.append(metric(**arguments))
    return found  # type: ignore[return-value]


@dataclass(frozen=True)
class Scored:
    """What one architecture gives.

    Args:
        scores: of each metric, by its label.
        seconds: what each takes alone: reading, compiling, the passes it needs, its arithmetic; empty
            where that was not measured.
        params: parameters at the published size.
        flops: of one token in a sequence of the benchmark's length, at the published size.
        whole: seconds for all metrics together.
    """

    scores: dict[str, float]
    seconds: dict[str, float]
    params: int
    flops: float
    whole: float


def scored(
    benchmark: Benchmark, metrics: Sequence[TrainingFree], jobs: int, tell: Callable[[], object]
) -> list[Scored]:
    """The scores of every architecture, in order.

    Args:
        benchmark: the architectures.
        metrics: what they are scored with.
        jobs: processes; 1 stays in this one.
        tell: is called behind each.
    """
    names = [written(metric) for metric in metrics]
    probe = Probe(vocab=benchmark.vocab, length=benchmark.length)
    one = partial(_score, names=names, probe=probe, sequences=benchmark.sequences)
    found = []
    for result in _mapped(one, benchmark.entries, timed(len(benchmark.entries)), jobs):
        found.append(result)
        tell()
    return found


def timed(count: int) -> list[bool]:
    """Which of so many architectures show what each metric takes: no process's first, if it can be."""
    return [place % TIMED == min(TIMED, count) - 1 for place in range(count)]


def _mapped(
    one: Callable[[Entry, bool], Scored], entries: Sequence[Entry], timed: Sequence[bool], jobs: int
) -> Iterator[Scored]:
    if jobs == 1:
        _settle()
        yield from map(one, entries, timed)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_single) as pool:
        yield from pool.map(one, entries, timed, chunksize=4)


def _single() -> None:
    """One thread a process: there are as many processes as were asked for."""
    import torch

    torch.set_num_threads(1)
    _settle()


def _settle() -> None:
    """What is loaded stays: searching it again and again for garbage would slow every architecture."""
    gc.collect()
    gc.freeze()


def _score(
    entry: Entry, timed: bool, names: list[dict[str, object]], probe: Probe, sequences: int
) -> Scored:
    import archdsl

    published = archdsl.loads(entry.text, name=entry.name).arch({}).cost
    metrics: list[TrainingFree] = [read("metric", name) for name in names]  # type: ignore[misc]
    start = time.perf_counter()
    arch = archdsl.loads(entry.scored, name=entry.name).arch({})
    model = arch.compile(seed=seed_of(0, "weights"))
    look = _Look(model, arch, probe, sequences, time.perf_counter() - start)
    scores = look.scores(metrics)
    whole = time.perf_counter() - start
    return Scored(
        scores, look.alone(metrics) if timed else {}, published.params,
        published.flops(probe.length, "prefill"), whole,
    )  # fmt: skip


@dataclass(frozen=True)
class _Look:
    """A model that was read and built in so many seconds, and what it is looked at with."""

    model: Any
    arch: Arch
    probe: Probe
    sequences: int
    built: float

    def scores(self, metrics: Sequence[TrainingFree]) -> dict[str, float]:
        """All metrics from one look."""
        evidence = self._evidence(frozenset[Need]().union(*(m.needs for m in metrics)))
        return {metric.label: metric.score(evidence) for metric in metrics}

    def alone(self, metrics: Sequence[TrainingFree]) -> dict[str, float]:
        """Seconds of each metric without the others; those of equal needs share the passes only."""
        found: dict[str, float] = {}
        ordered = sorted(metrics, key=_needs)
        for _, group in groupby(ordered, key=_needs):
            same = list(group)
            start = time.perf_counter()
            evidence = self._evidence(same[0].needs)
            passes = time.perf_counter() - start
            for metric in same:
                start = time.perf_counter()
                metric.score(replace(evidence))
                found[metric.label] = self.built + passes + time.perf_counter() - start
        return found

    def _evidence(self, needs: frozenset[Need]) -> Any:
        from archdsl.search.metrics.evidence import gather

        return gather(self.model, self.arch, self.probe, needs, sequences=self.sequences)


def _needs(metric: TrainingFree) -> list[str]:
    return sorted(need.name for need in metric.needs)
