"""From what the decoder read to an issued key with an exact p-value, or to nobody.

Shapes: b images, n key bits, N keys ever issued, w = ceil(n / 8) bytes of a packed key.

Why the test is exact. Keys are drawn uniformly at random and an innocent key has no part in
making the image, so whatever the decoder read, the innocent key agrees with each bit of it with
probability 1/2, independently from bit to bit: the coins are the key's, not the decoder's. Give
each bit a weight that was settled without looking at any key, and let the score of a key be the
weight of the bits that agree: for an innocent key that is a weighted sum of fair coins, whose tail
is computed, not fitted (tails.py). By the union bound the probability that ANY of N
innocent keys scores at least this much is at most N times that tail. Nothing is assumed of decoder
or images, nor that the bits it reads are independent, fair or calibrated; several images of one
source may be added up first. (A registry never issues one value twice. Beside c guilty keys that
scales an innocent's tail by at most 2^n / (2^n - c), below rounding from 64 bits on.) That the keys
were drawn, and are whose they were, is checked of those about to be named (near.py).

The two forms differ in the weights alone:

- hard: every bit weighs 1, the score is the number of matches, and its tail is binomial;
- soft: a bit weighs as much as the decoder was sure of it. The logit of a calibrated decoder IS the
  bit's share of the log-likelihood ratio between guilty and innocent (log s(l) - log s(-l) = l for
  the logistic s), so by Neyman and Pearson no test is more powerful than the sum of +-l. One
  temperature for all logits changes no weight against another and so drops out. Real decoders are
  overconfident on damaged images, hence the clip.

A logit of exactly 0 reads as bit 0, and weighs nothing in the soft form: any fixed rule keeps the
argument, because it does not look at the keys.

Standard library and numpy only: evidence must not depend on a network being importable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from scalefp.attribution.near import refuse_near
from scalefp.attribution.reading import Reading
from scalefp.attribution.search import Query, count_matches, runners_up, search
from scalefp.attribution.tails import log_binomial_tail, matches_needed, p_value, weighted_tail
from scalefp.errors import UserError
from scalefp.key import Key

# The one door to the evidence: tails and counting are used from here too.
__all__ = [
    "FORMS", "Attribution", "Form", "IssuedKeys", "KeySource", "Reading", "attribute",
    "attribute_each", "count_matches", "log_binomial_tail", "log_p_hard", "log_p_soft",
    "matches_needed", "p_value", "soft_weights",
]  # fmt: skip

Form = Literal["soft", "hard"]
FORMS: tuple[Form, ...] = ("soft", "hard")
# Soft weights are whole numbers from 0 to LEVELS; CLIP times the mean |logit| weighs LEVELS. Finer
# levels, or a clip from 1.25 to 2, change the evidence that damaged images give by about 2%.
LEVELS = 15
CLIP = 1.5
DEFAULT_FPR = 1e-6


@dataclass(frozen=True)
class Attribution:
    """One issued key that agrees with a reading better than chance allows.

    Attributes:
        p_value: at most this is the probability that any of the registry's keys would agree this
            well if all of them were innocent.
        matches: how many of the key's bits agree, whatever they weigh.
        effective_bits: how many equally sure bits the reading is worth (Kish's effective size,
            sum(w)^2 / sum(w^2), of its weights): all of them in the hard form.
        margin: by how many bits this key's evidence exceeds that of the best key that is NOT
            named, the evidence being -log2 of the probability that one innocent key agrees this
            well. If every key is named, the evidence itself.
    """

    holder: str
    key: Key
    p_value: float
    matches: int
    effective_bits: float
    margin: float
    revoked: str | None = None


@dataclass(frozen=True, eq=False)
class IssuedKeys:
    """Every key ever issued, in order of issue.

    Attributes:
        packed: [N, w], most significant bit first, pad bits zero.
        holders: N names.
        revoked: index of each revoked key -> when it was revoked (UTC, ISO 8601).
    """

    packed: NDArray[np.uint8]
    holders: Sequence[str]
    revoked: Mapping[int, str] = field(default_factory=dict)


class KeySource(Protocol):
    """What attribution asks of a registry.

    :class:`scalefp.Registry` is one, and so is its ``snapshot()``, in which no key is added while
    many images are attributed.
    """

    @property
    def n_bits(self) -> int | None: ...

    @property
    def model_digest(self) -> str | None: ...

    def keys_and_holders(self) -> IssuedKeys: ...

    def confirm(self, issued: IssuedKeys, indices: Sequence[int]) -> None:
        """Raise UntrustedRegistryError unless the records of these keys are as they were logged.

        Asked before anybody is named. A source that keeps no log has nothing to compare with.
        """


def soft_weights(logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """What each bit of a reading weighs in the soft form, from its logits alone.

    |logit|, clipped at CLIP times the mean |logit| and rounded to whole numbers from 0 to LEVELS:
    the weights DEFINE the score, so rounding costs a little power (under 1%) and no exactness. No
    key and no unit enters: logits times any number weigh the same.

    Args:
        logits: [b, n] finite.

    Returns:
        [b, n]; divided by what they have in common, so that equally sure bits weigh 1.
    """
    size = np.abs(np.asarray(logits, np.float64))
    highest = size.max(axis=1, keepdims=True)
    size = size / np.where(highest > 0, highest, 1)  # sums of huge logits would overflow
    clip = CLIP * size.mean(axis=1, keepdims=True)
    levels = np.rint(np.minimum(size / np.where(clip > 0, clip, 1), 1) * LEVELS).astype(np.int64)
    common = np.gcd.reduce(levels, axis=1, keepdims=True)
    weights: NDArray[np.int64] = levels // np.maximum(common, 1)
    return weights


def _as_rows(
    logits: NDArray[np.floating], bits: NDArray[np.integer]
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Logits [b or 1, n], and which of their bits agree with the keys' [b, n]."""
    logits, bits = np.asarray(logits), np.asarray(bits)
    if logits.ndim != 2 or bits.ndim != 2 or logits.shape[1] != bits.shape[1]:
        raise UserError(f"logits {logits.shape} and bits {bits.shape} must both be [rows, n]")
    return logits, (logits > 0) == (bits > 0)


def log_p_hard(logits: NDArray[np.floating], bits: NDArray[np.integer]) -> NDArray[np.float64]:
    """Natural log of the probability that one innocent key matches as many bits of a reading.

    Before any correction for the number of keys issued. ``p <= x`` happens with probability at
    most x for a random key, whatever the reading.

    Args:
        logits: [b, n], a reading in each row.
        bits: [b, n] in {0, 1}, a key in each row. One row on either side stands for all.

    Returns:
        [b], from -n log 2 to 0.
    """
    _, agrees = _as_rows(logits, bits)
    return log_binomial_tail(agrees.shape[1], agrees.sum(axis=1))


def log_p_soft(logits: NDArray[np.floating], bits: NDArray[np.integer]) -> NDArray[np.float64]:
    """As :func:`log_p_hard` for the soft form; half a millisecond a reading of 128 bits."""
    logits, agrees = _as_rows(logits, bits)
    weights = soft_weights(logits)
    scores = (weights * agrees).sum(axis=1)
    tables: list[NDArray[np.float64]] = [np.log(weighted_tail(row)) for row in weights]
    if len(tables) == 1:
        of_one: NDArray[np.float64] = tables[0][scores]
        return of_one
    return np.array([table[score] for table, score in zip(tables, scores, strict=True)])


class _Test(NamedTuple):
    """One source's reading, ready to be held against keys."""

    query: Query
    tail: NDArray[np.float64]  # P[one innocent key scores >= s], s = 0..total weight
    p_values: NDArray[np.float64]  # P[any of N innocent keys does], at most

    def threshold(self, fpr: float) -> int:
        """Least score that names a key; above the highest score if none does."""
        return int((self.p_values > fpr).sum())  # p-values fall with the score


def _test(reading: Reading, issued: int, form: Form) -> _Test:
    source = reading.pooled()
    n_bits, bits = source.n_bits, source.bits[0]
    if form == "hard":
        tail = np.array([p_value(n_bits, 1, matches) for matches in range(n_bits + 1)])
        corrected = np.array([p_value(n_bits, issued, matches) for matches in range(n_bits + 1)])
        return _Test(Query(bits, np.ones(n_bits, np.int64)), tail, corrected)
    weights = soft_weights(source.logits)[0]
    tail = weighted_tail(weights)
    return _Test(Query(bits, weights), tail, np.minimum(issued * tail, 1))


def _check(reading: Reading, registry: KeySource) -> None:
    """Raise UserError for a reading and a registry of different releases or key lengths."""
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


def _attribution(
    test: _Test, issued: IssuedKeys, index: int, score: int, runner_up: int
) -> Attribution:
    bits, weights = test.query
    key = Key(issued.packed[index].tobytes(), bits.size)
    return Attribution(
        holder=issued.holders[index],
        key=key,
        p_value=float(test.p_values[score]),
        matches=int((key.bits == bits).sum()),
        effective_bits=float(weights.sum() ** 2 / (weights**2).sum()),
        margin=math.log2(test.tail[max(runner_up, 0)] / test.tail[score]),
        revoked=issued.revoked.get(index),
    )


def attribute_each(
    readings: Sequence[Reading],
    registry: KeySource,
    fpr: float = DEFAULT_FPR,
    *,
    form: Form = "soft",
) -> list[list[Attribution]]:
    """:func:`attribute` for several sources, one answer each, in one pass over the keys.

    ``fpr`` is accepted for each of them: that any of c innocent sources is attributed to anybody
    has at most the probability c fpr.
    """
    if not 0 < fpr < 1:
        raise UserError(f"fpr is a probability between 0 and 1, for example 1e-6, not {fpr}")
    if form not in FORMS:
        raise UserError(f"the form of the test is one of {', '.join(FORMS)}, not {form!r}")
    issued = registry.keys_and_holders()
    for reading in readings:
        _check(reading, registry)
    tests = [_test(reading, len(issued.packed), form) for reading in readings]
    thresholds = [test.threshold(fpr) for test in tests]
    found = search([test.query for test in tests], issued.packed, thresholds)
    answers: list[list[Attribution]] = [[] for _ in readings]
    named = [number for number, one in enumerate(found) if len(one.indices)]
    if named:
        indices = sorted({int(index) for one in found for index in one.indices})
        refuse_near(issued.packed[indices], registry.n_bits or 0, len(issued.packed))
        registry.confirm(issued, indices)
    others = runners_up(
        [tests[number].query for number in named],
        issued.packed,
        [thresholds[number] for number in named],
    )
    for number, runner_up in zip(named, others, strict=True):
        answers[number] = [
            _attribution(tests[number], issued, int(index), int(score), runner_up)
            for index, score in zip(*found[number], strict=True)
        ]
    return answers


def attribute(
    reading: Reading, registry: KeySource, fpr: float = DEFAULT_FPR, *, form: Form = "soft"
) -> list[Attribution]:
    """Name the issued keys that agree with the reading too well for chance.

    The images of a reading count as ONE source: their logits are added first. To judge each image
    by itself, call :func:`attribute_each` with ``list(reading)``.

    Revoked keys are searched and counted like the others, since their instances are still out
    there; so N is the number of keys ever issued.

    Args:
        reading: of one or more images of one source.
        registry: the keys issued for the release that made the reading.
        fpr: in (0, 1): the probability accepted of naming anybody when all N are innocent.
        form: "soft" weighs every bit by how sure the decoder was of it, "hard" counts matches.
            Both are exact; choose before looking at the answers, for the better of two tests has
            twice the chance of naming an innocent.

    Returns:
        Attributions with p_value <= fpr, smallest first; empty means nobody. Several names mean
        that several instances had a part in the images.

    Raises:
        UserError: fpr out of range, an unknown form, a registry without keys, or a reading and a
            registry of different releases or key lengths.
        UntrustedRegistryError: two of the keys to be named lie nearer to one another than drawn
            keys do, or a record of them is not what was logged.
    """
    (answer,) = attribute_each([reading], registry, fpr, form=form)
    return answer
