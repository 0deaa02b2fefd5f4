"""A small sample of the study of the Miras space."""

from __future__ import annotations

import random
import sys
from math import isfinite
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from studies import miras

SAMPLE = random.Random(0).sample(list(miras.points()), 60)


def test_every_point_is_a_family_or_refused_with_a_reason() -> None:
    findings = [miras.found(point) for point in SAMPLE]
    families = {finding.family for finding in findings}
    assert {"learner", "rejected"} <= families
    assert all(finding.note for finding in findings)
    assert "why rejected" in miras.table(findings)


RECOGNISED = {
    ("matrix(heads = 2)", "dot", "decay(head)", "gd(rate = head, chunk = 8)"): "decay",
    ("matrix(heads = 2)", "l2", "decay(head)", "gd(rate = token)"): "delta",
    ("matrix(heads = 2)", "l2", "decay(head)", "gd(rate = head, chunk = 8)"): "learner",
    ("polynomial(matrix(heads = 4))", "l2", "none", "gd(rate = token)"): "delta",
    ("vector", "dot", "decay(channel)", "gd(rate = fixed)"): "scan",
    ("vector", "l2", "decay(channel)", "gd(rate = token)"): "delta",
    ("slots(count = 4, heads = 2)", "l2", "lq(4)", "gd(rate = token)"): "rejected",
}


@pytest.mark.parametrize("parts", RECOGNISED, ids=" ".join)
def test_what_a_fast_family_computes_is_sent_there(parts: tuple[str, str, str, str]) -> None:
    assert miras.found(miras.Point(*parts)).family == RECOGNISED[parts]


@pytest.mark.parametrize("point", list(miras.drawn(6, seed=1)), ids=lambda point: point.layer)
def test_points_train(point: miras.Point) -> None:
    first, last = miras.trained(point, steps=4, length=12)
    assert isfinite(first)
    assert isfinite(last)
    assert last != first, "the weights moved"
