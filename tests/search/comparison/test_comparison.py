"""Samplers side by side, and what may be said about them."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from fakes import FakeSpace

from archdsl.diagnostics import ArchError
from archdsl.search.comparison.contest import DataSet, Entrant, Trial, run
from archdsl.search.comparison.main import VARIANTS, compare, entrants_of
from archdsl.search.comparison.standing import cells, lottery, rows
from archdsl.search.samplers.evolution import Evolution
from archdsl.search.samplers.random import Random
from archdsl.search.statistics.significance import band, best_so_far, difference, holm, mann_whitney


class Wide:
    """A cheap judge: wide ones are good."""

    def value(self, arch):
        return float(arch.width) + len(arch.choices)


RANDOM, EVOLUTION = Entrant("random", Random()), Entrant("evolution", Evolution(population=3))
ABOUT = {"space": "fake"}


def contest(tmp_path, seeds=4):
    data = DataSet(tmp_path / "trials.jsonl", ABOUT)
    for entrant in (RANDOM, EVOLUTION):
        for seed in range(seeds):
            data.add(list(run(FakeSpace(), entrant, seed, 8, Wide())))
    return data


def test_the_data_set_can_be_loaded_by_anyone(tmp_path):
    data = contest(tmp_path)
    first, *lines = [
        json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()
    ]
    assert first == ABOUT
    assert len(lines) == 2 * 4 * 8
    assert set(lines[0]) == {
        "sampler", "seed", "number", "hash", "value", "choices", "assignment", "params",
    }  # fmt: skip
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"sampler": "torn')
    again = DataSet(tmp_path / "trials.jsonl", ABOUT)
    assert again.fits
    assert again.trials == data.trials
    assert not DataSet(tmp_path / "trials.jsonl", {"space": "another"}).fits
    again.add([])
    again.add([replace(data.trials[0], seed=99)])
    _, *more = map(json.loads, (tmp_path / "trials.jsonl").read_text().splitlines())
    assert [*lines, {**lines[0], "seed": 99}] == more, "the torn line is gone, and no other"


def test_a_run_depends_on_its_seed_alone(tmp_path):
    one, same, other = (list(run(FakeSpace(), EVOLUTION, seed, 8, Wide())) for seed in (0, 0, 1))
    assert one == same
    assert [t.hash for t in one] != [t.hash for t in other]
    assert len({t.hash for t in one}) == 8


def test_rows_and_their_words(tmp_path):
    found = rows(contest(tmp_path).runs(), [RANDOM, EVOLUTION], range(4), "random")
    assert {row.label for row in found} == {"random", "evolution"}
    assert found[0].mean >= found[1].mean
    for row in found:
        assert len(row.finals) == 4
        assert (row.against is None) == (row.label == "random")
        assert len(cells(row)) == 9
        mean, low, high = row.curve
        assert (low <= mean + 1e-12).all()
        assert (mean <= high + 1e-12).all()


def test_half_of_the_runs_must_have_reached_what_random_search_does():
    def run(value):
        return [Trial("any", 0, n, "", v, {}, {}, 0) for n, v in enumerate(value)]

    slow = {("slow", 0): run([0, 0, 4]), ("slow", 1): run([9, 0, 0]), ("slow", 2): run([0, 0, 0])}
    base = {("random", seed): run([2, 2, 2]) for seed in range(3)}
    never = {("never", seed): run([0, 9 if seed == 0 else 0, 0]) for seed in range(3)}
    labels = [Entrant(label, Random()) for label in ("random", "slow", "never")]
    found = rows({**slow, **base, **never}, labels, range(3), "random")
    assert {row.label: row.reached for row in found} == {"random": 1, "slow": 3, "never": None}


def test_the_lottery_lists_every_setting(tmp_path):
    data = contest(tmp_path)
    other = Entrant("evolution(population = 6)", Evolution(population=6), variant=True)
    for seed in range(4):
        data.add(list(run(FakeSpace(), other, seed, 8, Wide())))
    found = lottery(data.runs(), [RANDOM, EVOLUTION, other], range(4))
    assert {ticket.label for ticket in found} == {"evolution", "evolution(population = 6)"}


def test_every_variant_is_a_setting_the_sampler_takes():
    found = entrants_of(list(VARIANTS), variants=True)
    assert len(found) == 1 + len(VARIANTS) + sum(map(len, VARIANTS.values()))
    with pytest.raises(ArchError, match="no sampler `tpee`") as caught:
        entrants_of(["tpee"], variants=False)
    assert "tpe" in caught.value.diagnostics[0].help
    assert caught.value.diagnostics[0].id == "unknown-component"


SPEC = """
model { embed(dim = 8 | 16) residual { rms_norm swiglu } rms_norm lm_head }
task recall = mqar(vocab = 32, length = 16, pairs = 2)
"""


@pytest.mark.parametrize(
    ("score", "id"),
    [("params", "another-contest"), (None, "no-score"), ("parms", "unknown-component")],
)
def test_what_cannot_be_compared_is_refused_in_words(tmp_path, score, id):
    spec = tmp_path / "small.arch"
    spec.write_text(SPEC)
    compare(spec, [], seeds=2, trials=2, score="flops", out=tmp_path / "contest")
    with pytest.raises(ArchError) as caught:
        compare(spec, [], seeds=2, trials=2, score=score, out=tmp_path / "contest")
    assert [diagnostic.id for diagnostic in caught.value.diagnostics] == [id]


@pytest.mark.parametrize(
    "damage",
    [
        b"[1, 2]",
        b"17",
        b"\xff\xfe\0",
        b'{"a": 1}',
        b'{"sampler":"random","seed":0,"number":0,"hash":"","value":"x","choices":{},'
        b'"assignment":{},"params":1}',
    ],
)
def test_a_run_with_a_damaged_line_is_made_again(tmp_path, damage):
    spec, path = tmp_path / "small.arch", tmp_path / "trials.jsonl"
    spec.write_text(SPEC)
    given = {"seeds": 2, "score": "flops", "out": tmp_path}
    before = compare(spec, [], trials=2, **given)
    lines = path.read_bytes().splitlines(keepends=True)
    kept = {line for line in lines if line != lines[1]}
    path.write_bytes(b"".join([lines[0], damage + b"\n", *lines[2:]]))
    assert compare(spec, [], trials=1, **given).rows[0].finals
    assert {*path.read_bytes().splitlines(keepends=True), damage + b"\n"} >= {lines[1], *kept}
    after = compare(spec, [], trials=2, **given)
    assert [row.finals for row in after.rows] == [row.finals for row in before.rows]


@pytest.mark.parametrize("foreign", [b'{"a": 1}\n{"b": 2}\n', b"\xff\xfe\0\n", b"notes\n"])
def test_a_file_about_something_else_is_left_alone(tmp_path, foreign):
    spec, path = tmp_path / "small.arch", tmp_path / "trials.jsonl"
    spec.write_text(SPEC)
    path.write_bytes(foreign)
    with pytest.raises(ArchError, match="another space or score"):
        compare(spec, [], seeds=1, trials=1, score="flops", out=tmp_path)
    assert path.read_bytes() == foreign


@pytest.mark.parametrize("begun", [b"", b'{"spa', b'{"space": "fake"}'])
def test_a_file_that_ends_in_its_first_line_is_begun_anew(tmp_path, begun):
    path = tmp_path / "trials.jsonl"
    path.write_bytes(begun)
    trial = Trial("any", 0, 0, "", 0.0, {}, {}, 0)
    DataSet(path, ABOUT).add([trial])
    again = DataSet(path, ABOUT)
    assert again.fits
    assert again.trials == [trial]


def test_a_data_set_that_cannot_be_written_is_said_in_words(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArchError, match="is a directory"):
        DataSet(tmp_path / "folder", ABOUT)
    with pytest.raises(ArchError, match="cannot be written: file exists"):
        DataSet(tmp_path / "file" / "trials.jsonl", ABOUT).add(
            [Trial("any", 0, 0, "", 0.0, {}, {}, 0)]
        )


# --- statistics -----------------------------------------------------------------------------------


def test_best_so_far_and_its_band():
    curves = best_so_far(np.array([[1.0, 0.0, 3.0], [2.0, 5.0, 4.0]]))
    assert curves.tolist() == [[1, 1, 3], [2, 5, 5]]
    mean, low, high = band(np.tile([[1.0, 2.0]], (5, 1)))
    assert mean.tolist() == low.tolist() == high.tolist() == [1.0, 2.0]


def test_mann_whitney_on_a_textbook_case():
    # Hollander and Wolfe's water transfer data: U = 15 of 50, exact two-sided p = 0.2544
    one = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
    other = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
    wins, p = mann_whitney(one, other)
    assert wins * 50 == 35
    assert p == pytest.approx(0.2544, abs=0.01), "the normal approximation of the exact value"
    assert mann_whitney(one, one) == (0.5, 1.0)
    assert mann_whitney(np.ones(4), np.ones(4)) == (0.5, 1.0)


def test_chance_is_called_real_as_often_as_it_may_be():
    draw = random.Random(0)
    runs = [difference(*([draw.gauss(0, 1) for _ in range(20)] for _ in "ab")) for _ in range(300)]
    called = sum(each.real for each in runs) / len(runs)
    assert called < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    shifted = difference(
        [draw.gauss(2, 1) for _ in range(20)], [draw.gauss(0, 1) for _ in range(20)]
    )
    assert shifted.real
    assert shifted.low > 0


def test_holm_corrects_for_how_many_were_looked_at():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
