import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from fakes import ACCURACY, STATE
from rich.console import Console
from runs import EVERYONE, run, space_of

from archdsl.search.reports.charts import front_chart
from archdsl.search.reports.findings import choices, importances, metric_rows
from archdsl.search.reports.report import context, headline, report
from archdsl.search.space.objectives import Kept


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    section = {**EVERYONE, "rungs": (2, 4)}
    space = space_of("random", "two", 9, section=section, trouble={"2": "error"})
    return run(tmp_path_factory.mktemp("report"), space)


@pytest.fixture(scope="module")
def page(result):
    return result.report.read_text()


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for key, value in attributes if key in ("href", "src")]


def test_the_page_needs_no_network(page):
    links = Links()
    links.feed(page)
    assert links.found
    assert not [link for link in links.found if re.match("(https?:)?//", link)]
    assert "plotly" in page


def test_the_answer_comes_first(result, page):
    said = headline(result)
    assert "recall.accuracy" in said
    body = page[page.index("<main>") :]
    assert body.index("reaches") < body.index("How it was found")


def test_every_trial_links_to_its_closed_spec(result, page):
    for record in result.records:
        assert f'href="trials/{record.number:04d}.arch"' in page
        assert (result.folder / "trials" / f"{record.number:04d}.arch").exists()


def test_failures_are_named_with_their_reason(result, page):
    failed = [record for record in result.records if record.state == "fail"]
    assert failed
    assert page[page.index("<h2>Failures") :].count("ValueError: this model") >= len(failed)


def test_metrics_stand_beside_their_baselines(result):
    rows = metric_rows(result.records, ACCURACY, None)
    assert [row.baseline for row in rows] == sorted(row.baseline for row in rows)
    assert {row.label for row in rows if row.baseline} == {"params", "flops", "state_bytes"}
    trained = sum(bool(record.rungs) for record in result.records)
    assert {row.found.n for row in rows if row.found} == {trained}


def test_a_smaller_loss_is_a_better_result_for_the_sign_of_tau(result):
    up = {row.label: row.found for row in metric_rows(result.records, ACCURACY, None)}
    down = {
        row.label: row.found
        for row in metric_rows(result.records, replace(ACCURACY, direction="minimize"), None)
    }
    for label, found in up.items():
        if found:
            assert down[label].tau == pytest.approx(-found.tau)


def test_what_mattered_counts_every_trained_trial(result):
    found = {choice.name: choice for choice in choices(result.records, ACCURACY)}
    trained = sum(bool(record.rungs) for record in result.records)
    assert sum(option.n for option in found["memory"].options) == trained
    means = [option.mean for option in found["width"].options]
    assert means == sorted(means, reverse=True)


def test_importance_is_silent_with_few_trials(result):
    assert importances([(result.records[0], 0.5)], ACCURACY) == {}


def test_nothing_yet_is_a_page_too(result):
    empty = replace(result, records=(), front=())
    assert "No candidate has been trained" in report(empty)


def test_text_of_the_user_is_never_markup(result):
    best = result.best
    arch = {**best.arch, "text": "<script>alert(1)</script>", "choices": {"a.b": "<i>x</i>"}}
    evil = replace(best, attributes={**best.attributes, "arch": arch, "sample": "</pre><b>hi"})
    page = report(replace(result, records=(evil,), front=(evil,)))
    shown = page[page.index("<main>") :]
    assert "<script>alert" not in shown
    assert "<i>x</i>" not in re.sub(r"<script.*?</script>", "", shown, flags=re.S)
    assert "</pre><b>hi" not in shown


def test_a_sample_is_shown(result):
    best = result.best
    wrote = replace(best, attributes={**best.attributes, "sample": "To be, or not to be"})
    page = report(replace(result, records=(wrote,), front=(wrote,)))
    assert "To be, or not to be" in page


def test_the_funnel_adds_up(result):
    stages = {stage.name: stage.count for stage in context(result)["stages"]}
    assert stages["looked at"] >= len(result.records)
    assert stages["scored without training"] == 9
    assert stages["trained for 2 steps"] >= stages["trained for 4 steps"]


def test_slack_is_what_is_left():
    assert Kept("params <= 10", "<=", 7, 10).slack == 3
    assert Kept("params >= 10", ">=", 12, 10).slack == 2


def test_the_front_is_drawn_with_both_objectives(result):
    html = front_chart(result.records, result.front, [ACCURACY, STATE], "model.memory")
    assert "recall.accuracy (higher is better)" in html
    assert "state_bytes (lower is better)" in html


def test_the_table_fits_a_terminal(result):
    console = Console(width=100, file=io.StringIO())
    console.print(result.table(console.width))
    shown = console.file.getvalue()
    assert str(result.best.number) in shown
    assert "recall." in shown, "a head is broken at its dots"
    assert "accuracy" in shown
    assert "best.arch" in result.farewell()


def test_the_title_says_how_trials_ended(result):
    assert result.title == "fake: the best of 9 trials (3 trained, 3 cut, 3 failed)"
    assert replace(result, records=(), front=()).title == "fake: 0 trials"
    best = replace(result, records=result.front[:1], front=result.front[:1])
    assert best.title == "fake: the best of 1 trial (1 trained)"


def table_of(result, choices, width):
    arch = {**result.best.arch, "choices": choices}
    best = replace(result.best, attributes={**result.best.attributes, "arch": arch})
    console = Console(width=width, file=io.StringIO())
    console.print(replace(result, front=(best,), records=(best,)).table(width))
    return console.file.getvalue()


def test_the_table_shows_values_as_they_are_written(result):
    shown = table_of(result, {"stack.cycle": "[a, b, :ok:]"}, 100)
    assert "[a, b, :ok:]" in shown, "a list is no markup"


@pytest.mark.parametrize("width", range(48, 110, 3))
def test_no_column_of_the_table_is_cut(result, width):
    memory = "gated_deltanet(heads = 4, conv = 4)"
    shown = table_of(result, {"model.memory": memory, "model.expand": "8/3"}, width)
    lines = [line.rstrip() for line in shown.splitlines() if "━" in line or "─" in line]
    assert all(line[-1] in "┓┩┘" for line in lines)
