"""Keys too near to have been drawn: the bound by its definition, the search by all pairs."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalefp.attribution import near
from scalefp.attribution.near import find_near, near_distance


def chance(n_bits, pairs, distance):
    """That one of so many independent pairs is so near, at most."""
    return pairs * sum(Fraction(math.comb(n_bits, d), 2**n_bits) for d in range(distance + 1))


@pytest.mark.parametrize("n_bits", [8, 16, 40, 64, 128, 256, 512])
@pytest.mark.parametrize("issued", [2, 3, 1000, 10**6])
def test_the_bound_is_the_largest_that_chance_hardly_reaches(n_bits, issued):
    pairs = issued * (issued - 1) // 2
    distance = near_distance(n_bits, pairs)
    assert distance < 0 or chance(n_bits, pairs, distance) <= Fraction(1, 10**12)
    assert chance(n_bits, pairs, distance + 1) > Fraction(1, 10**12)


def test_bounds_a_person_can_check():
    assert near_distance(128, 1) == 25
    assert near_distance(128, 10**6 * (10**6 - 1) // 2) == 10
    assert near_distance(16, 1) == near_distance(8, 1) == -1  # near keys are no wonder there
    assert near_distance(40, 1) == 0 and near_distance(39, 1) == -1


def random_keys(seed, count, n_bits):
    return np.random.default_rng(seed).integers(0, 2, (count, n_bits), dtype=np.uint8)


@given(
    st.integers(8, 140), st.integers(0, 30), st.integers(2, 40), st.integers(0, 2**32 - 1),
    st.integers(0, 40),
)  # fmt: skip
def test_a_near_pair_is_found_wherever_its_differences_lie(n_bits, distance, count, seed, flips):
    rng = np.random.default_rng(seed)
    bits = random_keys(seed, count, n_bits)
    bits[0] = bits[-1]
    bits[0, rng.permutation(n_bits)[:flips]] ^= 1
    apart = (bits[:, None] != bits[None]).sum(axis=2)
    np.fill_diagonal(apart, n_bits + 1)
    found = find_near(np.packbits(bits, axis=1), n_bits, min(distance, n_bits - 1))
    if apart.min() > distance:
        assert found is None
    else:
        assert found is not None and found.first < found.second
        assert found.distance == apart[found.first, found.second] <= distance


def test_many_keys_with_one_block_alike_fill_no_memory(monkeypatch):
    monkeypatch.setattr(near, "PART", 64)
    bits = random_keys(0, 500, 64)
    bits[:, :48] = bits[0, :48]  # only 16 bits differ
    bits[:, 48:] = (np.arange(500)[:, None] * 67 >> np.arange(16)) & 1
    apart = (bits[:, None] != bits[None]).sum(axis=2) + 64 * np.eye(500, dtype=int)
    found = find_near(np.packbits(bits, axis=1), 64, int(apart.min()))
    assert found is not None and found.distance == apart.min()
    assert find_near(np.packbits(bits, axis=1), 64, int(apart.min()) - 1) is None


def test_drawn_keys_are_not_taken_for_planted_ones():
    bits = random_keys(1, 20_000, 128)
    packed = np.packbits(bits, axis=1)
    distance = near_distance(128, 20_000 * 19_999 // 2)
    assert find_near(packed, 128, distance) is None
    planted = bits[7].copy()
    planted[np.random.default_rng(0).permutation(128)[:distance]] ^= 1
    with_one = np.concatenate([packed, np.packbits(planted)[None]])
    assert find_near(with_one, 128, distance) == (7, 20_000, distance)


def test_what_cannot_be_compared_in_time_is_compared_as_far_as_time_allows(monkeypatch):
    monkeypatch.setattr(near, "WORK", 1e4)
    bits = random_keys(2, 300, 128)
    bits[5], bits[6] = bits[200], bits[200]
    bits[6, 3] ^= 1
    bits[5, :15] ^= 1
    assert find_near(np.packbits(bits, axis=1), 128, 20) == (6, 200, 1)
