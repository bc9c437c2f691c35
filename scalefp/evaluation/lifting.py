"""Can a fingerprint be lifted onto pictures of others, washed out of its own, or blended?

The attacker has images of a victim's instance, perhaps a copy of his own, and pictures to lay the
fingerprint on. He has no decoder, release or key. What he adds is an *estimate* of what the
victim's key does to a picture: one pattern for all pictures, or, learned, one for each; or what is
left of a picture of hers that he draws again with his own copy (redrawing.py).

Shape legend: n images of the victim, m of the attacker's own copy, b pictures, R resolution; float
images in [-1, 1].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scalefp.data.images import to_float, to_pil
from scalefp.evaluation.estimators import ESTIMATORS, Estimate, Knowledge
from scalefp.evaluation.quality import data_pixels, decibels, pixels_of
from scalefp.evaluation.redrawing import drawn_again
from scalefp.evaluation.samples import (
    FORMS,
    EvaluateConfig,
    Samples,
    from_files,
    read_logits,
    reading_figures,
    stream,
)
from scalefp.evaluation.unrelated import draw_images
from scalefp.metrics import FloatArray, bit_accuracy

if TYPE_CHECKING:
    from scalefp.evaluation.method import Measured

OWN_IMAGES = 1024  # that the attacker draws from his own copy: as many as he likes
ISSUED = 1_000_000  # keys among which the victim is named
TOLD = 1e-3  # the greatest p-value that the service tells unless its operator says otherwise
REDRAWN = "redrawn"  # stands where the other rows have their estimator
PICKED = 50  # unrelated pictures chosen because they lean to the victim


def eight_bit(images: Tensor) -> Tensor:
    """Pictures in [-1, 1] as they come back from a PNG file, float."""
    return to_float(from_files(images.clamp(-1, 1)))


class Lifting:
    """Measures the attacks on the first instances: victims, and as many other recipients.

    Args:
        samples: where the keys come from; victim k is lifted by recipient ``victims + k``.
    """

    def __init__(self, model: Measured, samples: Samples, config: EvaluateConfig) -> None:
        self.model, self.samples, self.config = model, samples, config
        self.victims = min(config.lifting.victims, config.keys // 2)
        seeds = stream(config, "lifting").integers(0, 2**31, 4 * self.victims)
        self._seeds: list[int] = seeds.tolist()
        size = model.config.resolution
        self.data = to_float(data_pixels(config, config.lifting.pictures, size))

    def images(self, key: int, purpose: int, count: int) -> Tensor:
        """8-bit images of an instance, others for each of the purposes 0 to 3."""
        seed = self._seeds[purpose * self.victims + key % self.victims]
        return to_float(from_files(self.samples.instance(key).sample(count, seed=seed)))

    @cached_property
    def unrelated(self) -> Tensor | None:
        """Pictures of another kind than the data, made by no generator; None if none are given."""
        config = self.config
        if not config.unrelated:
            return None
        draw, size = stream(config, "lifting, unrelated"), self.model.config.resolution
        return to_float(pixels_of(config.unrelated[0], config.lifting.pictures, size, draw))

    @cached_property
    def own_images(self) -> list[Tensor]:
        """What each attacker draws from his own copy, to compare with."""
        return [self.images(self.victims + k, 1, OWN_IMAGES) for k in range(self.victims)]

    def read(self, images: Tensor, title: str) -> FloatArray:
        """Logits [b, n] of pictures as they are."""
        files = to_pil(images)
        return read_logits(
            self.model, files, len(files), self.config.batch_size, title, thorough=False
        )

    def _figures(
        self, pictures: Sequence[Tensor], keys: Sequence[int], title: str
    ) -> dict[str, Any]:
        """How the keys [K] are read in pictures [K][b, 3, R, R]: bits, and shares named."""
        logits = np.stack([self.read(eight_bit(one), title) for one in pictures])
        return reading_figures(logits, self.samples.bits[list(keys)], self.config)

    def estimates(self, known: Knowledge) -> list[Estimate]:
        """One for each victim."""
        estimate, made = ESTIMATORS[known.estimator], []
        for k in range(self.victims):
            hers = self.images(k, 0, known.images)
            his = self.own_images[k] if known.own_copy else None
            made.append(estimate(hers, his, self.config.seed + k))
        return made

    def attack(self, known: Knowledge) -> list[dict[str, Any]]:
        """Lift and wash at every strength, from one estimate for each victim: :meth:`rows`."""
        count = self.config.lifting.pictures
        hers = [self.images(k, 2, count) for k in range(self.victims)]
        return self.rows(known, self.estimates(known), hers)

    def rows(
        self, known: Knowledge, made: Sequence[Estimate], hers: Sequence[Tensor]
    ) -> list[dict[str, Any]]:
        """Lift and wash at every strength, with an estimate and pictures of each victim.

        Args:
            made: for each victim what is added to as many pictures as she has in ``hers``.
            hers: [b, 3, R, R] of each, which are washed.

        Returns:
            Rows with ``attack`` (``lift`` or ``wash``), ``onto``, the attacker's knowledge,
            ``strength``, figures of reading the victim's key, ``psnr`` in dB to the picture before,
            and, onto the attacker's own pictures, ``own``: the same figures of his key.
        """
        victims, count = range(self.victims), len(hers[0])
        his = [self.images(self.victims + k, 3, count) for k in victims]
        targets = {"data": [self.data[:count]] * self.victims}
        if self.unrelated is not None:
            targets["unrelated"] = [self.unrelated[:count]] * self.victims
        targets |= {"own pictures": his, "her pictures": list(hers)}
        rows = []
        for (onto, pictures), strength in itertools.product(
            targets.items(), self.config.lifting.strengths
        ):
            sign = -1 if onto == "her pictures" else 1
            changed = [
                one + sign * strength * estimate(one)
                for one, estimate in zip(pictures, made, strict=True)
            ]
            row: dict[str, Any] = {
                "attack": "wash" if sign < 0 else "lift",
                "onto": onto,
                "estimator": known.estimator,
                "known_images": known.images,
                "own_copy": known.own_copy,
                "strength": strength,
                **self._figures(changed, victims, known.name),
                "psnr": mean_psnr(changed, pictures),
            }
            if onto == "own pictures":
                row["own"] = self._figures(changed, [self.victims + k for k in victims], known.name)
            rows.append(row)
        return rows

    def drawn_again(self, hers: Sequence[Tensor]) -> list[Tensor]:
        """How each attacker's copy draws images [b, 3, R, R] of his victim, as near as it comes."""
        seeds = stream(self.config, "redrawing").integers(0, 2**31, self.victims).tolist()
        return [
            drawn_again(
                self.samples.instance(self.victims + k), pictures, seed=seeds[k],
                steps=self.config.lifting.redrawing_steps, batch_size=self.config.batch_size,
            )
            for k, pictures in enumerate(hers)
        ]  # fmt: skip

    def redrawn(self) -> dict[str, Any]:
        """Lift and wash with one image each time: the difference to how one's own copy draws it.

        Every image of the victim is lifted onto another picture, and washed itself.

        Returns:
            ``rows`` as :meth:`rows`, and ``psnr``: how near the attackers' copies come to her
            images, in dB.
        """
        count = min(self.config.lifting.redrawn, self.config.lifting.pictures)
        hers = [self.images(k, 2, count) for k in range(self.victims)]
        again = self.drawn_again(hers)
        made = [always(one - drawn) for one, drawn in zip(hers, again, strict=True)]
        rows = self.rows(Knowledge(REDRAWN, 1, own_copy=True), made, hers)
        return {"rows": rows, "psnr": mean_psnr(again, hers)}

    def blends(self) -> list[dict[str, Any]]:
        """Images of two instances averaged, and cut and pasted.

        Returns:
            Of each blend what is read of each of the two, and ``psnr`` in dB to the image of each.
        """
        count = self.config.lifting.pictures
        victims, others = range(self.victims), [self.victims + k for k in range(self.victims)]
        hers = [self.images(k, 2, count) for k in victims]
        his = [self.images(k, 3, count) for k in others]
        half = self.model.config.resolution // 2
        mixed = {
            "averaged": [(a + b) / 2 for a, b in zip(hers, his, strict=True)],
            "cut and pasted": [
                torch.cat([a[..., :half], b[..., half:]], dim=3)
                for a, b in zip(hers, his, strict=True)
            ],
        }
        return [
            {
                "blend": name,
                "first": self._figures(pictures, victims, name)
                | {"psnr": mean_psnr(pictures, hers)},
                "second": self._figures(pictures, others, name)
                | {"psnr": mean_psnr(pictures, his)},
            }
            for name, pictures in mixed.items()
        ]

    def picked(self) -> list[dict[str, Any]]:
        """Unrelated pictures chosen because each leans to a victim, judged as one source.

        The test is exact only for images chosen without looking at keys; this shows what
        choosing does. For comparison as many of the same pictures at random.

        Returns:
            For each victim ``log10_p`` of the picked and of the random ones among
            :data:`ISSUED` keys, soft form, capped at 0.
        """
        config = self.config
        count = config.unrelated_images
        source = (config.unrelated or [config.data])[0]
        images = draw_images(source, count, stream(config, "picked"))
        logits = read_logits(
            self.model, images, count, config.batch_size, "pictures to pick", thorough=False
        )
        rows = []
        for k in range(self.victims):
            bits = self.samples.bits[k : k + 1]
            order = np.argsort(FORMS["soft"](logits, bits))
            chance = stream(config, f"picked, {k}").permutation(len(logits))
            rows.append(
                {
                    name: self._log10_p(logits[chosen[:PICKED]].sum(0, keepdims=True), bits)
                    for name, chosen in (("picked", order), ("random", chance))
                }
            )
        return rows

    def _log10_p(self, logits: FloatArray, bits: np.ndarray[Any, Any]) -> float:
        log_p = float(FORMS["soft"](logits, bits)[0]) + math.log(ISSUED)
        return min(0.0, log_p / math.log(10))

    def queried(self, told: float) -> list[dict[str, Any]]:
        """An attacker who asks for the verdict on a picture again and again, changing it.

        He begins with a picture of the data on which he has laid the mean of the most images of
        the victim that he has, adds one smooth wave after another, and keeps what makes the
        victim's p-value smaller.

        Args:
            told: greatest p-value that the service tells; of greater ones he learns nothing.

        Returns:
            For each victim ``log10_p`` among :data:`ISSUED` keys ``before`` and after, the ``psnr``
            to the picture of the data, and the share of the victim's bits that is read,
            ``accuracy``.
        """
        rows = []
        lifted = self.estimates(Knowledge("mean", self.config.lifting.images[-1], own_copy=True))
        for k, estimate in enumerate(lifted):
            bits = self.samples.bits[k : k + 1]
            picture = self.data[k : k + 1]
            start = eight_bit(picture + estimate(picture))
            waves = smooth_waves(start.shape[-1], self.config.seed + k)
            best, least = start, self._log10_p(self.read(start, "asking"), bits)
            before = least
            for wave in itertools.islice(waves, self.config.lifting.queries // 2):
                for sign in (1, -1):
                    tried = eight_bit(best + sign * wave)
                    now = self._log10_p(self.read(tried, "asking"), bits)
                    if now < least and now <= math.log10(told):
                        best, least = tried, now
                        break
            accuracy = bit_accuracy(self.read(best, "asking"), bits)
            rows.append(
                {
                    "before": before,
                    "log10_p": least,
                    "psnr": mean_psnr([best], [picture]),
                    "accuracy": float(accuracy.mean()),
                }
            )
        return rows


def always(added: Tensor) -> Estimate:
    """The same to add to the first, the second, ... of any pictures."""
    return lambda pictures: added[: len(pictures)]


def smooth_waves(side: int, seed: int) -> Iterator[Tensor]:
    """Waves [1, 3, R, R] of random direction, phase, length and colour, of amplitude 0.08."""
    draw = np.random.default_rng([seed, side])
    y, x = np.mgrid[:side, :side] / side
    while True:
        fx, fy = draw.integers(0, side // 3, 2)
        wave = np.cos(2 * np.pi * (fx * x + fy * y + draw.random()))
        colour = draw.choice([-1.0, 0.0, 1.0], (3, 1, 1))
        yield torch.from_numpy(0.08 * colour * wave).float()[None]


def mean_psnr(changed: Sequence[Tensor], before: Sequence[Tensor]) -> float:
    """Mean over pictures of the PSNR in dB, as 8-bit files, to what they were."""
    pairs = zip(changed, before, strict=True)
    return float(np.mean([decibels(from_files(a.clamp(-1, 1)), from_files(b)) for a, b in pairs]))
