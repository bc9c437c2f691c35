"""Can a recipient remove the fingerprint by changing the weights, and what do the pictures lose?

Each kind of tampering is measured at several strengths as bit accuracy against image quality, since
a removal that ruins the pictures is none. The same latents of the same keys are used throughout, so
that the tampering is the only difference.

Quality is how much further the images lie from the data in feature distance than those of the
untouched instances ("loss": 0.1 is ten percent further), and PSNR to the untouched image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_pil
from scalefp.errors import UserError
from scalefp.evaluation.features import extract
from scalefp.evaluation.finetune import fine_tune
from scalefp.evaluation.quality import data_pixels, decibels
from scalefp.evaluation.samples import (
    EvaluateConfig,
    Samples,
    from_files,
    read_logits,
    reading_figures,
    stream,
)
from scalefp.evaluation.tamper import TAMPERINGS, tamper
from scalefp.metrics import Statistics, frechet_distance
from scalefp.release.instance import Instance

if TYPE_CHECKING:
    from scalefp.evaluation.method import OtherMethod
    from scalefp.release.model import Model

UNTOUCHED, FINE_TUNING = "untouched", "fine-tuning"


@dataclass(frozen=True)
class Attempt:
    """One strength of one tampering."""

    tampering: str
    strength: float

    @property
    def name(self) -> str:
        """``noise 0.1``."""
        return f"{self.tampering} {self.strength:.4g}"


def attempts(config: EvaluateConfig) -> list[Attempt]:
    """Every strength of the table; fine-tuning apart.

    Raises:
        UserError: a tampering that the table does not have.
    """
    known = [*TAMPERINGS, FINE_TUNING]
    names = known if config.tamperings is None else config.tamperings
    for name in names:
        if name not in known:
            raise UserError(
                f"unknown tampering {name!r} in tamperings; known are {', '.join(known)}."
            )
    return [
        Attempt(name, float(strength))
        for name in names
        if name != FINE_TUNING
        for strength in TAMPERINGS[name].test_strengths
    ]


def fine_tuning_wanted(config: EvaluateConfig) -> bool:
    """Whether instances are to be trained on."""
    wanted = config.tamperings is None or FINE_TUNING in config.tamperings
    return wanted and bool(config.finetune_images)


class Tampered:
    """Measures tampered instances against the untouched ones of the same keys.

    Args:
        samples: where the keys come from; the first ``tamper_keys`` of them are used.
        extractor: of features; without it quality is PSNR alone.
    """

    def __init__(
        self,
        model: Model | OtherMethod,
        samples: Samples,
        extractor: nn.Module | None,
        config: EvaluateConfig,
    ) -> None:
        self.model, self.samples, self.extractor, self.config = model, samples, extractor, config
        self.keys = min(config.tamper_keys, config.keys)
        seeds = stream(config, "tampering").integers(0, 2**31, self.keys)
        self._seeds: list[int] = seeds.tolist()
        self._untouched: dict[int, Tensor] = {}  # images of so many keys
        self._reference: Statistics | None = None
        # Of the untouched images of so many keys, and how far they lie from the data.
        self._before: dict[int, tuple[Statistics, float]] = {}

    def _images(self, instances: Sequence[Instance]) -> Tensor:
        """Files of the first instances, as many in all whatever their number: uint8 [k, m, ...]."""
        each = self.keys * self.config.tamper_images // len(instances)
        rows = [
            from_files(instance.sample(each, seed=seed))
            for instance, seed in zip(instances, self._seeds[: len(instances)], strict=True)
        ]
        return torch.stack(rows)

    def untouched(self, keys: int) -> Tensor:
        """Images of the untouched instances of the first keys."""
        if keys not in self._untouched:
            self._untouched[keys] = self._images([self.samples.instance(k) for k in range(keys)])
        return self._untouched[keys]

    def _statistics(self, images: Tensor) -> Statistics:
        assert self.extractor is not None
        features = extract(self.extractor, images.flatten(0, 1), self.config.batch_size)
        return Statistics.of(features)

    def _distances(self, images: Tensor) -> dict[str, float]:
        """Feature distances of tampered images [k, m, ...] to the data and to the untouched."""
        if self._reference is None:
            data = data_pixels(self.config, self.config.feature_images, images.shape[-1])
            self._reference = self._statistics(data[None])
        keys = len(images)
        if keys not in self._before:
            untouched = self._statistics(self.untouched(keys))
            distance = frechet_distance(untouched, self._reference)
            self._before[keys] = untouched, distance
        untouched, before = self._before[keys]
        own = self._statistics(images)
        after = frechet_distance(own, self._reference)
        return {
            "distance": after,
            "distance_untouched": before,
            "distance_to_untouched": frechet_distance(own, untouched),
            "loss": after / before - 1,
        }

    def figures(self, attempt: Attempt, instances: Sequence[Instance]) -> dict[str, Any]:
        """Figures of tampered instances of the first keys: reading and quality."""
        images = self._images(instances)
        keys, each = images.shape[:2]
        files = to_pil(images.flatten(0, 1))
        logits = read_logits(
            self.model, files, len(files), self.config.batch_size, attempt.name, thorough=False
        )
        before = self.untouched(keys)
        pairs = zip(images, before, strict=True)
        return {
            "tampering": attempt.tampering,
            "strength": attempt.strength,
            "keys": keys,
            **reading_figures(
                logits.reshape(keys, each, -1), self.samples.bits[:keys], self.config
            ),
            "psnr": float(np.mean([decibels(a, b) for a, b in pairs])),
            **(self._distances(images) if self.extractor else {}),
        }

    def changed(self, attempt: Attempt) -> list[Instance]:
        """The instances after one attempt of the table; each one's neighbour is the other copy."""
        seed = int(stream(self.config, f"tampering, {attempt.name}").integers(2**31))
        draw = torch.Generator().manual_seed(seed)
        copies = [self.samples.instance(k) for k in range(self.keys)]
        return [
            tamper([copies[k], copies[k - 1]], attempt.tampering, attempt.strength, draw)
            for k in range(self.keys)
        ]

    def attempt(self, attempt: Attempt) -> dict[str, Any]:
        """Figures of one attempt of the table."""
        return self.figures(attempt, self.changed(attempt))

    def nothing(self) -> dict[str, Any]:
        """Figures of the untouched instances."""
        copies = [self.samples.instance(k) for k in range(self.keys)]
        return self.figures(Attempt(UNTOUCHED, 0.0), copies)

    def fine_tuning(self) -> list[dict[str, Any]]:
        """Figures after training on, at each of ``finetune_images``."""
        config = self.config
        data = ImageSet(config.data, self.model.config.resolution, progress=False)
        pixels = torch.from_numpy(data.pixels)
        stages = [0, *config.finetune_images]
        runs: list[Iterator[tuple[int, Instance]]] = [
            fine_tune(self.samples.instance(k), pixels, stages, seed=config.seed + k)
            for k in range(min(config.finetune_keys, self.keys))
        ]
        rows = []
        for stage in zip(*runs, strict=True):
            attempt = Attempt(FINE_TUNING, float(stage[0][0]))
            rows.append(self.figures(attempt, [instance for _, instance in stage]))
        return rows


def accuracy_at_loss(
    untouched: dict[str, Any], rows: Sequence[dict[str, Any]], loss: float
) -> dict[str, Any]:
    """Where a tampering of rising strength first costs that loss, and what is read there.

    Strength and bit accuracy are interpolated linearly in the loss between the two strengths
    around it. Where no strength costs so much, the strongest stands with ``reached`` false.

    Returns:
        ``strength``, ``accuracy``, ``loss``, ``reached``.
    """
    before = {"strength": 0.0, "loss": 0.0, "mean": untouched["mean"]}
    for row in rows:
        if row["loss"] >= loss:
            share = (loss - before["loss"]) / (row["loss"] - before["loss"])
            strength, accuracy = (
                before[name] + share * (row[name] - before[name]) for name in ("strength", "mean")
            )
            return {"strength": strength, "accuracy": accuracy, "loss": loss, "reached": True}
        before = row
    last = {"strength": before["strength"], "accuracy": before["mean"], "loss": before["loss"]}
    return {**last, "reached": False}


def losses_met(
    untouched: dict[str, Any], rows: Sequence[dict[str, Any]], loss: float
) -> dict[str, dict[str, Any]]:
    """:func:`accuracy_at_loss` of every tampering whose strengths rise from none; needs losses."""
    result = {}
    for name, entry in TAMPERINGS.items():
        own = [row for row in rows if row["tampering"] == name and "loss" in row]
        if entry.identity is not None and own:
            result[name] = accuracy_at_loss(untouched, own, loss)
    return result
