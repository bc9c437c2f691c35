"""Bit accuracy and attribution against the strength of every image perturbation.

Each strength is one point: instances' files go through the real operation on 8 bits, and the key is
read from what comes out. Points that a target names are measured on many keys, those that only draw
a curve on fewer. See :class:`.samples.EvaluateConfig` for what a decoder that looks for
crops and turns changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from scalefp.data.images import to_pil
from scalefp.errors import UserError
from scalefp.evaluation.samples import EvaluateConfig, Samples, read_logits, reading_figures, stream
from scalefp.evaluation.targets import READING_TARGETS
from scalefp.metrics import bit_accuracy
from scalefp.perturb import PERTURBATIONS

if TYPE_CHECKING:
    from scalefp.evaluation.method import Measured

CLEAN = "clean"  # the instance's PNG file as it is


@dataclass(frozen=True)
class Point:
    """One strength of one perturbation."""

    perturbation: str
    strength: float
    has_target: bool

    @property
    def name(self) -> str:
        """``clean``, ``jpeg 50``, ``crop 0.4766``."""
        if self.perturbation == CLEAN:
            return CLEAN
        return f"{self.perturbation} {self.strength:.4g}"

    @property
    def moves(self) -> bool:
        """Whether pixels lie elsewhere afterwards."""
        return self.perturbation != CLEAN and PERTURBATIONS[self.perturbation].warp is not None

    def apply(self, images: list[Image.Image], rng: np.random.Generator) -> list[Image.Image]:
        """The images after the perturbation."""
        if self.perturbation == CLEAN:
            return images
        operation = PERTURBATIONS[self.perturbation].apply
        return [operation(image, self.strength, rng) for image in images]


def points(config: EvaluateConfig) -> list[Point]:
    """Every point to measure: clean files first, then the table's strengths and the targets'.

    Raises:
        UserError: a perturbation that the table does not have.
    """
    names = list(PERTURBATIONS) if config.perturbations is None else config.perturbations
    result = [Point(CLEAN, 0.0, True)]
    for name in names:
        if name not in PERTURBATIONS:
            known = ", ".join(PERTURBATIONS)
            raise UserError(f"unknown perturbation {name!r} in perturbations; known are {known}.")
        entry = PERTURBATIONS[name]
        targets = {t.strength for t in READING_TARGETS if t.perturbation == name}
        strengths = [*entry.test_strengths, *sorted(targets - {*entry.test_strengths})]
        result += [Point(name, float(strength), strength in targets) for strength in strengths]
    return result


def measure_point(
    model: Measured, samples: Samples, point: Point, config: EvaluateConfig
) -> dict[str, Any]:
    """Figures of one point: :func:`reading_figures`, and

    ``perturbation``, ``strength``, ``keys``; ``thorough``: whether images were read as
    :meth:`Model.decode` reads what is unclear, or as they are; ``compared``: where there are two
    ways, the number of images read in both and the bit accuracy of each.
    """
    thorough = point.moves and model.searches
    keys, each = config.keys, config.images_per_key
    if thorough:
        keys = config.moved_keys if point.has_target else config.moved_curve_keys
        each = each if point.has_target else 1
    elif not point.has_target:
        keys = config.curve_keys
    keys = min(keys, config.keys)
    files = point.apply(
        to_pil(samples.images[:keys, :each].flatten(0, 1)), stream(config, point.name)
    )
    bits = samples.bits[:keys]

    def read(some: list[Image.Image], *, thorough: bool) -> np.ndarray:
        return read_logits(model, some, len(some), config.batch_size, point.name, thorough=thorough)

    logits = read(files, thorough=thorough)
    compared = None
    if thorough or (point.has_target and model.searches and config.thorough_images):
        # Of as many keys as possible, the first image of each, then the second, ...
        count = len(files) if thorough else min(config.thorough_images, len(files))
        order = np.arange(len(files)).reshape(keys, each).T.ravel()[:count]
        some, own = [files[i] for i in order], bits[order // each]
        other = read(some, thorough=not thorough)
        means = [float(bit_accuracy(x, own).mean()) for x in (logits[order], other)]
        compared = {"images": count, "plain": means[thorough], "thorough": means[not thorough]}
    return {
        "perturbation": point.perturbation,
        "strength": point.strength,
        "keys": keys,
        "thorough": thorough,
        "compared": compared,
        **reading_figures(logits.reshape(keys, each, -1), bits, config),
    }
