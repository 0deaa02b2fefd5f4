"""Figures of the report, each a piece of HTML that draws with the page's one copy of plotly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go

from archdsl.search.space.objectives import Objective
from archdsl.search.storage.records import Record
from archdsl.search.study.words import last_name, named, quantity, short_choices

COLOURS = ("#2a6f97", "#e07a1f", "#4a8c4a", "#b5446e", "#7a5fb0", "#8a6d3b", "#3a9d9d", "#777777")
FAINT, INK, LINE = "#c9ced6", "#1f2933", "#e4e7eb"
HEIGHT = 380

FEW = 12
"""Trials up to which the axis names each; between fewer than that, it would name halves."""


def front_chart(
    records: Sequence[Record], front: Sequence[Record], objectives: Sequence[Objective],
    colour: str | None,
) -> str:  # fmt: skip
    """Trained trials by the first two objectives, the ones that no other beats joined by a line.

    Args:
        records: all trials.
        front: those that no other beats.
        objectives: at least two.
        colour: path of the choice that colours the points.
    """
    done = [record for record in records if record.rungs]
    figure = go.Figure()
    steps = sorted(front, key=lambda record: _values(record)[1])
    figure.add_scatter(
        x=[_values(r)[1] for r in steps], y=[_values(r)[0] for r in steps], mode="lines",
        line={"color": INK, "width": 1, "dash": "dot"}, name="not beaten", hoverinfo="skip",
    )  # fmt: skip
    for place, (text, group) in enumerate(_grouped(done, colour).items()):
        figure.add_scatter(**_points(group, front, objectives, text, _colour(place)))
    return _html(figure, x=_axis(objectives[1]), y=_axis(objectives[0]))


def history_chart(
    records: Sequence[Record], objectives: Sequence[Objective], colour: str | None
) -> str:
    """The first objective of trained trials over the search, and the best so far."""
    done = [record for record in records if record.rungs]
    best = max if objectives[0].direction == "maximize" else min
    figure = go.Figure()
    figure.add_scatter(
        x=[r.number for r in done], y=list(accumulate((_values(r)[0] for r in done), best)),
        mode="lines", line={"color": INK, "width": 1, "shape": "hv"}, name="best so far",
    )  # fmt: skip
    for place, (text, group) in enumerate(_grouped(done, colour).items()):
        figure.add_scatter(
            x=[r.number for r in group], y=[_values(r)[0] for r in group], mode="markers",
            name=text, marker={"color": _colour(place), "size": 9},
            text=[_hover(r, objectives) for r in group], hoverinfo="text",
        )  # fmt: skip
    apart = {"dtick": 1} if len(records) <= FEW else {}
    return _html(figure, x={"title": "trial", **apart}, y=_axis(objectives[0]))


def curves_chart(
    records: Sequence[Record], front: Sequence[Record], objectives: Sequence[Objective]
) -> str:
    """Training loss over steps: what was cut in grey, what finished in colour."""
    best = {record.number for record in front}
    trained = [record for record in records if record.rungs]
    figure = go.Figure()
    for record in sorted(trained, key=lambda r: (r.number in best, r.state == "complete")):
        for task, points in record.rungs[-1].curves.items():
            figure.add_scatter(**_curve(record, task, points, record.number in best, objectives))
    return _html(figure, x={"title": "step"}, y={"title": "loss (nats)"})


def importance_chart(weights: Mapping[str, float]) -> str:
    """Shares of the choices in what decides the first objective."""
    items = sorted(weights.items(), key=lambda item: item[1])
    figure = go.Figure()
    figure.add_bar(
        x=[weight for _, weight in items], y=[name for name, _ in items], orientation="h",
        marker={"color": COLOURS[0]}, text=[f"{weight:.0%}" for _, weight in items],
        textposition="outside", hoverinfo="skip", cliponaxis=False,
    )  # fmt: skip
    height = 90 + 34 * len(items)
    axis = {"title": "share", "tickformat": ".0%", "range": [0, 1.1 * max(weights.values())]}
    return _html(figure, x=axis, y={"automargin": True}, height=height)


def score_chart(
    pairs: Sequence[tuple[Record, float]], label: str, objective: Objective, colour: str | None
) -> str:
    """A training-free score against what training gave at the first rung."""
    values = {record.number: value for record, value in pairs}
    figure = go.Figure()
    for place, (text, group) in enumerate(_grouped([r for r, _ in pairs], colour).items()):
        figure.add_scatter(
            x=[(r.scores or {}).get(label) for r in group], y=[values[r.number] for r in group],
            mode="markers", name=text, marker={"color": _colour(place), "size": 9},
            text=[_hover(r, [objective]) for r in group], hoverinfo="text",
        )  # fmt: skip
    axis = {**_axis(objective), "title": f"{objective.text} at the first rung"}
    return _html(figure, x={"title": label}, y=axis)


def _points(
    group: Sequence[Record], front: Sequence[Record], objectives: Sequence[Objective], text: str,
    colour: str,
) -> dict[str, Any]:  # fmt: skip
    best = {record.number for record in front}
    solid = [record.state == "complete" for record in group]
    return {
        "x": [_values(record)[1] for record in group],
        "y": [_values(record)[0] for record in group],
        "mode": "markers",
        "name": text,
        "text": [_hover(record, objectives) for record in group],
        "hoverinfo": "text",
        "marker": {
            "color": colour,
            "size": [13 if record.number in best else 9 for record in group],
            "opacity": [1.0 if done else 0.35 for done in solid],
            "line": {"color": "white", "width": 1},
        },
    }


def _curve(
    record: Record, task: str, points: Sequence[tuple[int, float]], best: bool,
    objectives: Sequence[Objective],
) -> dict[str, Any]:  # fmt: skip
    done = record.state == "complete"
    return {
        "x": [step for step, _ in points],
        "y": [loss for _, loss in points],
        "mode": "lines",
        "name": f"trial {record.number}",
        "showlegend": best,
        "line": {
            "color": _colour(record.number) if done else FAINT,
            "width": 2.5 if best else 1.2,
        },
        "text": [f"{_hover(record, objectives)}<br>{escape(task)}"] * len(points),
        "hoverinfo": "text",
    }


def _grouped(records: Sequence[Record], path: str | None) -> dict[str, list[Record]]:
    """Trials by what they took at a site, in the order of its texts."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        taken = (
            f"{last_name(path)} {record.arch['choices'].get(path, 'other')}" if path else "trials"
        )
        groups.setdefault(taken, []).append(record)
    return dict(sorted(groups.items()))


def _values(record: Record) -> tuple[float, ...]:
    return record.values or record.rungs[-1].objectives


def _hover(record: Record, objectives: Sequence[Objective]) -> str:
    pairs = zip(objectives, _values(record), strict=False)
    lines = [f"<b>trial {record.number}</b>"]
    lines += [f"{escape(o.text)}: {quantity(o.text, value)}" for o, value in pairs]
    if record.state != "complete":
        lines.append(f"cut after {record.rungs[-1].step} steps")
    lines += [f"{escape(k)}: {escape(v)}" for k, v in named(record.arch["choices"]).items()]
    return "<br>".join(lines) or escape(short_choices(record.arch["choices"]))


def _axis(objective: Objective) -> dict[str, Any]:
    """An axis for an objective; sizes in bytes get binary ticks."""
    arrow = "higher is better" if objective.direction == "maximize" else "lower is better"
    axis: dict[str, Any] = {"title": f"{objective.text} ({arrow})"}
    if "bytes" in objective.text and "per_byte" not in objective.text:
        powers = range(50)
        axis |= {
            "type": "log",
            "tickvals": [2**power for power in powers],
            "ticktext": [quantity("bytes", 2.0**power) for power in powers],
        }
    return axis


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _html(figure: go.Figure, x: dict[str, Any], y: dict[str, Any], height: int = HEIGHT) -> str:
    frame = {"gridcolor": LINE, "zeroline": False, "linecolor": LINE, "ticks": ""}
    figure.update_layout(
        height=height,
        margin={"l": 64, "r": 24, "t": 16, "b": 52},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.12, "x": 0},
        hoverlabel={"bgcolor": "white", "bordercolor": LINE, "align": "left"},
        xaxis={**frame, **x},
        yaxis={**frame, **y},
        hovermode="closest",
    )
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False,
        config={"displayModeBar": False, "responsive": True},
    )  # fmt: skip
    return html
