"""The evidence: exact p-values for any decoder, in both forms, and nobody by default."""

import math
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalefp.attribution.evidence import (
    FORMS,
    LEVELS,
    IssuedKeys,
    Reading,
    attribute,
    attribute_each,
    log_p_hard,
    log_p_soft,
    matches_needed,
    soft_weights,
)
from scalefp.attribution.tails import weighted_tail
from scalefp.errors import UntrustedRegistryError, UserError
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
        return IssuedKeys(packed, holders)

    def confirm(self, issued, indices):
        """There is no log to compare with."""


def random_bits(seed, *shape):
    return np.random.default_rng(seed).integers(0, 2, shape, dtype=np.uint8)


def reading_of(bits, **options):
    return Reading(2.0 * np.atleast_2d(bits) - 1.0, **options)


def all_keys(n_bits):
    """Every key there is, bits [2^n, n]."""
    return (np.arange(2**n_bits)[:, None] >> np.arange(n_bits) & 1).astype(np.uint8)


# -- The p-value of one key ------------------------------------------------------------------------


LOG_P = {"hard": log_p_hard, "soft": log_p_soft}
finite = st.floats(-1e300, 1e300) | st.sampled_from([0.0, 1.0, -1.0, 5.0, 5e-324])


@pytest.mark.parametrize("form", FORMS)
@given(st.integers(8, 10).flatmap(lambda n: st.lists(finite, min_size=n, max_size=n)))
def test_p_is_exact_over_all_keys_whatever_was_read(form, logits):
    # The definition of a p-value: of all keys there are, a share of exactly p gets p or less.
    p = np.exp(LOG_P[form](np.array([logits]), all_keys(len(logits))))
    share = (p[None] <= p[:, None] * (1 + 1e-12)).mean(axis=1)
    np.testing.assert_allclose(share, p, rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_bits", [128, 256])
def test_p_of_random_keys_is_uniform(form, n_bits):
    rng = np.random.default_rng(0)
    logits = rng.standard_t(2, (1, n_bits)) + 3  # heavy tails, and every bit leans to 1
    p = np.exp(LOG_P[form](logits, rng.integers(0, 2, (40_000, n_bits), dtype=np.uint8)))
    for level in (0.5, 0.1, 0.01, 0.001):
        share, sigma = (p <= level).mean(), math.sqrt(level * (1 - level) / len(p))
        assert share <= level + 4 * sigma
        if form == "soft":  # so fine a scale that hardly anything is lost
            assert share >= 0.95 * level - 4 * sigma


def test_soft_p_equals_counting_signs_at_twenty_bits():
    rng = np.random.default_rng(3)
    logits, key = rng.normal(size=(1, 20)), rng.integers(0, 2, (1, 20), dtype=np.uint8)
    scores = (2.0 * all_keys(20) - 1) @ (np.sign(logits) * soft_weights(logits))[0]
    own = (2.0 * key[0] - 1) @ (np.sign(logits) * soft_weights(logits))[0]
    assert math.exp(log_p_soft(logits, key)[0]) == pytest.approx((scores >= own).mean(), rel=1e-12)


@given(st.integers(8, 512), st.integers(0, 2**32 - 1))
def test_equally_sure_bits_make_both_forms_the_same(n_bits, seed):
    bits, key = random_bits(seed, 3, n_bits), random_bits(seed + 1, 3, n_bits)
    logits = (2.0 * bits - 1) * 3.7
    np.testing.assert_allclose(log_p_soft(logits, key), log_p_hard(logits, key), atol=1e-11)


def test_everything_right_is_two_to_the_minus_n():
    bits = random_bits(0, 1, 512)
    assert log_p_hard(2.0 * bits - 1, bits)[0] == -512 * math.log(2)
    assert log_p_soft(2.0 * bits - 1, bits)[0] == pytest.approx(-512 * math.log(2), rel=1e-12)


def test_p_values_are_computed_row_by_row():
    rng = np.random.default_rng(0)
    logits, bits = rng.normal(size=(4, 64)), random_bits(1, 4, 64)
    for log_p in LOG_P.values():
        each = [log_p(logits[i : i + 1], bits[i : i + 1])[0] for i in range(4)]
        assert log_p(logits, bits).tolist() == each
        one_reading = [log_p(logits[:1], bits[i : i + 1])[0] for i in range(4)]
        assert log_p(logits[:1], bits).tolist() == one_reading
        one_key = [log_p(logits[i : i + 1], bits[:1])[0] for i in range(4)]
        assert log_p(logits, bits[:1]).tolist() == one_key
        with pytest.raises(UserError, match=r"both be \[rows, n\]"):
            log_p(logits[0], bits[0])


def test_weights_grow_with_the_logit_up_to_the_clip():
    logits = np.array([[0.0, 0.1, -1.0, 2.0, -100.0, 0.5, 1.0, -0.1]])
    weights = soft_weights(logits)[0]
    order = np.argsort(np.abs(logits[0]))
    assert (np.diff(weights[order]) >= 0).all()
    assert weights[0] == 0 and weights[4] == LEVELS
    # One bit of a hundred times the logit counts like a few of the others, not like a hundred.
    one_sure = soft_weights(np.array([[100.0] + [1.0] * 127]))[0]
    assert 1 < one_sure.max() / one_sure.min() < 3


@given(st.lists(st.floats(-50, 50), min_size=8, max_size=40), st.integers(-300, 300))
def test_weights_know_no_unit(logits, exponent):
    scaled = np.array([logits]) * 2.0**exponent
    kept = np.abs(scaled[0]) > 1e-290  # what underflows is no longer the same reading
    if kept.all():
        assert np.array_equal(soft_weights(scaled), soft_weights(np.array([logits])))


# -- Attribution -----------------------------------------------------------------------------------


def test_the_owner_is_named_with_the_exact_p_value():
    keys = random_bits(0, 1000, 128)
    bits = keys[637].copy()
    bits[:20] ^= 1
    [named] = attribute(reading_of(bits, model_digest=DIGEST), FakeRegistry(keys), form="hard")
    assert (named.holder, named.matches, named.effective_bits) == ("holder-637", 108, 128)
    assert named.key == Key.from_bits(keys[637])
    tail = sum(Fraction(math.comb(128, m), 2**128) for m in range(108, 129))
    assert named.p_value == pytest.approx(float(1000 * tail), rel=1e-15)
    assert str(named.key) not in repr(named)
    # Equally sure bits: the soft form says the same, but for a rounding to the safe side.
    [soft] = attribute(reading_of(bits), FakeRegistry(keys))
    assert named.p_value <= soft.p_value <= named.p_value * (1 + 2e-12)
    assert (soft.holder, soft.matches, soft.effective_bits) == ("holder-637", 108, 128)


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
    # What three instances made together: the bits of one key, then another's, then a third's.
    keys = random_bits(0, 50, 512)
    read = np.concatenate([keys[30, :230], keys[20, 230:380], keys[10, 380:]])
    named = attribute(reading_of(read), FakeRegistry(keys), fpr=1e-3)
    assert [a.holder for a in named] == ["holder-30", "holder-20", "holder-10"]
    assert [a.matches for a in named] == (keys == read).sum(axis=1)[[30, 20, 10]].tolist()
    assert named[0].p_value < named[1].p_value < named[2].p_value


@pytest.mark.parametrize("form", FORMS)
def test_two_keys_too_near_to_be_drawn_name_nobody(form):
    keys = random_bits(0, 50, 128)
    for distance in (1, 2, 10, 20):
        keys[20] = keys[30]
        keys[20, :distance] ^= 1
        with pytest.raises(UntrustedRegistryError, match=f"differ in only {distance} of 128"):
            attribute(reading_of(keys[30]), FakeRegistry(keys), form=form)
    # Nor if each is named for another image of one question; and no holder is named in the error.
    both = Reading(2.0 * keys[[20, 30]] - 1)
    with pytest.raises(UntrustedRegistryError, match="nobody is named") as error:
        attribute_each(list(both), FakeRegistry(keys), 1e-30)
    assert "holder-" not in str(error.value)
    # With an image of somebody else's instance there is no doubt.
    assert len(attribute(reading_of(keys[5]), FakeRegistry(keys), form=form)) == 1


def test_short_keys_may_be_near():
    keys = all_keys(8)[:3]  # 0, 1, 2: one or two bits apart
    named = attribute(reading_of(keys[0]), FakeRegistry(keys), fpr=0.9)
    assert [one.matches for one in named] == [8, 7, 7]


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


def test_soft_names_the_owner_where_hard_sees_nobody():
    # A third of the bits is noise, and the decoder knows it: 101 matches are too few by count.
    keys, rng = random_bits(0, 1000, 128), np.random.default_rng(5)
    logits = 4 * (2.0 * keys[77] - 1) + rng.normal(size=128)
    logits[:48] = rng.normal(scale=0.5, size=48)
    reading, registry = Reading(logits[None]), FakeRegistry(keys)
    assert attribute(reading, registry, 1e-16, form="hard") == []
    [named] = attribute(reading, registry, 1e-16)
    assert named.holder == "holder-77" and 75 < named.effective_bits < 95


def test_colluders_are_both_named_and_nobody_else():
    # The average of two: where their bits differ, the logits are near 0 and only noise is read.
    keys, rng = random_bits(0, 5000, 128), np.random.default_rng(1)
    logits = 3 * (2.0 * keys[10] - 1) + 3 * (2.0 * keys[20] - 1) + rng.normal(size=128)
    named = attribute(Reading(logits[None]), FakeRegistry(keys))
    assert {one.holder for one in named} == {"holder-10", "holder-20"}
    assert all(one.margin > 20 for one in named)


@pytest.mark.parametrize("form", FORMS)
def test_margin_is_the_evidence_beyond_the_best_key_that_is_not_named(form):
    keys, rng = random_bits(0, 300, 128), np.random.default_rng(1)
    logits = 3 * (2.0 * keys[10] - 1) + rng.normal(scale=2, size=128)
    keys[20] = keys[10]
    keys[20, ::4] ^= 1  # as near as drawn keys may well be
    named = attribute(Reading(logits[None]), FakeRegistry(keys), 0.01, form=form)
    assert {one.holder for one in named} == {"holder-10", "holder-20"}
    bits = -LOG_P[form](logits[None], keys) / math.log(2)
    second = max(np.delete(bits, [10, 20]))
    for one in named:
        index = int(one.holder.removeprefix("holder-"))
        assert one.margin == pytest.approx(bits[index] - second, rel=1e-9)
        assert one.p_value == pytest.approx(300 * 2.0 ** -bits[index], rel=1e-9)
        assert one.matches == ((logits > 0) == keys[index]).sum()


@pytest.mark.parametrize("form", FORMS)
def test_without_another_key_the_margin_is_the_evidence(form):
    keys = random_bits(0, 1, 128)
    [named] = attribute(reading_of(keys[0]), FakeRegistry(keys), form=form)
    assert named.margin == pytest.approx(128) and named.effective_bits == 128


def test_bits_that_were_not_read_are_no_evidence():
    keys = random_bits(0, 100, 128)
    logits = 2.0 * keys[4] - 1
    logits[:64] = 0
    [named] = attribute(Reading(logits[None]), FakeRegistry(keys))
    assert named.effective_bits == 64
    assert named.p_value == pytest.approx(100 * 2.0**-64, rel=1e-9)
    assert attribute(Reading(np.zeros((1, 128))), FakeRegistry(keys)) == []


@pytest.mark.parametrize("form", FORMS)
def test_sources_attributed_together_are_answered_as_if_alone(form):
    keys, rng = random_bits(0, 2000, 128), np.random.default_rng(1)
    logits = (2.0 * keys[:20] - 1) + rng.normal(scale=1.7, size=(20, 128))
    registry, readings = FakeRegistry(keys), list(Reading(logits))
    together = attribute_each(readings, registry, form=form)
    assert together == [attribute(one, registry, form=form) for one in readings]
    assert 0 < sum(map(len, together)) < 20
    assert attribute_each([], registry) == []


DECODERS = {
    "all ones": lambda rng, n: np.ones(n),
    "one bit copied": lambda rng, n: np.full(n, rng.normal()),
    "all ties": lambda rng, n: np.zeros(n),
    "two halves, opposite": lambda rng, n: np.repeat(rng.normal() * np.array([1, -1]), n // 2),
    "same structured key": lambda rng, n: np.tile([1.0, -1.0], n // 2),
    "a few sure bits": lambda rng, n: np.where(rng.random(n) < 0.5, 10.0, 0.1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS.keys())
def test_error_rate_holds_for_decoders_with_dependent_bits(decode, form):
    # The exact chance of naming anybody among 20 innocent keys is known: 1 - (1 - tail)^20.
    n_bits, issued, fpr, trials = 16, 20, 0.1, 600
    rng = np.random.default_rng(0)
    named, exact = 0, []
    for _ in range(trials):
        logits = decode(rng, n_bits)[None]
        tails = weighted_tail(soft_weights(logits)[0] if form == "soft" else np.ones(n_bits, int))
        tail = max(tails[issued * tails <= fpr], default=0)
        exact.append(1 - (1 - tail) ** issued)
        registry = FakeRegistry(rng.integers(0, 2, (issued, n_bits), dtype=np.uint8))
        named += bool(attribute(Reading(logits), registry, fpr, form=form))
    assert max(exact) <= fpr
    sigma = math.sqrt(sum(chance * (1 - chance) for chance in exact)) + 1e-9
    assert abs(named - sum(exact)) < 4 * sigma


# -- Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fpr", [0, 1, -1e-6, 2, math.nan])
def test_fpr_must_be_a_probability(fpr):
    with pytest.raises(UserError, match="fpr is a probability between 0 and 1"):
        attribute(reading_of(random_bits(0, 128)), FakeRegistry(random_bits(1, 3, 128)), fpr)


def test_the_form_is_one_of_two():
    with pytest.raises(UserError, match="one of soft, hard, not 'medium'"):
        attribute(
            reading_of(random_bits(0, 128)), FakeRegistry(random_bits(1, 3, 128)), form="medium"
        )


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
