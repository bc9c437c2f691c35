"""From what the decoder read to an issued key with an exact p-value, or to nobody.

Shapes: b images, n key bits, N keys ever issued, w = ceil(n / 8) bytes of a packed key.

Why the test is exact. Keys are drawn uniformly at random and an innocent key has no part in
making the image, so whatever the decoder read, the innocent key agrees with each bit of it with
probability 1/2, independently from bit to bit: the coins are the key's, not the decoder's. The
number of matches of one innocent key is therefore Binomial(n, 1/2), and by the union bound the
probability that ANY of N innocent keys agrees at least this well is at most N times its tail.
Nothing is assumed of decoder or images, nor that the bits it reads are independent or fair; several
images of one source may be added up first. A logit of exactly 0 reads as 0: any fixed rule keeps
the argument, because it does not look at the keys. (A registry never issues one value twice. Beside
c guilty keys that scales an innocent's tail by at most 2^n / (2^n - c), below rounding from 64 bits
on.)

Standard library and numpy only: evidence must not depend on a network being importable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalefp.errors import UserError
from scalefp.key import MAX_BITS, Key, check_length

CHUNK = 1 << 15  # keys a pass: the temporaries stay within the processor's cache


@dataclass(frozen=True, eq=False)
class Reading:
    """What the decoder read from one or more images.

    Args:
        logits: [b, n] finite numbers, kept as a read-only float64 copy; above 0 means bit 1, and
            exactly 0 reads as bit 0.
        model_digest: digest of the release that decoded, None if unknown.

    Raises:
        UserError: no image, another shape, a key length out of range, or a non-finite logit.
    """

    logits: NDArray[np.float64]
    model_digest: str | None = None

    def __post_init__(self) -> None:
        logits = np.array(self.logits, dtype=np.float64)
        if logits.ndim != 2 or len(logits) == 0:
            raise UserError(
                "a reading needs logits of shape [images, key bits] with at least one image, "
                f"not {logits.shape}"
            )
        check_length(logits.shape[1])
        if not np.isfinite(logits).all():
            image = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
            raise UserError(
                f"the decoder returned a number that is not finite for image {image}: "
                "the release or the image is damaged"
            )
        logits.flags.writeable = False
        object.__setattr__(self, "logits", logits)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.logits)

    def __getitem__(self, image: int) -> Reading:
        """The reading of one image."""
        return Reading(self.logits[image][None], self.model_digest)

    def __iter__(self) -> Iterator[Reading]:
        """One reading per image."""
        return (self[image] for image in range(len(self)))

    def pooled(self) -> Reading:
        """One reading [1, n] for all images taken as one source: their logits added."""
        return Reading(self.logits.sum(axis=0, keepdims=True), self.model_digest)

    @property
    def n_bits(self) -> int:
        """Key length."""
        return int(self.logits.shape[1])

    @property
    def bits(self) -> NDArray[np.uint8]:
        """Bits of each image, uint8 [b, n]."""
        return (self.logits > 0).astype(np.uint8)

    @property
    def keys(self) -> list[Key]:
        """The key read from each image."""
        return [Key.from_bits(row) for row in self.bits]

    @property
    def key(self) -> Key:
        """The key read from all images as one source (from the added logits)."""
        return self.pooled().keys[0]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Mean over the bits of 2 |sigmoid(logit) - 1/2|, in [0, 1], one number per image [b].

        How decided the decoder was, for display only: no evidence rests on it.
        """
        # 2 |sigmoid(x) - 1/2| = |tanh(x / 2)|, which cannot overflow.
        confidence: NDArray[np.float64] = np.abs(np.tanh(self.logits / 2)).mean(axis=1)
        return confidence


@dataclass(frozen=True)
class Attribution:
    """One issued key that agrees with a reading better than chance allows.

    p_value: at most this is the probability that any of the registry's keys would agree this well
    if all of them were innocent. matches: how many of the key's bits agree.
    """

    holder: str
    key: Key
    p_value: float
    matches: int


class IssuedKeys(NamedTuple):
    """Every key ever issued, in order of issue."""

    packed: NDArray[np.uint8]  # [N, w], most significant bit first, pad bits zero
    holders: list[str]  # N names
    revoked: NDArray[np.bool_]  # [N]


class KeySource(Protocol):
    """What attribution asks of a registry; :class:`scalefp.registry.Registry` is one."""

    @property
    def n_bits(self) -> int | None: ...

    @property
    def model_digest(self) -> str | None: ...

    def keys_and_holders(self) -> IssuedKeys: ...


@lru_cache(maxsize=32)
def _tail_counts(n_bits: int) -> tuple[int, ...]:
    """How many of the 2^n outcomes of n fair coins have at least m heads, m = 0..n: exact."""
    if not 1 <= n_bits <= MAX_BITS:
        raise UserError(f"the tail is tabulated for 1 to {MAX_BITS} bits, not {n_bits}")
    counts = [1]
    for heads in range(n_bits - 1, -1, -1):
        counts.append(counts[-1] + math.comb(n_bits, heads))
    return tuple(reversed(counts))


@lru_cache(maxsize=32)
def _log_tail_table(n_bits: int) -> NDArray[np.float64]:
    """Natural log of P[Binomial(n, 1/2) >= m] for m = 0..n+1, float64 [n + 2]."""
    outcomes = 1 << n_bits
    # Division of Python integers is correctly rounded, and 2^-512 (7e-155) is a normal float64, so
    # nothing underflows. Above one half the complement keeps its digits.
    logs = [
        math.log(count / outcomes)
        if 2 * count <= outcomes
        else math.log1p(-((outcomes - count) / outcomes))
        for count in _tail_counts(n_bits)
    ]
    table = np.array([*logs, -math.inf])
    table.flags.writeable = False
    return table


def log_binomial_tail(n_bits: int, matches: ArrayLike) -> NDArray[np.float64]:
    """Natural log of P[Binomial(n_bits, 1/2) >= matches], from exact integers.

    Args:
        n_bits: 1..512.
        matches: whole numbers of any shape; at or below 0 gives 0, above n_bits gives -inf.

    Returns:
        float64 in the shape of ``matches``.

    Raises:
        UserError: n_bits out of range, or matches that are not whole numbers.
    """
    matches = np.asarray(matches)
    if not np.issubdtype(matches.dtype, np.integer):
        raise UserError(f"matches are counted in whole numbers, not {matches.dtype}")
    logs: NDArray[np.float64] = _log_tail_table(n_bits)[np.clip(matches, 0, n_bits + 1)]
    return logs


def p_value(n_bits: int, issued: int, matches: int) -> float:
    """min(1, issued * P[Binomial(n_bits, 1/2) >= matches]) for 0 <= matches <= n_bits.

    One correctly rounded division of exact integers. It cannot underflow to 0.0 at these lengths;
    that would take more than 1,000 bits.
    """
    counts, outcomes = _tail_counts(n_bits), 1 << n_bits
    return min(issued * counts[matches], outcomes) / outcomes


def matches_needed(n_bits: int, issued: int, fpr: float) -> int | None:
    """Fewest matching bits at which one of ``issued`` keys is named, None if none suffices."""
    for matches in range(n_bits + 1):
        if p_value(n_bits, issued, matches) <= fpr:
            return matches
    return None


def count_matches(bits: NDArray[np.uint8], packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number of equal bits between one reading [n] and every packed key [N, w], int64 [N]."""
    n_bits, width = bits.size, packed.shape[1]
    # Whole machine words where the width allows: fewer, larger elements to count.
    word = next(size for size in (8, 4, 2, 1) if width % size == 0)
    query = np.packbits(bits).view(f"u{word}")
    words = np.ascontiguousarray(packed).view(f"u{word}")
    matches = np.empty(len(packed), np.int64)
    for start in range(0, len(packed), CHUNK):
        part = words[start : start + CHUNK]
        matches[start : start + CHUNK] = n_bits
        # Word by word: a sum over so short an axis would take four times as long. Pad bits are
        # zero on both sides, so they never differ.
        for column, word_bits in zip(part.T, query, strict=True):
            matches[start : start + CHUNK] -= np.bitwise_count(column ^ word_bits)
    return matches


def attribute(reading: Reading, registry: KeySource, fpr: float = 1e-6) -> list[Attribution]:
    """Name the issued keys that agree with the reading too well for chance.

    The images of a reading count as ONE source: their logits are added first. To judge each image
    by itself, call this for each ``reading[i]``.

    Revoked keys are searched and counted like the others, since their instances are still out
    there; so N is the number of keys ever issued.

    Args:
        reading: of one or more images of one source.
        registry: the keys issued for the release that made the reading.
        fpr: in (0, 1): the probability accepted of naming anybody when all N are innocent.

    Returns:
        Attributions with p_value <= fpr, smallest first; empty means nobody. Several names mean
        that several instances had a part in the images.

    Raises:
        UserError: fpr out of range, a registry without keys, or a reading and a registry of
            different releases or key lengths.
    """
    if not 0 < fpr < 1:
        raise UserError(f"fpr is a probability between 0 and 1, for example 1e-6, not {fpr}")
    issued = registry.keys_and_holders()
    if (
        reading.model_digest is not None
        and registry.model_digest is not None
        and reading.model_digest != registry.model_digest
    ):
        raise UserError(
            "this registry was issued for another release (digest "
            f"{registry.model_digest[:12]}) than the one that decoded (digest "
            f"{reading.model_digest[:12]}): give the release that issued its keys"
        )
    n_bits = reading.n_bits
    if registry.n_bits != n_bits:
        raise UserError(
            f"this registry holds {registry.n_bits}-bit keys, but the decoder reads {n_bits} bits: "
            "give the release that issued its keys"
        )
    threshold = matches_needed(n_bits, len(issued.holders), fpr)
    if threshold is None:
        return []
    matches = count_matches(reading.pooled().bits[0], issued.packed)
    named = np.flatnonzero(matches >= threshold)
    named = named[np.argsort(-matches[named], kind="stable")]
    return [
        Attribution(
            holder=issued.holders[index],
            key=Key(issued.packed[index].tobytes(), n_bits),
            p_value=p_value(n_bits, len(issued.holders), int(matches[index])),
            matches=int(matches[index]),
        )
        for index in named
    ]
