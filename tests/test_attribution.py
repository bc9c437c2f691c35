"""The evidence: exact tails, an error rate that holds for any decoder, and nobody by default."""

import itertools
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from scalefp.attribution import (
    CHUNK,
    IssuedKeys,
    Reading,
    attribute,
    count_matches,
    log_binomial_tail,
    matches_needed,
    p_value,
)
from scalefp.errors import UserError
from scalefp.key import Key

DIGEST = "ab" * 32


@dataclass
class FakeRegistry:
    """Issued keys in memory: what attribution asks of a registry, and nothing else."""

    keys: np.ndarray  # bits [N, n]
    model_digest: str | None = DIGEST

    @property
    def n_bits(self):
        return self.keys.shape[1]

    def keys_and_holders(self):
        holders = [f"holder-{index}" for index in range(len(self.keys))]
        packed = np.packbits(self.keys, axis=1)
        return IssuedKeys(packed, holders, np.zeros(len(holders), bool))


def random_bits(seed, *shape):
    return np.random.default_rng(seed).integers(0, 2, shape, dtype=np.uint8)


def reading_of(bits, **options):
    return Reading(2.0 * np.atleast_2d(bits) - 1.0, **options)


# -- Tails -----------------------------------------------------------------------------------------


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


# -- Readings --------------------------------------------------------------------------------------


def test_reading_gives_bits_keys_and_confidence():
    logits = np.array([[3.0, -3.0] * 4, [-1.0, 0.0] * 4])
    reading = Reading(logits, DIGEST)
    assert len(reading) == 2 and reading.n_bits == 8
    assert reading.bits.tolist() == [[1, 0] * 4, [0, 0] * 4]  # a logit of 0 reads as 0
    assert [str(key) for key in reading.keys] == ["aa", "00"]
    assert str(reading.key) == "aa"  # 3 - 1 > 0 and -3 + 0 < 0
    sigmoid = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(reading.confidence, (2 * np.abs(sigmoid - 0.5)).mean(axis=1))


def test_one_image_of_a_reading_keeps_its_logits_and_release():
    reading = Reading(np.random.default_rng(0).normal(size=(3, 16)), DIGEST)
    assert np.array_equal(reading[1].logits, reading.logits[1:2])
    assert reading[-1].keys == [reading.keys[2]]
    assert reading[0].model_digest == DIGEST
    assert [one.key for one in reading] == reading.keys
    with pytest.raises(IndexError):
        reading[3]


def test_pooling_adds_logits_so_a_sure_image_outvotes_two_unsure_ones():
    sure, unsure = np.full(8, 5.0), np.full(8, -1.0)
    reading = Reading(np.stack([sure, unsure, unsure]), DIGEST)
    assert str(reading.key) == "ff"
    pooled = reading.pooled()
    assert np.array_equal(pooled.logits, np.full((1, 8), 3.0)) and pooled.model_digest == DIGEST


def test_reading_is_frozen_and_owns_its_logits():
    logits = np.ones((1, 8), np.float32)
    reading = Reading(logits)
    logits[:] = -1
    assert reading.logits.dtype == np.float64 and str(reading.key) == "ff"
    with pytest.raises(ValueError, match="read-only"):
        reading.logits[0, 0] = -1
    with pytest.raises(FrozenInstanceError):
        reading.model_digest = "other"


def test_extreme_logits_do_not_overflow_the_confidence():
    assert Reading(np.full((1, 8), -1e300)).confidence.tolist() == [1.0]
    assert Reading(np.zeros((1, 8))).confidence.tolist() == [0.0]


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros(8), r"shape \[images, key bits\]"),
        (np.zeros((0, 8)), "at least one image"),
        (np.zeros((1, 7)), "8 to 512 bits, not 7"),
        (np.array([[0.0] * 8, [math.nan] * 8]), "not finite for image 1"),
        (np.full((1, 8), math.inf), "not finite for image 0"),
    ],
)
def test_wrong_logits_are_refused(logits, message):
    with pytest.raises(UserError, match=message):
        Reading(logits)


# -- Attribution -----------------------------------------------------------------------------------


@given(st.integers(8, 512), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_counting_matches_equals_comparing_bits(n_bits, issued, seed):
    keys, bits = random_bits(seed, issued, n_bits), random_bits(seed + 1, n_bits)
    expected = (keys == bits).sum(axis=1)
    assert count_matches(bits, np.packbits(keys, axis=1)).tolist() == expected.tolist()


def test_counting_matches_is_right_across_chunks():
    keys, bits = random_bits(0, 2 * CHUNK + 5, 24), random_bits(1, 24)
    assert np.array_equal(count_matches(bits, np.packbits(keys, axis=1)), (keys == bits).sum(1))


def test_the_owner_is_named_with_the_exact_p_value():
    keys = random_bits(0, 1000, 128)
    bits = keys[637].copy()
    bits[:20] ^= 1
    [named] = attribute(reading_of(bits, model_digest=DIGEST), FakeRegistry(keys))
    assert (named.holder, named.matches) == ("holder-637", 108)
    assert named.key == Key.from_bits(keys[637])
    tail = sum(Fraction(math.comb(128, m), 2**128) for m in range(108, 129))
    assert named.p_value == pytest.approx(float(1000 * tail), rel=1e-15)
    assert str(named.key) not in repr(named)


def test_the_threshold_is_sharp():
    keys = random_bits(0, 1000, 128)
    needed = matches_needed(128, 1000, 1e-6)
    bits = keys[3].copy()
    bits[: 128 - needed] ^= 1
    assert [a.holder for a in attribute(reading_of(bits), FakeRegistry(keys))] == ["holder-3"]
    bits[-1] ^= 1
    assert attribute(reading_of(bits), FakeRegistry(keys)) == []
    assert len(attribute(reading_of(bits), FakeRegistry(keys), fpr=1e-4)) == 1


def test_several_hits_come_best_first():
    keys = random_bits(0, 50, 128)
    keys[10], keys[20] = keys[30], keys[30]
    keys[10, :9] ^= 1
    keys[20, :3] ^= 1
    named = attribute(reading_of(keys[30]), FakeRegistry(keys))
    assert [a.holder for a in named] == ["holder-30", "holder-20", "holder-10"]
    assert [a.matches for a in named] == [128, 125, 119]
    assert named[0].p_value < named[1].p_value < named[2].p_value


def test_unrelated_readings_are_attributed_to_nobody():
    registry = FakeRegistry(random_bits(0, 20_000, 128))
    for bits in random_bits(1, 50, 128):
        assert attribute(reading_of(bits), registry) == []


def test_images_of_one_source_are_added_up():
    keys = random_bits(0, 100, 128)
    noise = np.random.default_rng(1).normal(scale=3, size=(16, 128))
    reading = Reading(2.0 * keys[5] - 1 + noise)  # each image alone reads about 63% of the bits
    assert [a.holder for a in attribute(reading, FakeRegistry(keys))] == ["holder-5"]
    assert all(attribute(one, FakeRegistry(keys)) == [] for one in reading)


def test_too_many_keys_for_their_length_always_means_nobody():
    keys = random_bits(0, 10_000, 32)
    assert attribute(reading_of(keys[0]), FakeRegistry(keys)) == []


DECODERS = {
    "all ones": lambda rng, n: np.ones(n),
    "one bit copied": lambda rng, n: np.full(n, rng.normal()),
    "all ties": lambda rng, n: np.zeros(n),
    "two halves, opposite": lambda rng, n: np.repeat(rng.normal() * np.array([1, -1]), n // 2),
    "same structured key": lambda rng, n: np.tile([1.0, -1.0], n // 2),
}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS.keys())
def test_error_rate_holds_for_decoders_with_dependent_bits(decode):
    # The exact chance of naming anybody among 20 innocent keys is known: 1 - (1 - tail)^20.
    n_bits, issued, fpr, trials = 16, 20, 0.1, 3000
    rng = np.random.default_rng(0)
    tail = p_value(n_bits, 1, matches_needed(n_bits, issued, fpr))
    exact = 1 - (1 - tail) ** issued
    named = 0
    for _ in range(trials):
        registry = FakeRegistry(rng.integers(0, 2, (issued, n_bits), dtype=np.uint8))
        named += bool(attribute(Reading(decode(rng, n_bits)[None]), registry, fpr))
    sigma = math.sqrt(exact * (1 - exact) / trials)
    assert exact <= fpr
    assert abs(named / trials - exact) < 4 * sigma


# -- Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fpr", [0, 1, -1e-6, 2, math.nan])
def test_fpr_must_be_a_probability(fpr):
    with pytest.raises(UserError, match="fpr is a probability between 0 and 1"):
        attribute(reading_of(random_bits(0, 128)), FakeRegistry(random_bits(1, 3, 128)), fpr)


def test_registry_of_another_release_is_refused():
    registry = FakeRegistry(random_bits(0, 3, 128), model_digest="cd" * 32)
    reading = reading_of(registry.keys[0], model_digest=DIGEST)
    with pytest.raises(UserError, match="this registry was issued for another release") as error:
        attribute(reading, registry)
    assert "cdcdcdcdcdcd" in str(error.value) and "abababababab" in str(error.value)


def test_unknown_digest_on_either_side_is_accepted():
    keys = random_bits(0, 3, 128)
    assert attribute(reading_of(keys[0], model_digest=DIGEST), FakeRegistry(keys, None))
    assert attribute(reading_of(keys[0]), FakeRegistry(keys))


def test_another_key_length_is_refused():
    with pytest.raises(UserError, match="holds 64-bit keys, but the decoder reads 128 bits"):
        attribute(reading_of(random_bits(0, 128)), FakeRegistry(random_bits(1, 3, 64)))


def test_evidence_imports_no_network():
    program = "import sys, scalefp.attribution, scalefp.registry; print('torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
