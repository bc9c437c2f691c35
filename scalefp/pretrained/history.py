"""What a file has been through, as far as it shows, and what is left of a picture in it.

JPEG and resizing take what is fine from a picture. Whoever compares a made picture with such a file
pixel by pixel takes that for something that a key did. So pictures of the original generator are
put through the same, and for each frequency of blocks of 8x8 pixels it is fitted what comes through
(the best linear gain, as by Bussgang, 1952) and how much is added that has nothing to do with it.
In these terms a made picture and a file are compared: what says little counts little.

What a file has been through is told by the file alone. JPEG changes a picture least that went
through the same quality before (Fan and de Queiroz, 2003). A resized one has less of the high
frequencies than the generator's pictures have. No key is looked at, so p-values stay exact.
"""

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scalefp.data.images import to_float, to_pil, to_uint8
from scalefp.perturb import PERTURBATIONS, jpeg
from scalefp.perturb.filters import resize_matrix

BLOCK = 8  # pixels a side, as of JPEG
QUALITIES = range(20, 99)  # of JPEG that are told apart
CLEARLY = 0.8  # of what a better quality loses: a quality that loses less was used before
THROUGH = 0.1  # least gain of a coefficient that is compared: of others a file says nothing
LEAST = 1e-3  # of 255: a mean square of no account
SIZES = (0.4, 0.5, 0.6, 0.75)  # to which a picture may have been resized, and back
ROUNDING = (2 / 255) ** 2 / 12  # mean square of what 8 bits add to a pixel in [-1, 1]
PLACES = (0, 4, 5)  # dimensions of coefficients [b, 3, 8, 8, R/8, R/8] over which is averaged

Change = tuple[str, float]  # a perturbation's name and strength


@cache
def _bases() -> tuple[Tensor, Tensor]:
    """Colours [3, 3], grey as of JPEG first, and cosines [8, 8], both with orthonormal rows."""
    colours = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
    places = torch.arange(BLOCK)
    cosines = (math.pi / BLOCK * places[:, None] * (places + 0.5)).cos() * (2 / BLOCK) ** 0.5
    cosines[0] /= 2**0.5
    return torch.linalg.qr(colours.T)[0].T, cosines


def coefficients(pictures: Tensor) -> Tensor:
    """Pictures [b, 3, R, R] as colours and cosines of their blocks, [b, 3, 8, 8, R/8, R/8]: the
    same numbers, turned."""
    colours, cosines = (basis.to(pictures) for basis in _bases())
    blocks = pictures.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
    return torch.einsum("dc,ui,vj,bcpiqj->bduvpq", colours, cosines, cosines, blocks)


def after(files: list[Image.Image], change: Change | None) -> Tensor:
    """Pictures [b, 3, R, R] in [-1, 1] of files after a change."""
    if change is not None:
        name, strength = change
        operation, chance = PERTURBATIONS[name].apply, np.random.default_rng(0)
        files = [operation(file, strength, chance) for file in files]
    return to_float(torch.stack([torch.from_numpy(np.array(f)).permute(2, 0, 1) for f in files]))


def resized(pictures: Tensor, resizing: Tensor | None) -> Tensor:
    """Square pictures [b, 3, R, R] after what resizing does to rows and columns [R, R], or any
    without it."""
    return pictures if resizing is None else resizing @ pictures @ resizing.T


def jpeg_quality(file: Image.Image) -> int | None:
    """The quality of the JPEG file that a picture was, if that shows."""
    pixels = np.array(file, dtype=np.float32)
    lost = np.array(
        [np.square(np.array(jpeg(file, quality)) - pixels).mean() for quality in QUALITIES]
    )
    # Of a picture that is new to JPEG, the better the quality the less is lost.
    better = np.maximum.accumulate(lost[::-1])[::-1]
    beside = (lost[:-1] + LEAST) / (better[1:] + LEAST)
    return QUALITIES[int(beside.argmin())] if beside.min() < CLEARLY else None


@dataclass(frozen=True)
class Passage:
    """What comes of pictures in files: of what resizing does to rows and columns, each coefficient
    times a gain and an offset, all divided by the deviation of what is added."""

    resizing: Tensor | None  # [R, R]
    gain: Tensor
    offset: Tensor
    scale: Tensor  # 1 / deviation, 0 where nothing comes through; all three [1, 3, 8, 8, 1, 1]

    def expected(self, made: Tensor) -> Tensor:
        """Of made pictures [b, 3, R, R] what a file would have of them, [b, 3 R R]."""
        seen = coefficients(resized(made, self.resizing))
        return ((seen * self.gain + self.offset) * self.scale).flatten(1)

    def to(self, device: torch.device) -> "Passage":
        """The same on a device."""
        gain, offset, scale = (part.to(device) for part in (self.gain, self.offset, self.scale))
        resizing = None if self.resizing is None else self.resizing.to(device)
        return Passage(resizing, gain, offset, scale)

    def found(self, picture: Tensor) -> Tensor:
        """The same of a file's own picture [1, 3, R, R]."""
        return (coefficients(picture) * self.scale).flatten(1)


@dataclass(frozen=True)
class Histories:
    """Tells what a file has been through.

    Attributes:
        files: pictures of the generator without a key, that have been through nothing.
    """

    files: list[Image.Image]
    known: dict[Change | None, tuple[Passage, Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, pictures: Tensor) -> "Histories":
        """From pictures [b, 3, R, R] in [-1, 1]."""
        return cls(to_pil(to_uint8(pictures.clamp(-1, 1))))

    def _of(self, change: Change | None) -> tuple[Passage, Tensor, Tensor]:
        """What comes through a change; and mean and variance of coefficients after it."""
        if change not in self.known:
            resizing = None
            if change is not None and change[0] == "resize":
                resizing = resize_matrix(self.files[0].width, change[1])
            before = coefficients(resized(after(self.files, None), resizing))
            later = coefficients(after(self.files, change))
            mean, middle = (one.mean(PLACES, keepdim=True) for one in (before, later))
            apart, shown = before - mean, later - middle
            variance = shown.square().mean(PLACES, keepdim=True)
            if change is None:
                none = torch.zeros_like(mean)
                passage = Passage(resizing, none + 1, none, none + 1)
            else:
                power = apart.square().mean(PLACES, keepdim=True) + ROUNDING
                gain = (apart * shown).mean(PLACES, keepdim=True) / power
                added = (shown - gain * apart).square().mean(PLACES, keepdim=True)
                scale = (added + ROUNDING).rsqrt() * (gain > THROUGH)
                passage = Passage(resizing, gain, middle - gain * mean, scale)
            self.known[change] = passage, middle, variance + ROUNDING
        return self.known[change]

    def told(self, picture: Tensor) -> Change | None:
        """What a file's picture [1, 3, R, R] has been through."""
        (file,) = to_pil(to_uint8(picture))
        quality = jpeg_quality(file)
        if quality is not None:
            return "jpeg", quality
        seen = coefficients(picture)

        def unlikely(change: Change | None) -> float:
            _, mean, variance = self._of(change)
            return float((variance.log() + (seen - mean).square() / variance).sum())

        changes: list[Change | None] = [None, *(("resize", size) for size in SIZES)]
        return min(changes, key=unlikely)

    def passage(self, change: Change | None) -> Passage:
        """What comes through a change."""
        return self._of(change)[0]
