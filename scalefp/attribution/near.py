"""Keys that lie nearer to one another than chance allows: one of the two was planted.

Shapes: n key bits, N keys, w = ceil(n / 8) bytes of a packed key.

That an innocent key is named with no more than the stated probability rests on its being drawn at
random. Whoever can add a key of his choice to a registry, one bit from another holder's, has it
named beside that holder's. So near two random keys never lie: by the union bound, some pair among
so many differs in d bits or fewer with probability at most pairs * P[Binomial(n, 1/2) <= d].

Keys that lie unusually FAR apart harm nobody: a key agrees with no bit of its complement, so
neither is named for what the other's instance made.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scalefp.attribution.search import to_words
from scalefp.attribution.tails import matches_needed
from scalefp.errors import UntrustedRegistryError

CHANCE = 1e-12  # that drawn keys are taken for planted ones
MAX_WIDTH = 24  # bits of a block, for which tables are made
WORK = 2e8  # comparisons in a search: half a minute
PART = 1 << 21  # comparisons at once


class NearPair(NamedTuple):
    """Two keys, by their indices, first < second, and the number of bits in which they differ."""

    first: int
    second: int
    distance: int


def near_distance(n_bits: int, pairs: int) -> int:
    """Greatest distance at which one of so many pairs of drawn keys lies with a chance of 10^-12.

    For 128 bits it is 10 in a registry of 10^6 keys (5 * 10^11 pairs), and 25 for one pair. It is
    -1 if even equal keys are no wonder: keys of 16 bits may well differ in one bit only.
    """
    matches = matches_needed(n_bits, pairs, CHANCE)
    return -1 if matches is None else n_bits - matches


def _comparisons(count: int, n_bits: int, distance: int) -> float:
    """About how many keys :func:`find_near` compares."""
    blocks = distance // 2 + 1
    width = min(n_bits // blocks, MAX_WIDTH)
    return blocks * (1 + width / 2) * count**2 * 0.5 ** (width + 1)


def _block(packed: NDArray[np.uint8], start: int, width: int) -> NDArray[np.int64]:
    """Bits [start, start + width) of every key as a number, [N]."""
    end = start + width
    last = (end - 1) // 8
    value = np.zeros(len(packed), np.int64)
    for byte in range(start // 8, last + 1):
        value = (value << 8) | packed[:, byte]
    return (value >> (8 * (last + 1) - end)) & ((1 << width) - 1)


def find_near(packed: NDArray[np.uint8], n_bits: int, distance: int) -> NearPair | None:
    """Some pair of keys that differ in at most ``distance`` bits, None if there is none.

    Cut a key into distance // 2 + 1 blocks: two keys so near differ in at most one bit in one of
    the blocks, or each would hold two of the differences. So only keys are compared whose blocks
    are equal but for one bit, which a table finds. Exact, in 8 s for 10^6 keys of 128 bits. Where
    it would take more than WORK comparisons (10^6 keys of 256 bits, where 49 bits is near) it goes
    as far as that work does (25 bits, 35 s).

    Args:
        packed: [N, w] keys, most significant bit first, pad bits zero.
    """
    while distance > 0 and _comparisons(len(packed), n_bits, distance) > WORK:
        distance -= 1
    if distance < 0 or len(packed) < 2:
        return None
    words, blocks = to_words(packed), distance // 2 + 1
    width = min(n_bits // blocks, MAX_WIDTH)
    for block in tqdm(range(blocks), "compare keys", unit="block", delay=2, leave=False):
        values = _block(packed, block * width, width)
        order = np.argsort(values, kind="stable")
        pair = _near_in_block(values[order], words[order], width, distance)
        if pair is not None:
            first, second = sorted((int(order[pair.first]), int(order[pair.second])))
            return NearPair(first, second, pair.distance)
    return None


def _near_in_block(
    values: NDArray[np.int64], words: NDArray[np.uint64], width: int, distance: int
) -> NearPair | None:
    """A near pair among keys sorted by their blocks ``values``, which differ in 0 or 1 bit."""
    # Where the keys of each block begin, and behind the last where they end.
    starts = np.concatenate([[0], np.cumsum(np.bincount(values, minlength=1 << width))])
    for flip in (0, *(1 << bit for bit in range(width))):
        left = np.flatnonzero(values & flip == 0)  # each pair once
        wanted = values[left] | flip
        begin = starts[wanted] if flip else left + 1
        counts = starts[wanted + 1] - begin
        before = np.concatenate([[0], np.cumsum(counts)])
        start = 0
        while start < len(left):
            # As many keys as have about PART partners together; one key at least.
            end = max(int(np.searchsorted(before, before[start] + PART, "right")) - 1, start + 1)
            some = slice(start, end)
            ones = np.repeat(left[some], counts[some])
            others = np.arange(before[start], before[end]) + np.repeat(
                begin[some] - before[start:end], counts[some]
            )
            differing = np.bitwise_count(words[ones] ^ words[others]).sum(axis=1)
            if differing.size and differing.min() <= distance:
                nearest = int(differing.argmin())
                return NearPair(int(ones[nearest]), int(others[nearest]), int(differing[nearest]))
            start = end
    return None


def refuse_near(named: NDArray[np.uint8], n_bits: int, issued: int) -> None:
    """Refuse to name keys two of which lie too near to both have been drawn.

    A guilty key lies so near to one of the others with a chance of 10^-12: there is a pair with
    each of them, so fewer than in the whole registry, and the bound reaches further.

    Args:
        named: [c, w] the keys that agree with what was read.
        issued: number of keys ever issued.

    Raises:
        UntrustedRegistryError: two of them are too near. No holder is named.
    """
    if len(named) < 2:
        return
    pair = find_near(named, n_bits, near_distance(n_bits, len(named) * (issued - 1)))
    if pair is not None:
        raise UntrustedRegistryError(
            "the registry is not to be trusted, and nobody is named: two of the keys that agree "
            f"with the images differ in only {pair.distance} of {n_bits} bits, and so near to one "
            "another no two keys are drawn (run `scalefp registry verify`)"
        )
