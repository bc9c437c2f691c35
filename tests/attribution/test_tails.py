"""Tails of fair coins: exact where they can be counted, never too small where they are rounded."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from scalefp.attribution.evidence import log_binomial_tail, matches_needed, p_value
from scalefp.attribution.tails import weighted_tail
from scalefp.errors import UserError

# -- Binomial tails --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bits", range(1, 13))
def test_tail_equals_counting_all_outcomes(n_bits):
    heads = [sum(outcome) for outcome in itertools.product((0, 1), repeat=n_bits)]
    for matches in range(n_bits + 1):
        exact = Fraction(sum(h >= matches for h in heads), 2**n_bits)
        assert math.exp(log_binomial_tail(n_bits, matches)) == pytest.approx(
            float(exact), rel=1e-15
        )
        assert p_value(n_bits, 1, matches) == float(exact)


@pytest.mark.parametrize("n_bits", [8, 31, 32, 48, 64, 100, 128, 255, 256, 511, 512])
def test_tail_equals_scipy(n_bits):
    matches = np.arange(n_bits + 1)
    expected = scipy.stats.binom.logsf(matches - 1, n_bits, 0.5)
    ours = log_binomial_tail(n_bits, matches)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-15)
    assert np.all(np.diff(ours) <= 0) and np.all(ours <= 0)


@pytest.mark.parametrize(("n_bits", "matches"), [(128, 103), (512, 300), (512, 511), (512, 10)])
def test_tail_equals_exact_fractions_on_both_sides(n_bits, matches):
    tail = sum(Fraction(math.comb(n_bits, m), 2**n_bits) for m in range(matches, n_bits + 1))
    # Series of log(1 - x) where the tail is one but for a tiny x: a plain log would lose it.
    rest = 1 - tail
    exact = -float(rest) if rest < Fraction(1, 10**30) else math.log(tail)
    assert log_binomial_tail(n_bits, matches) == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize("n_bits", [1, 8, 128, 256, 512])
def test_all_bits_matching_is_two_to_the_minus_n(n_bits):
    assert log_binomial_tail(n_bits, n_bits) == -n_bits * math.log(2)
    assert p_value(n_bits, 1, n_bits) == 2.0**-n_bits > 0


def test_tail_is_vectorised_and_ends_properly():
    tails = log_binomial_tail(16, np.array([[-3, 0, 1], [16, 17, 99]]))
    assert tails.shape == (2, 3) and tails.dtype == np.float64
    assert tails[0, 0] == tails[0, 1] == 0
    assert tails[0, 2] == pytest.approx(-(2.0**-16), rel=1e-4)
    assert tails[1].tolist() == [-16 * math.log(2), -math.inf, -math.inf]


def test_tail_refuses_what_it_cannot_tabulate():
    with pytest.raises(UserError, match="1 to 512 bits, not 513"):
        log_binomial_tail(513, 1)
    with pytest.raises(UserError, match="1 to 512 bits, not 0"):
        log_binomial_tail(0, 0)
    with pytest.raises(UserError, match="whole numbers, not float64"):
        log_binomial_tail(128, 1.5)


@pytest.mark.parametrize(
    ("n_bits", "needed"),  # for N = 1, 1e5, 1e6, 1e9, 8e9 keys at fpr 1e-6: the published table
    [
        (32, [30, None, None, None, None]),
        (48, [41, 46, 47, None, None]),
        (64, [51, 58, 59, 62, 62]),
        (128, [92, 102, 103, 108, 109]),
    ],
)
def test_matches_needed_equals_the_published_thresholds(n_bits, needed):
    issued = [1, 10**5, 10**6, 10**9, 8 * 10**9]
    assert [matches_needed(n_bits, count, 1e-6) for count in issued] == needed


@given(st.integers(8, 512), st.integers(1, 10**9), st.floats(1e-12, 0.5))
def test_matches_needed_is_the_first_count_that_passes(n_bits, issued, fpr):
    needed = matches_needed(n_bits, issued, fpr)
    if needed is None:
        assert p_value(n_bits, issued, n_bits) > fpr
    else:
        assert p_value(n_bits, issued, needed) <= fpr < p_value(n_bits, issued, needed - 1)


# -- Weighted tails --------------------------------------------------------------------------------


def true_tail(weights):
    """[sum + 1] whole numbers: in how many of the 2^n outcomes the score is at least s."""
    outcomes = [1]
    for weight in weights:
        outcomes = [
            (outcomes[s] if s < len(outcomes) else 0) + (outcomes[s - weight] if s >= weight else 0)
            for s in range(len(outcomes) + weight)
        ]
    return list(itertools.accumulate(reversed(outcomes)))[::-1]


@given(st.lists(st.integers(0, 9), max_size=10))
def test_weighted_tail_equals_counting_all_outcomes(weights):
    weights = np.array(weights, int)
    coins = np.array(list(itertools.product((0, 1), repeat=len(weights))), int)
    scores = coins.reshape(2 ** len(weights), len(weights)) @ weights
    exact = [(scores >= s).mean() for s in range(weights.sum() + 1)]
    assert weighted_tail(weights).tolist() == exact


def test_weighted_tail_of_twenty_bits_equals_counting_a_million_outcomes():
    weights = np.random.default_rng(0).integers(0, 16, 20)
    scores = np.zeros(1, int)
    for weight in weights:
        scores = np.concatenate([scores, scores + weight])
    counts = np.bincount(scores)
    assert len(scores) == 2**20
    assert np.array_equal(weighted_tail(weights), counts[::-1].cumsum()[::-1] / 2**20)


@pytest.mark.parametrize(("n_bits", "highest"), [(53, 15), (54, 15), (128, 1), (128, 15), (256, 3)])
def test_weighted_tail_is_never_below_the_true_one_and_hardly_above(n_bits, highest):
    weights = np.random.default_rng(n_bits).integers(1, highest + 1, n_bits)
    ours = weighted_tail(weights)
    for s, outcomes in enumerate(true_tail(weights.tolist())):
        exact = Fraction(outcomes, 2**n_bits)
        assert exact <= Fraction(float(ours[s])) <= exact * (1 + Fraction(2, 10**12))


@pytest.mark.parametrize("n_bits", [1, 53, 64, 128, 256, 512])
def test_equal_weights_give_the_binomial_tail(n_bits):
    tail = weighted_tail(np.ones(n_bits, int))
    exact = [p_value(n_bits, 1, matches) for matches in range(n_bits + 1)]
    np.testing.assert_allclose(tail, exact, rtol=2e-12)
    assert tail[0] == 1 and tail[-1] >= 2.0**-n_bits > 0


def test_nothing_underflows_at_512_bits_of_the_highest_weight():
    tail = weighted_tail(np.full(512, 15))
    assert np.log2(tail[-1]) == pytest.approx(-512)
    assert (np.diff(tail) <= 0).all() and len(tail) == 512 * 15 + 1


def test_weighted_tail_equals_simulation():
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 16, 128)
    draws = 50_000
    scores = rng.integers(0, 2, (draws, 128)) @ weights
    for s in np.quantile(scores, [0.1, 0.5, 0.9, 0.99, 0.999]).astype(int):
        exact = weighted_tail(weights)[s]
        sigma = math.sqrt(exact * (1 - exact) / draws)
        assert abs((scores >= s).mean() - exact) < 4 * sigma


def test_coins_without_weight_do_not_count():
    assert weighted_tail(np.zeros(128, int)).tolist() == [1.0]
    assert weighted_tail(np.array([], int)).tolist() == [1.0]
    assert weighted_tail(np.array([0, 3, 0])).tolist() == [1.0, 0.5, 0.5, 0.5]
