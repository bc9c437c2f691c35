"""Several perturbations in a row, by level 1 to 10.

The published study has such levels but does not say what they mean. Here level L is, in this
order: the middle 1 - 0.05 L of each side, resized back; a blur of kernel 1.5 L (pixels of a
picture of 128); noise of standard deviation 0.025 L; JPEG of quality 100 - 8 L. So level 5 has crop
0.75, kernel 7.5, noise 0.125 and quality 60, level 10 crop 0.5, kernel 15, noise 0.25 and quality
20: every level is harder than any one of its parts, and level 10 has the strengths up to which the
parts have targets (noise: half of it).
"""

from PIL import Image
from torch import Tensor

from scalefp.perturb.codecs import jpeg, train_jpeg
from scalefp.perturb.colour import noise, train_noise
from scalefp.perturb.entry import Draw, Rows
from scalefp.perturb.filters import blur, train_blur
from scalefp.perturb.geometry import crop, warp_crop

CROP, KERNEL, NOISE, QUALITY = 0.05, 1.5, 0.025, 8  # a level


def combined(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    """Crop, blur, noise and JPEG of that level."""
    image = blur(crop(image, 1 - CROP * level), KERNEL * level)
    return jpeg(noise(image, NOISE * level, draw), 100 - QUALITY * level)


def warp_combined(levels: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    return warp_crop(1 - CROP * levels, rows)


def train_combined(images: Tensor, levels: Tensor, rows: Rows) -> Tensor:
    images = train_noise(train_blur(images, KERNEL * levels, rows), NOISE * levels, rows)
    return train_jpeg(images, 100 - QUALITY * levels, rows)
