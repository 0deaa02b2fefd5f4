"""What a study shows, as data: the report lays it out, and anyone else may read it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import optuna
from optuna.trial import create_trial

from archdsl.search.metrics import chosen
from archdsl.search.metrics.base import TrainingFree
from archdsl.search.space.objectives import Objective
from archdsl.search.statistics.correlations import Correlation, correlate
from archdsl.search.storage.records import Record
from archdsl.search.study.words import named

ENOUGH = 4
"""Trials at a rung before anything is said about what mattered."""


BEST_SHARE = 0.25
"""The better trials whose choices are compared with everyone's, for importance."""


@dataclass(frozen=True)
class MetricRow:
    """How well a training-free score predicts a trained result, τ positive where it does.

    Args:
        label: of the metric.
        baseline: whether it is a cost that metrics have to beat.
        decides: whether the study promoted by it.
        found: the correlation, if there are enough trials.
    """

    label: str
    baseline: bool
    decides: bool
    found: Correlation | None


@dataclass(frozen=True)
class Option:
    """One alternative of a choice, over the trials that were trained to the first rung.

    Args:
        text: as it is written.
        n: trials that took it.
        mean: of the first objective.
        best: of the first objective.
    """

    text: str
    n: int
    mean: float
    best: float


@dataclass(frozen=True)
class Choice:
    """One site of the spec. ``importance`` is its share in what decides the first objective."""

    name: str
    path: str
    importance: float | None
    options: tuple[Option, ...]


def first_results(records: Sequence[Record]) -> list[tuple[Record, float]]:
    """Trials that reached the first rung, each with its first objective there."""
    pairs = [(record, record.rung(0)) for record in records]
    return [(record, result.objectives[0]) for record, result in pairs if result is not None]


def metric_rows(
    records: Sequence[Record], objective: Objective, rank: TrainingFree | None
) -> list[MetricRow]:
    """Every metric's rank correlation with the first objective at the first rung.

    The trials are those the score promoted, so where ``rank`` decides, the range of its values is
    narrowed and its correlation with them.
    """
    sign = 1.0 if objective.direction == "maximize" else -1.0
    results = [(record.scores or {}, sign * value) for record, value in first_results(records)]
    rows = []
    for metric in chosen(rank):
        pairs = [(scores[metric.label], v) for scores, v in results if metric.label in scores]
        found = correlate([score for score, _ in pairs], [v for _, v in pairs]) if pairs else None
        decides = rank is not None and metric.label == rank.label
        rows.append(MetricRow(metric.label, metric.baseline, decides, found))
    return sorted(rows, key=lambda row: (row.baseline, -row.found.tau if row.found else 2))


def choices(records: Sequence[Record], objective: Objective) -> list[Choice]:
    """What every choice did to the first objective at the first rung, the weightiest first."""
    results = first_results(records)
    if not results:
        return []
    weights = importances(results, objective)
    paths = dict.fromkeys(path for record, _ in results for path in record.arch["choices"])
    names = dict(zip(paths, named(dict.fromkeys(paths, "")), strict=True))
    found = [
        Choice(names[path], path, weights.get(path), options(results, path, objective))
        for path in paths
    ]
    return sorted(found, key=lambda choice: -(choice.importance or 0.0))


def options(
    results: Sequence[tuple[Record, float]], path: str, objective: Objective
) -> tuple[Option, ...]:
    """The alternatives that were taken at a site, the best first."""
    taken: dict[str, list[float]] = {}
    for record, value in results:
        if path in record.arch["choices"]:
            taken.setdefault(record.arch["choices"][path], []).append(value)
    best = max if objective.direction == "maximize" else min
    found = [Option(text, len(v), fmean(v), best(v)) for text, v in taken.items()]
    return tuple(sorted(found, key=lambda o: o.mean, reverse=objective.direction == "maximize"))


def importances(
    results: Sequence[tuple[Record, float]], objective: Objective
) -> Mapping[str, float]:
    """Each site's share in what decides the first objective, by PED-ANOVA; empty with few trials.

    "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces" (Watanabe et
    al., IJCAI 2023). Sites that only some architectures have are left out.
    """
    if len(results) < ENOUGH or len({value for _, value in results}) < 2:
        return {}
    study = optuna.create_study(direction=objective.direction)
    for record, value in results:
        study.add_trial(
            create_trial(
                params=dict(record.params), distributions=dict(record.distributions), value=value
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
