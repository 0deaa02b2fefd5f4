"""The report: one HTML file that needs nothing else, with the answer first."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from archdsl.search.reports import charts
from archdsl.search.reports.effects import effects
from archdsl.search.reports.findings import Choice, choices, first_results, metric_rows
from archdsl.search.space.objectives import Kept
from archdsl.search.storage.records import Record
from archdsl.search.study.halving import foretold
from archdsl.search.study.progress import quantity_of_time
from archdsl.search.study.words import named, quantity, standing

if TYPE_CHECKING:
    from archdsl.search.reports.outputs import Result

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Stage:
    """One line of the funnel.

    Args:
        name: what happened.
        count: to how many candidates.
        note: more about it.
    """

    name: str
    count: int
    note: str = ""


def report(result: Result) -> str:
    """The whole page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(quantity=quantity, named=named, standing=standing)
    return environment.get_template("report.html.j2").render(context(result))


def context(result: Result) -> dict[str, Any]:
    """Everything the template shows."""
    found = choices(result.records, result.objectives[0])
    return {
        "result": result,
        "best": result.best,
        "objectives": result.objectives,
        "headline": headline(result),
        "constraints": constraints(result.best),
        "stages": funnel(result),
        "choices": found,
        "effects": effects(result.records, [o.text for o in result.objectives]),
        "metrics": metric_rows(result.records, result.objectives[0], result.settings.rank),
        "charts": drawings(result, found),
        "failures": [record for record in result.records if record.state == "fail"],
        "sample": next((record.sample for record in result.front if record.sample), None),
        "settings": settings(result),
        "time": quantity_of_time(sum(record.seconds for record in result.records)),
        "counts": Counter(record.state for record in result.records),
        "plotly": plotly_script(),
    }


def headline(result: Result) -> str:
    """The answer in a sentence."""
    if result.best is None:
        return "No candidate has been trained to the end yet."
    values = zip(result.objectives, result.best.values or (), strict=True)
    reached = " and ".join(f"{o.text} {quantity(o.text, value)}" for o, value in values)
    taken = named(result.best.arch["choices"])
    what = (
        ", ".join(f"{name} = {text}" for name, text in taken.items()) or "the spec's architecture"
    )
    return f"{what} reaches {reached}."


def constraints(best: Record | None) -> list[Kept]:
    """The best architecture's constraints, with what is left of each."""
    return [Kept(**kept) for kept in best.constraints] if best else []


def funnel(result: Result) -> list[Stage]:
    """How many candidates got how far."""
    records = result.records
    effort: Counter[str] = Counter()
    for record in records:
        effort.update(record.arch["proposal"]["effort"])
    rungs = result.settings.rungs
    reached = [
        Stage(f"trained for {steps} steps", _reached(records, rung), foretells(result, rung))
        for rung, steps in enumerate(rungs)
    ]
    return [
        Stage("looked at", effort["infeasible"] + effort["duplicates"] + len(records)),
        Stage("rejected by constraints", effort["infeasible"], "before anything was built"),
        Stage("seen before", effort["duplicates"], "never paid for twice"),
        Stage("scored without training", sum(record.scores is not None for record in records)),
        *reached,
    ]


def _reached(records: Sequence[Record], rung: int) -> int:
    return sum(record.rung(rung) is not None for record in records)


def foretells(result: Result, rung: int) -> str:
    """How well a rung's results order the final ones, which decides how many go on; empty where unknown."""
    last = len(result.settings.rungs) - 1
    directions = [objective.direction for objective in result.objectives]
    tau = foretold(result.records, rung, last, directions) if rung < last else None
    return "" if tau is None else f"orders the final results with τ = {tau:.2f}"


def drawings(result: Result, found: Sequence[Choice]) -> Mapping[str, Markup | None]:
    """The figures, as far as there is something to draw."""
    records, objectives, front = result.records, result.objectives, result.front
    trained = [record for record in records if record.rungs]
    colour = found[0].path if found else None
    rank = result.settings.rank
    weights = {c.name: c.importance for c in found if c.importance is not None}
    drawn = {
        "front": len(objectives) > 1
        and trained
        and charts.front_chart(records, front, objectives, colour),
        "history": trained and charts.history_chart(records, objectives, colour),
        "curves": trained and charts.curves_chart(records, front, objectives),
        "importance": any(weights.values()) and charts.importance_chart(weights),
        "score": rank
        and trained
        and charts.score_chart(first_results(records), rank.label, objectives[0], colour),
    }
    return {name: Markup(html) if html else None for name, html in drawn.items()}


def settings(result: Result) -> dict[str, str]:
    """How the study was run, and with what."""
    chosen, last = result.settings, result.records[-1] if result.records else None
    scored: Mapping[str, Any] = next(
        (r.attributes["scores"] for r in reversed(result.records) if r.scores), {}
    )
    return {
        "sampler": described(chosen.sampler),
        "rank": chosen.rank.label if chosen.rank else "none",
        "promote": str(chosen.promote),
        "rungs": ", ".join(map(str, chosen.rungs)) + " steps",
        "trials": str(chosen.trials),
        "seed": str(chosen.seed),
        "trial timeout": f"{chosen.timeout:g} s",
        "data": str(chosen.data or "made by the task"),
        "device": str(scored.get("device", "–")),
        "archdsl": version("archdsl") if _installed() else "from source",
        "torch": str(scored.get("torch", "–")),
        "optuna": str(last.arch["versions"]["optuna"]) if last else "–",
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def described(component: Any) -> str:
    """A component with its arguments."""
    given = ", ".join(f"{key} = {value}" for key, value in component.model_dump().items())
    return f"{component.name}({given})" if given else str(component.name)


def _installed() -> bool:
    try:
        return bool(version("archdsl"))
    except ImportError:
        return False


@cache
def plotly_script() -> Markup:
    """Plotly's program, to be put into the page."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs().replace("</script", "<\\/script"))
