"""Can a recipient remove the fingerprint by changing the weights, and what do the pictures lose?

Each kind of tampering is measured at several strengths as bit accuracy against image quality, since
a removal that ruins the pictures is none. The same latents of the same keys are used throughout, so
that the tampering is the only difference.

Quality is how much further the images lie from the data in feature distance than those of the
untouched instances ("loss": 0.1 is ten percent further), and PSNR to the untouched image. Of a
generator that others trained, what that one makes stands for the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_pil
from scalefp.errors import UserError
from scalefp.evaluation.copies import Copy, tampered
from scalefp.evaluation.features import extract
from scalefp.evaluation.finetune import fine_tune
from scalefp.evaluation.method import OtherMethod
from scalefp.evaluation.quality import decibels, reference_pixels
from scalefp.evaluation.samples import (
    EvaluateConfig,
    Samples,
    from_files,
    read_logits,
    reading_figures,
    stream,
)
from scalefp.evaluation.tamper import TAMPERINGS, is_map
from scalefp.metrics import Statistics, frechet_distance
from scalefp.pretrained.release import PretrainedModel

if TYPE_CHECKING:
    from scalefp.evaluation.method import Measured, Original

UNTOUCHED = "untouched"
# Training on, against clean pictures or against those that the recipient's own copy makes.
FINE_TUNING, OWN_PICTURES = "fine-tuning", "fine-tuning on own pictures"


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
    """Every strength of the table that is wanted; fine-tuning apart.

    Raises:
        UserError: a tampering that the table does not have.
    """
    known = [*TAMPERINGS, FINE_TUNING, OWN_PICTURES]
    names = known if config.tamperings is None else config.tamperings
    for name in names:
        if name not in known:
            raise UserError(
                f"unknown tampering {name!r} in tamperings; known are {', '.join(known)}."
            )
    return [
        Attempt(name, float(strength))
        for name in names
        if name in TAMPERINGS
        for strength in TAMPERINGS[name].test_strengths
    ]


def has_maps(model: Measured) -> bool:
    """Whether a model's instances have constant maps, which can be flattened."""
    if not isinstance(model, PretrainedModel):
        return True  # or are measured to stay as they are
    return any(is_map(*named) for named in model.parent.network.named_parameters())


def possible(model: Measured, config: EvaluateConfig) -> list[Attempt]:
    """Of :func:`attempts` those that a model's instances leave room for."""
    if isinstance(model, OtherMethod):  # whose weights nobody has
        return []
    wanted = attempts(config)
    if any(attempt.tampering == "flatten" for attempt in wanted) and not has_maps(model):
        return [attempt for attempt in wanted if attempt.tampering != "flatten"]
    return wanted


def tunings(model: Measured, config: EvaluateConfig) -> list[str]:
    """Ways of training on that are wanted: of copies of a generator that others trained, both."""
    if isinstance(model, OtherMethod) or not config.finetune_images:
        return []
    both = [FINE_TUNING, OWN_PICTURES]
    if config.tamperings is None:
        return both if isinstance(model, PretrainedModel) else [FINE_TUNING]
    return [name for name in both if name in config.tamperings]


class Tampered:
    """Measures tampered instances against the untouched ones of the same keys.

    Args:
        samples: where the keys come from; the first ``tamper_keys`` of them are used.
        extractor: of features; without it quality is PSNR alone.
    """

    def __init__(
        self,
        model: Measured,
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

    def _images(self, instances: Sequence[Copy]) -> Tensor:
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
            _, data = reference_pixels(self.samples, self.config, self.config.feature_images)
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

    def figures(self, attempt: Attempt, instances: Sequence[Copy]) -> dict[str, Any]:
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

    def changed(self, attempt: Attempt) -> list[Copy]:
        """The instances after one attempt of the table; each one's neighbour is the other copy."""
        seed = int(stream(self.config, f"tampering, {attempt.name}").integers(2**31))
        draw = torch.Generator().manual_seed(seed)
        copies = [self.samples.instance(k) for k in range(self.keys)]
        return [
            tampered([copies[k], copies[k - 1]], attempt.tampering, attempt.strength, draw)
            for k in range(self.keys)
        ]

    def attempt(self, attempt: Attempt) -> dict[str, Any]:
        """Figures of one attempt of the table."""
        return self.figures(attempt, self.changed(attempt))

    def nothing(self) -> dict[str, Any]:
        """Figures of the untouched instances."""
        copies = [self.samples.instance(k) for k in range(self.keys)]
        return self.figures(Attempt(UNTOUCHED, 0.0), copies)

    @cached_property
    def clean_pictures(self) -> Tensor:
        """What a recipient may have of the data, uint8 [n, 3, R, R]: all of it.

        Of a generator that others trained it is what that one makes, which is more than he has.
        """
        original = getattr(self.model, "original", None)
        if original is not None:
            return self._made_by(original)
        data = ImageSet(self.config.data, self.model.config.resolution, progress=False)
        return torch.from_numpy(data.pixels)

    def _made_by(self, generator: Original | Copy) -> Tensor:
        seed = int(stream(self.config, FINE_TUNING).integers(2**31))
        return from_files(generator.sample(self.config.feature_images, seed=seed))

    def fine_tuning(self, name: str = FINE_TUNING) -> list[dict[str, Any]]:
        """Figures after training on, at each of ``finetune_images``.

        Args:
            name: one of :func:`tunings`.
        """
        config, stages = self.config, [0, *self.config.finetune_images]
        copies = [self.samples.instance(k) for k in range(min(config.finetune_keys, self.keys))]
        own = name == OWN_PICTURES
        runs: list[Iterator[tuple[int, Copy]]] = [
            fine_tune(
                copy, self._made_by(copy) if own else self.clean_pictures, stages,
                seed=config.seed + k,
            )
            for k, copy in enumerate(copies)
        ]  # fmt: skip
        rows = []
        for stage in zip(*runs, strict=True):
            attempt = Attempt(name, float(stage[0][0]))
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
