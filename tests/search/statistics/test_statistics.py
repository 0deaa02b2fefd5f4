import numpy as np
import pytest

from archdsl.search.statistics.correlations import correlate, ranks, spearman


def test_a_perfect_order_has_tau_one_and_no_width():
    found = correlate([1, 2, 3, 4, 5], [10, 20, 30, 40, 50])
    assert found.tau == pytest.approx(1)
    assert found.rho == pytest.approx(1)
    assert found.high == pytest.approx(1)
    assert found.n == 5


def test_tau_b_counts_ties_as_the_textbook_does():
    # 10 pairs: 7 concordant, 1 discordant, one tie in each sequence
    x, y = [1, 2, 2, 3, 4], [1, 2, 4, 3, 3]
    concordant, discordant = 0, 0
    for i in range(5):
        for j in range(i):
            sign = np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])
            concordant, discordant = concordant + (sign > 0), discordant + (sign < 0)
    expected = (concordant - discordant) / np.sqrt((10 - 1) * (10 - 1))
    assert correlate(x, y).tau == pytest.approx(expected)


def test_the_interval_holds_the_value_and_narrows_with_more_pairs():
    random = np.random.default_rng(0)

    def width(n):
        x = random.normal(size=n)
        found = correlate(x, x + random.normal(size=n))
        assert found.low < found.tau < found.high
        return found.high - found.low

    assert width(200) < width(15)


def test_no_order_is_no_correlation():
    assert correlate([1, 1, 1], [1, 2, 3]) is None
    assert correlate([1, 2], [1, 2]) is None


def test_tied_ranks_share_their_mean():
    np.testing.assert_array_equal(ranks(np.array([5.0, 1.0, 5.0])), [1.5, 0.0, 1.5])
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1)


def test_the_same_data_gives_the_same_interval():
    x, y = list(range(10)), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    assert correlate(x, y) == correlate(x, y)
