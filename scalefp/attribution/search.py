"""Exact search of all issued keys for those that agree best with readings, hard or soft.

Shapes: n key bits, N keys, w = ceil(n / 8) bytes of a packed key, k = ceil(n / 64) machine words of
it, m keys of a chunk.

A query is the bits read and a whole-numbered weight for each; the score of a key is the weight of
the bits that agree, so the total weight less that of the bits that differ. The latter is counted a
machine word at a time: with the weights in binary, it is the sum over the digits j of 2^j times the
number of differing bits whose weight has the digit. If all weights are 1 (the hard form) that is
one count for each word, and weights up to 15 take four. But the highest digit alone already bounds
the score from above, and the others are looked at only for the few keys that can still reach the
threshold, so that both forms search at much the same speed.

One pass over the packed keys serves all queries. A chunk comes from memory, or from a memory-mapped
file, once, and nothing of the size of N is kept. Standard library and numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 15  # keys a pass: they and the temporaries stay within the processor's cache
TILE = 256  # keys that one numpy loop covers; CHUNK is a multiple of it
WORD_BYTES = 8

Words = NDArray[np.uint64]  # [m, k]


class Query(NamedTuple):
    """What to look for."""

    bits: NDArray[np.uint8]  # [n], as read
    weights: NDArray[np.int64]  # [n], >= 0, less than 2^16 in sum


class Found(NamedTuple):
    """The keys that reach a query's threshold, best first, equal ones in order of issue."""

    indices: NDArray[np.int64]  # [h]
    scores: NDArray[np.int64]  # [h]


def to_words(packed: NDArray[np.uint8]) -> Words:
    """Packed keys [m, w] as machine words [m, k], zeros in the bytes behind the last."""
    missing = -packed.shape[1] % WORD_BYTES
    if missing:
        packed = np.pad(packed, ((0, 0), (0, missing)))
    words: Words = np.ascontiguousarray(packed).view(np.uint64)
    return words


def _chunks(packed: NDArray[np.uint8]) -> Iterator[tuple[int, Words]]:
    """(index of the first key, words) of every chunk."""
    for start in range(0, len(packed), CHUNK):
        yield start, to_words(np.asarray(packed[start : start + CHUNK]))


class _Prepared:
    """A query as machine words."""

    def __init__(self, query: Query) -> None:
        self.total = int(query.weights.sum())
        self.top = max(int(query.weights.max()).bit_length() - 1, 0)  # the highest digit
        self._bits = self._tiled(query.bits)
        self.n_words = len(self._bits) // TILE
        digits = [query.weights >> digit & 1 for digit in range(self.top + 1)]
        # Pad bits are zero on both sides and never differ, so full digits need no mask.
        self._masks = [None if digit.all() else self._tiled(digit) for digit in digits]
        self._counted = np.min_scalar_type(query.bits.size)  # holds any number of bits

    @staticmethod
    def _tiled(bits: NDArray[np.integer]) -> NDArray[np.uint64]:
        """One row of bits as words, repeated for TILE keys: [TILE k]."""
        return np.tile(to_words(np.packbits(bits.astype(np.uint8))[None])[0], TILE)

    def count(self, words: Words, digit: int) -> NDArray[np.unsignedinteger]:
        """How many bits of keys [m, k] differ and have the digit in their weight: per word [m k].

        One temporary array, changed in place: keeping the differing bits for the next digit takes a
        second one, and then the allocator gives memory back to the system and asks for it again.
        """
        n_keys, n_words = words.shape
        # numpy's loops run along the last axis, and are worth their overhead only if it is long.
        span = TILE * n_words if n_keys % TILE == 0 else n_words
        differing = words.reshape(-1, span) ^ self._bits[:span]
        mask = self._masks[digit]
        if mask is not None:
            differing &= mask[:span]
        counts: NDArray[np.unsignedinteger] = np.bitwise_count(differing)
        return counts.astype(self._counted, copy=False).reshape(-1)

    def by_key(self, counts: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
        """The counts of every word [m k], added up for each key [m]."""
        # A sum over so short an axis would take several times as long as adding the columns.
        total: NDArray[np.unsignedinteger] = reduce(np.add, counts.reshape(-1, self.n_words).T)
        return total

    def differing(self, words: Words) -> NDArray[np.uint16]:
        """Weight of the bits in which keys [m, k] differ from the query, [m]."""
        weight = np.zeros(len(words), np.uint16)
        for digit in range(self.top + 1):
            weight += self.by_key(self.count(words, digit)).astype(np.uint16) << digit
        return weight


class _Candidates:
    """Keys that may reach a query's threshold, looked at closely once there are enough of them."""

    def __init__(self, query: Query, threshold: int) -> None:
        self._query = _Prepared(query)
        self._most = self._query.total - threshold  # weight that may differ
        self._waiting: list[tuple[NDArray[np.int64], Words]] = []
        self._n_waiting = 0
        self._reached: list[Found] = []

    def look(self, start: int, words: Words) -> None:
        """Take in one chunk, the first key of which has this index."""
        if self._most < 0:
            return
        query = self._query
        counts = query.count(words, query.top)
        # The highest digit is no more than the whole weight, so what exceeds this can be left out.
        most = self._most >> query.top
        # A key within it has a word within its share.
        if counts.min() > most // query.n_words:
            return
        possible = np.flatnonzero(query.by_key(counts) <= most)
        if possible.size:
            self._waiting.append((start + possible, words[possible]))
            self._n_waiting += len(possible)
        if self._n_waiting >= CHUNK:
            self._settle()

    def _settle(self) -> None:
        indices = np.concatenate([indices for indices, _ in self._waiting])
        differing = self._query.differing(np.concatenate([words for _, words in self._waiting]))
        reached = differing <= self._most
        scores = self._query.total - differing[reached].astype(np.int64)
        self._reached.append(Found(indices[reached], scores))
        self._waiting.clear()
        self._n_waiting = 0

    def found(self) -> Found:
        """All that reached the threshold, best first."""
        if self._waiting:
            self._settle()
        nothing = Found(np.empty(0, np.int64), np.empty(0, np.int64))
        indices, scores = map(np.concatenate, zip(nothing, *self._reached, strict=True))
        order = np.argsort(-scores, kind="stable")
        return Found(indices[order], scores[order])


def search(
    queries: Sequence[Query], packed: NDArray[np.uint8], thresholds: Sequence[int]
) -> list[Found]:
    """Every key whose score reaches the threshold of a query.

    Args:
        queries: of n bits each.
        packed: every key, uint8 [N, w], most significant bit first, pad bits zero; an array or a
            ``numpy.memmap``.
        thresholds: for each query, the score at which a key is found.
    """
    candidates = [_Candidates(*pair) for pair in zip(queries, thresholds, strict=True)]
    for start, words in _chunks(packed):
        for one in candidates:
            one.look(start, words)
    return [one.found() for one in candidates]


def runners_up(
    queries: Sequence[Query], packed: NDArray[np.uint8], thresholds: Sequence[int]
) -> list[int]:
    """The highest score below the threshold of each query; -1 where all keys reach it.

    Arguments as for :func:`search`. Slower than that, because no key can be left out early.
    """
    if not queries:
        return []
    prepared = [_Prepared(query) for query in queries]
    best = [-1] * len(queries)
    for _, words in _chunks(packed):
        for number, (query, threshold) in enumerate(zip(prepared, thresholds, strict=True)):
            differing = query.differing(words)
            below = differing[differing > query.total - threshold]
            if below.size:
                best[number] = max(best[number], query.total - int(below.min()))
    return best


def count_matches(bits: NDArray[np.uint8], packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number of equal bits between one reading [n] and every packed key [N, w], int64 [N]."""
    query = _Prepared(Query(bits, np.ones(bits.size, np.int64)))
    matches = np.empty(len(packed), np.int64)
    for start, words in _chunks(packed):
        matches[start : start + len(words)] = bits.size - query.differing(words).astype(np.int64)
    return matches
