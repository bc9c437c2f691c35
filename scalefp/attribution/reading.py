"""What the decoder read from one or more images, before any key is looked at.

Shapes: b images, n key bits. Standard library and numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalefp.errors import UserError
from scalefp.key import Key, check_length

JOIN_CHANCE = 1e-3  # with which an unrelated image may join one of the groups


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

    def take(self, images: Sequence[int]) -> Reading:
        """The reading of some images, at least one, by their numbers."""
        return Reading(self.logits[list(images)], self.model_digest)

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


def _scaled(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every row divided by its largest |logit|, so that no square overflows."""
    largest = np.abs(logits).max(axis=-1, keepdims=True)
    scaled: NDArray[np.float64] = logits / np.where(largest > 0, largest, 1)
    return scaled


def _best_agreement(groups: NDArray[np.float64], logits: NDArray[np.float64]) -> int | None:
    """The group [g, n] with which an image [n] agrees best, None if chance agrees as well."""
    if len(groups) == 0:
        return None
    agreement = _scaled(groups) * _scaled(logits)
    size = np.sqrt((agreement**2).sum(axis=1))
    z = agreement.sum(axis=1) / np.where(size > 0, size, 1)
    best = int(np.argmax(z))
    chance = len(groups) * math.exp(-(max(z[best], 0) ** 2) / 2)
    return best if chance <= JOIN_CHANCE else None


def group_by_agreement(reading: Reading) -> list[list[int]]:
    """Which images of a reading seem to come from one source, from the readings alone.

    Images, and then the groups found so far, are gone through again and again, the largest and then
    the surest first: each joins the one before it that it agrees with best, if readings that have
    nothing in common would hardly agree so well, until nothing changes. Two groups agree by their
    added logits, each bit counting by both. For readings whose signs are fair coins, the bound
    P[sum(+-a_i) >= z sqrt(sum(a_i^2))] <= exp(-z^2 / 2) (Hoeffding 1963) says how well chance
    agrees. Real decoders are no such coins: this sorts images and is no evidence, and images that
    nobody's instance made may end up together because the decoder reads them alike.

    No key is looked at, so the p-value of a group is as exact as that of any other set of images.
    It speaks of the group: the named instance had a part in SOME of its images.

    Returns:
        Numbers of the images, every one in one group; groups in the order of their first image.
    """
    sureness = np.abs(reading.logits).mean(axis=1)
    groups = [[image] for image in range(len(reading))]
    while True:
        groups.sort(key=lambda group: (-len(group), -float(sureness[group].sum())))
        joined: list[list[int]] = []
        added = np.zeros((len(groups), reading.n_bits))  # the logits of each of them
        for group in groups:
            logits = reading.logits[group].sum(axis=0)
            best = _best_agreement(added[: len(joined)], logits)
            if best is None:
                best = len(joined)
                joined.append([])
            joined[best] += group
            added[best] += logits
        if len(joined) == len(groups):
            return sorted(sorted(group) for group in groups)
        groups = joined
