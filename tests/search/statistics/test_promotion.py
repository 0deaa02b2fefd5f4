from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archdsl.search.statistics.promotion import (
    among_best,
    dominates,
    foresight,
    pareto_ranks,
    promoted,
    standings,
    widened,
)

HALF, EIGHTH = Fraction(1, 2), Fraction(1, 8)
values = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


def test_the_first_one_goes_on_and_so_does_every_new_best():
    assert among_best(0.0, [], EIGHTH)
    assert among_best(1.0, [0.0], EIGHTH)
    assert not among_best(0.0, [1.0], EIGHTH)


def test_a_share_of_many():
    others = [float(n) for n in range(15)]
    assert among_best(13.5, others, EIGHTH)
    assert not among_best(12.5, others, EIGHTH)


def test_ties_go_on():
    assert among_best(1.0, [1.0] * 10, EIGHTH)


def test_over_a_stream_about_the_share_goes_on():
    import random

    draw = random.Random(0)
    seen, passed = [], 0
    for _ in range(800):
        value = draw.random()
        passed += among_best(value, seen, EIGHTH)
        seen.append(value)
    assert 90 <= passed <= 130


def test_pareto_rank_decides_before_the_first_objective():
    results = [(1.0, 0.0), (0.0, 1.0), (0.9, -1.0), (0.5, 0.5)]
    assert pareto_ranks(results) == [0, 0, 1, 0]
    assert standings(results) == [0, 2, 3, 1]
    assert promoted((0.0, 1.0), [(1.0, 0.0), (0.9, -1.0), (0.8, -2.0)], HALF)
    assert not promoted((0.9, -1.0), [(1.0, 0.0), (0.0, 1.0)], HALF)


def test_one_objective_is_ordered_by_it():
    assert standings([(3.0,), (1.0,), (2.0,), (3.0,)]) == [0, 2, 1, 0]


@given(values)
def test_rank_zero_is_what_nothing_dominates(results):
    for result, rank in zip(results, pareto_ranks(results), strict=True):
        assert (rank == 0) == (not any(dominates(other, result) for other in results))


@given(values)
def test_standings_respect_domination(results):
    places = standings(results)
    for i, one in enumerate(results):
        for j, other in enumerate(results):
            assert not dominates(one, other) or places[i] < places[j]


# --- what a stage foretells -----------------------------------------------------------------------


def test_what_foretells_nothing_cuts_nobody():
    assert widened(EIGHTH, 1.0) == widened(EIGHTH, None) == EIGHTH
    assert widened(HALF, 0.5) == Fraction(3, 4)
    assert widened(EIGHTH, 0.0) == widened(EIGHTH, -1.0) == 1


def test_foresight_is_the_rank_correlation_of_early_and_final_standings():
    final = [(float(n),) for n in range(10)]
    assert foresight(final, final) == pytest.approx(1)
    assert foresight(final[::-1], final) == pytest.approx(-1)
    swapped = [final[n + 1 - 2 * (n % 2)] for n in range(10)]
    assert foresight(swapped, final) == pytest.approx((45 - 2 * 5) / 45), (
        "5 of 45 pairs are swapped"
    )


def test_foresight_of_several_objectives_goes_by_pareto_rank():
    early = [(float(n), -1.0) for n in range(9)]
    final = [(float(n), float(n)) for n in range(9)]
    assert foresight(early, final) == pytest.approx(1)


@pytest.mark.parametrize("early", [[(1.0,)] * 10, [(1.0,), (2.0,), (3.0,)]], ids=["alike", "few"])
def test_no_foresight_is_claimed_without_evidence(early):
    assert foresight(early, [(float(n),) for n in range(len(early))]) is None


@given(st.lists(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1e-300, float("inf"), float("-inf")])))
def test_one_value_each_is_ordered_as_pareto_ranks_order_it(found):
    pairs = standings([(value, value) for value in found])
    assert standings([(value,) for value in found]) == pairs
