"""The report of a contest: one HTML file that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup

from archdsl.search.comparison.standing import Row, cells
from archdsl.search.reports.charts import COLOURS, HEIGHT, INK
from archdsl.search.reports.report import TEMPLATES, plotly_script
from archdsl.search.storage.files import write_text

if TYPE_CHECKING:
    from archdsl.search.comparison.main import Contest

PAGE = "compare.html"


def write_page(contest: Contest) -> None:
    """Write the page into the contest's folder.

    Raises:
        ArchError: it cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    page = environment.get_template("compare.html.j2").render(
        contest=contest,
        headline=headline(contest),
        rows=[cells(row) for row in contest.rows],
        curves=Markup(curves(contest)),
        lottery=Markup(tickets(contest)) if contest.tickets else None,
        plotly=plotly_script(),
    )
    write_text(contest.folder / PAGE, page)


def headline(contest: Contest) -> str:
    """The answer in a sentence."""
    better = [row.label for row in contest.rows if _is(row, better=True)]
    worse = [row.label for row in contest.rows if _is(row, better=False)]
    said = f"{_listed(better)} found better architectures than random search" if better else (
        "No sampler found better architectures than random search"
    )  # fmt: skip
    behind = f"; {_listed(worse)} found worse ones" if worse else ""
    return f"{said}{behind}, beyond chance."


def _is(row: Row, better: bool) -> bool:
    return row.against is not None and row.against.real and (row.against.mean > 0) == better


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def curves(contest: Contest) -> str:
    """Best so far over trials, with bands."""
    figure = go.Figure()
    for place, row in enumerate(contest.rows):
        mean, low, high = (part.tolist() for part in row.curve)
        colour, x = COLOURS[place % len(COLOURS)], list(range(1, len(mean) + 1))
        figure.add_scatter(
            x=[*x, *reversed(x)], y=[*high, *reversed(low)], fill="toself", fillcolor=colour,
            opacity=0.12, line={"width": 0}, hoverinfo="skip", showlegend=False,
            legendgroup=row.label,
        )  # fmt: skip
        dash = "dot" if place >= len(COLOURS) else "solid"
        figure.add_scatter(
            x=x, y=mean, mode="lines", name=row.label, legendgroup=row.label,
            line={"color": colour, "width": 2, "dash": dash},
        )  # fmt: skip
    return _html(figure, "trials", f"best {contest.score} so far, mean over seeds")


def tickets(contest: Contest) -> str:
    """The mean final best of every setting of every sampler, with its interval."""
    figure = go.Figure()
    samplers = list(dict.fromkeys(ticket.sampler for ticket in contest.tickets))
    for place, sampler in enumerate(samplers):
        own = [ticket for ticket in contest.tickets if ticket.sampler == sampler]
        figure.add_scatter(
            x=[t.mean for t in own], y=[t.label for t in own], mode="markers", name=sampler,
            marker={"size": 9, "color": COLOURS[place % len(COLOURS)]},
            error_x={
                "array": [t.high - t.mean for t in own],
                "arrayminus": [t.mean - t.low for t in own], "thickness": 1,
            },
        )  # fmt: skip
    base = next(row for row in contest.rows if row.against is None)
    figure.add_vline(x=base.mean, line={"color": INK, "dash": "dot", "width": 1})
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(height=max(HEIGHT, 24 * len(contest.tickets) + 120))
    return _html(figure, f"mean best {contest.score}; the dotted line is random search", "")


def _html(figure: go.Figure, x: str, y: str) -> str:
    figure.update_layout(
        template="plotly_white", margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={"title": x}, yaxis={"title": y, "automargin": True}, font={"color": INK},
    )  # fmt: skip
    drawn: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displaylogo": False}
    )
    return drawn
