"""Scores of published architectures: each text is read, compiled and looked at as in any search."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from archdsl.blocks.registry import find
from archdsl.search.components import read, written
from archdsl.search.metrics.base import Need, TrainingFree
from archdsl.search.seeds import seed_of
from archdsl.search.validation.probe import Probe

if TYPE_CHECKING:
    from archdsl.search.metrics.evidence import Evidence
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
        seconds: what each takes alone: reading, compiling, the passes it needs, its arithmetic.
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
    for result in _mapped(one, benchmark.entries, jobs):
        found.append(result)
        tell()
    return found


def _mapped(
    one: Callable[[Entry], Scored], entries: Sequence[Entry], jobs: int
) -> Iterator[Scored]:
    if jobs == 1:
        yield from map(one, entries)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_single) as pool:
        yield from pool.map(one, entries, chunksize=4)


def _single() -> None:
    """One thread a process: there are as many processes as were asked for."""
    import torch

    torch.set_num_threads(1)


def _score(entry: Entry, names: list[dict[str, object]], probe: Probe, sequences: int) -> Scored:
    import archdsl
    from archdsl.search.metrics.evidence import gather

    published = archdsl.loads(entry.text).sample(0).cost
    metrics: list[TrainingFree] = [read("metric", name) for name in names]  # type: ignore[misc]
    needs = frozenset[Need]().union(*(metric.needs for metric in metrics))
    start = time.perf_counter()
    arch = archdsl.loads(entry.scored).sample(0)
    model = arch.compile(seed=seed_of(0, "weights"))
    built = time.perf_counter() - start
    evidence = gather(model, arch, probe, needs, sequences=sequences)
    scores, seconds = {}, {}
    for metric in metrics:
        begun = time.perf_counter()
        scores[metric.label] = metric.score(evidence)
        seconds[metric.label] = time.perf_counter() - begun + _shared(metric, evidence, built)
    return Scored(
        scores, seconds, published.params, published.flops(probe.length, "prefill"),
        time.perf_counter() - start,
    )  # fmt: skip


def _shared(metric: TrainingFree, evidence: Evidence, built: float) -> float:
    """Seconds of what a metric shares with others and would have to do alone."""
    from archdsl.search.metrics.evidence import BACKWARD

    parts = ["forward"] if metric.needs - {Need.WEIGHTS, Need.SYNFLOW} else []
    parts += ["backward"] if metric.needs & BACKWARD else []
    parts += [need.name for need in metric.needs]
    return built + sum(evidence.seconds.get(part, 0.0) for part in parts)
