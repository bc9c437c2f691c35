"""What was read: logits to bits, pooling, and sorting images by what they agree on."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from scalefp.attribution.reading import Reading, group_by_agreement
from scalefp.errors import UserError

DIGEST = "ab" * 32


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


# -- Grouping --------------------------------------------------------------------------------------


def noisy(bits, images, noise, seed):
    """Logits of images of one source: 2 towards each bit, and Gaussian noise."""
    rng = np.random.default_rng(seed)
    return 2 * (2.0 * bits - 1) + rng.normal(scale=noise, size=(images, bits.size))


@pytest.fixture
def keys():
    return np.random.default_rng(7).integers(0, 2, (5, 128), dtype=np.uint8)


def test_images_are_grouped_by_the_source_they_come_from(keys):
    logits = np.concatenate([noisy(key, 6, 2.0, seed) for seed, key in enumerate(keys)])
    order = np.random.default_rng(1).permutation(len(logits))
    groups = group_by_agreement(Reading(logits[order]))
    assert sorted(len(group) for group in groups) == [6] * 5
    assert all(len({order[image] // 6 for image in group}) == 1 for group in groups)
    assert groups == sorted(groups) and all(group == sorted(group) for group in groups)


def test_unsure_images_join_the_group_that_sure_ones_have_founded(keys):
    sure, unsure = noisy(keys[0], 4, 0.5, 0), noisy(keys[0], 8, 4.0, 1)  # 69% of the bits right
    assert group_by_agreement(Reading(np.concatenate([unsure, sure]))) == [list(range(12))]


def test_unrelated_images_stay_apart():
    logits = np.random.default_rng(0).normal(size=(100, 128))
    groups = group_by_agreement(Reading(logits))
    # 4,950 pairs, each joined with a probability of at most a thousandth over the groups so far.
    assert len(groups) >= 99 and sorted(sum(groups, [])) == list(range(100))


def test_grouping_looks_at_signs_and_not_at_the_unit(keys):
    logits = np.concatenate([noisy(key, 3, 2.0, seed) for seed, key in enumerate(keys)])
    assert group_by_agreement(Reading(logits * 1e200)) == group_by_agreement(Reading(logits))


def test_images_without_a_decided_bit_are_groups_of_their_own():
    assert group_by_agreement(Reading(np.zeros((3, 128)))) == [[0], [1], [2]]
    assert group_by_agreement(Reading(np.ones((1, 8)))) == [[0]]


def test_taking_images_keeps_their_order_and_release(keys):
    reading = Reading(noisy(keys[0], 4, 1.0, 0), DIGEST)
    taken = reading.take([2, 0])
    assert np.array_equal(taken.logits, reading.logits[[2, 0]]) and taken.model_digest == DIGEST
