from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from archdsl.search.promotion import among_best, dominates, pareto_ranks, promoted, standings

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
