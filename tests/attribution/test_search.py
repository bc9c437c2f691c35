"""Exact search: the keys that comparing bit by bit finds, in memory that does not grow."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalefp.attribution.search import CHUNK, Query, count_matches, runners_up, search


def random_bits(seed, *shape):
    return np.random.default_rng(seed).integers(0, 2, shape, dtype=np.uint8)


def plain_scores(query, keys):
    """The definition: the weight of the bits that agree."""
    return ((keys == query.bits) * query.weights).sum(axis=1)


def check(query, keys, threshold):
    """Search and runner-up equal the definition, with the best first and ties in order."""
    packed, scores = np.packbits(keys, axis=1), plain_scores(query, keys)
    [found] = search([query], packed, [threshold])
    expected = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= threshold]
    assert found.indices.tolist() == expected
    assert found.scores.tolist() == scores[expected].tolist()
    below = scores[scores < threshold]
    assert runners_up([query], packed, [threshold]) == [max(below, default=-1)]
    return found


queries = st.integers(8, 512).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.integers(0, 100), min_size=n, max_size=n).filter(any),
        st.integers(1, 40),
        st.integers(0, 2**32 - 1),
        st.floats(0, 1.1),
    )
)


@given(queries)
def test_search_equals_comparing_bit_by_bit(drawn):
    n_bits, weights, n_keys, seed, share = drawn
    query = Query(random_bits(seed, n_bits), np.array(weights))
    check(query, random_bits(seed + 1, n_keys, n_bits), int(share * sum(weights)))


@given(st.integers(8, 512), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_counting_matches_equals_comparing_bits(n_bits, issued, seed):
    keys, bits = random_bits(seed, issued, n_bits), random_bits(seed + 1, n_bits)
    expected = (keys == bits).sum(axis=1)
    assert count_matches(bits, np.packbits(keys, axis=1)).tolist() == expected.tolist()


@pytest.mark.parametrize("n_bits", [24, 64, 128])
@pytest.mark.parametrize("highest", [1, 2, 15])
def test_search_is_right_across_chunks(n_bits, highest):
    keys = random_bits(0, 2 * CHUNK + 5, n_bits)
    query = Query(random_bits(1, n_bits), np.random.default_rng(2).integers(0, highest + 1, n_bits))
    scores = plain_scores(query, keys)
    for hits in (0, 3, 2000):  # none, a few, and enough to look at closely more than once
        threshold = int(np.sort(scores)[::-1][hits - 1]) if hits else int(query.weights.sum()) + 1
        assert len(check(query, keys, threshold).indices) >= hits
    assert np.array_equal(count_matches(query.bits, np.packbits(keys, axis=1)),
                          (keys == query.bits).sum(axis=1))  # fmt: skip


def test_every_key_may_be_found():
    keys = random_bits(0, CHUNK + 300, 16)
    found = check(Query(random_bits(1, 16), np.arange(16)), keys, 0)
    assert len(found.indices) == len(keys)


def test_a_key_whose_words_differ_unevenly_is_found():
    # All that it may differ by is in one of its two words; the other is the query's.
    keys = random_bits(0, 3 * CHUNK, 128)
    query = Query(random_bits(1, 128), np.ones(128, int))
    keys[[7, 2 * CHUNK]] = query.bits
    keys[7, :20] ^= 1
    keys[2 * CHUNK, 64:84] ^= 1
    assert check(query, keys, 108).indices.tolist() == [7, 2 * CHUNK]
    assert check(query, keys, 109).indices.tolist() == []


def test_queries_searched_together_are_answered_as_if_alone():
    keys, rng = random_bits(0, CHUNK + 9, 100), np.random.default_rng(1)
    packed = np.packbits(keys, axis=1)
    batch = [Query(keys[i].copy(), rng.integers(0, 16, 100)) for i in range(5)]
    thresholds = [int(query.weights.sum() * 0.7) for query in batch]
    together = search(batch, packed, thresholds)
    for query, threshold, found in zip(batch, thresholds, together, strict=True):
        [alone] = search([query], packed, [threshold])
        assert np.array_equal(alone.indices, found.indices)
        assert np.array_equal(alone.scores, found.scores)
    each = [runners_up([q], packed, [t])[0] for q, t in zip(batch, thresholds, strict=True)]
    assert runners_up(batch, packed, thresholds) == each


def test_equal_keys_come_in_order_of_issue():
    keys = random_bits(0, 50, 32)
    keys[[40, 3, 17]] = keys[9]
    found = check(Query(keys[9], np.ones(32, int)), keys, 32)
    assert found.indices.tolist() == [3, 9, 17, 40]


def test_keys_may_lie_in_a_memory_mapped_file(tmp_path):
    keys = random_bits(0, CHUNK + 77, 128)
    np.packbits(keys, axis=1).tofile(tmp_path / "keys")
    mapped = np.memmap(tmp_path / "keys", np.uint8, "r", shape=(len(keys), 16))
    query = Query(keys[CHUNK + 5], np.ones(128, int))
    [found] = search([query], mapped, [100])
    assert found.indices.tolist() == [CHUNK + 5] and found.scores.tolist() == [128]
    assert type(found.indices) is np.ndarray


def test_memory_does_not_grow_with_the_number_of_keys():
    packed = np.random.default_rng(0).integers(0, 256, (1 << 20, 16), dtype=np.uint8)
    rng = np.random.default_rng(1)
    query = Query(random_bits(2, 128), rng.integers(0, 16, 128))
    threshold = int(query.weights.sum() * 0.8)
    tracemalloc.start()
    try:
        search([query], packed, [threshold])
        runners_up([query], packed, [threshold])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < packed.nbytes / 8
