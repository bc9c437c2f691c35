"""Image perturbations that a fingerprint must survive: one table for training, evaluation, tests.

Each entry has the real operation on an 8-bit picture, a random range of strengths for training and
the strengths to test at. Training runs the real operation too and passes gradients straight
through (Bengio et al. 2013, arXiv 1308.3432), so that what is trained on is what comes back from
a file.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scalefp.errors import UserError
from scalefp.images import to_float, to_uint8

Operation = Callable[[Image.Image, float], Image.Image]


@dataclass(frozen=True)
class Perturbation:
    """One kind of change to an image.

    Attributes:
        apply: (RGB picture, strength) -> RGB picture of the same size.
        identity: the strength at which nothing changes, up to the codec's own rounding.
        train_range: strengths drawn uniformly in training.
        test_strengths: strengths evaluated.
    """

    apply: Operation
    identity: float
    train_range: tuple[float, float]
    test_strengths: tuple[float, ...]


def reencode(image: Image.Image, format: str, **options: Any) -> Image.Image:
    """The picture as it comes back from a file of that format, with Pillow's options for it."""
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return Image.open(buffer).convert("RGB")


def jpeg(image: Image.Image, quality: float) -> Image.Image:
    """JPEG with 4:2:0 chroma, quality 1..100."""
    return reencode(image, "JPEG", quality=round(quality))


def webp(image: Image.Image, quality: float) -> Image.Image:
    """Lossy WebP, quality 1..100."""
    return reencode(image, "WEBP", quality=round(quality))


def resize(image: Image.Image, factor: float) -> Image.Image:
    """Resized by a factor and back (bilinear with antialiasing)."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    small = image.resize(size, Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.BILINEAR)


PERTURBATIONS: dict[str, Perturbation] = {
    "jpeg": Perturbation(jpeg, 100, (60, 100), (95, 90, 75, 50)),
    "webp": Perturbation(webp, 100, (60, 100), (95, 90, 75, 50)),
    "resize": Perturbation(resize, 1.0, (0.5, 1.5), (2.0, 0.75, 0.5)),
}


def check_names(probabilities: Mapping[str, float]) -> None:
    """Raise :class:`UserError` for unknown perturbations or probabilities above 1 in sum."""
    for name, probability in probabilities.items():
        if name not in PERTURBATIONS:
            raise UserError(
                f"unknown perturbation {name!r}; known are {', '.join(sorted(PERTURBATIONS))}"
            )
        if not 0 <= probability <= 1:
            raise UserError(
                f"the probability of {name} must lie between 0 and 1, not {probability}"
            )
    if sum(probabilities.values()) > 1 + 1e-9:
        raise UserError("the probabilities of the perturbations add up to more than 1")


def through_file(
    images: Tensor, probabilities: Mapping[str, float], generator: torch.Generator
) -> Tensor:
    """What a decoder sees of ``images`` once they have been through an 8-bit file.

    Every image is rounded to 8 bits; besides, each one independently meets at most one of the
    named perturbations. Gradients pass straight through.

    Args:
        images: [b, 3, H, W], nominal range [-1, 1].
        probabilities: perturbation name -> probability; the rest stays as it is.
        generator: CPU source of randomness.

    Returns:
        [b, 3, H, W] in [-1, 1], float32.
    """
    pixels = to_uint8(images.detach()).cpu()
    choice = torch.rand(len(pixels), generator=generator).tolist()
    place = torch.rand(len(pixels), generator=generator).tolist()
    for i, draw in enumerate(choice):
        for name, probability in probabilities.items():
            if draw < probability:
                entry = PERTURBATIONS[name]
                low, high = entry.train_range
                picture = Image.fromarray(pixels[i].permute(1, 2, 0).numpy())
                changed = np.array(entry.apply(picture, low + place[i] * (high - low)))
                pixels[i] = torch.from_numpy(changed).permute(2, 0, 1)
                break
            draw -= probability
    seen = to_float(pixels).to(images.device)
    return images + (seen - images).detach()
