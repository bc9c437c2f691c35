"""Changes of pixel values: brightness, contrast, saturation, hue, gamma, grey, noise.

The real operations are Pillow's; the training forms are the same formulas on [-1, 1] without its
rounding between. Images [b, 3, H, W], strengths [b].
"""

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from scalefp.perturb.entry import Draw, Rows


def _columns(strengths: Tensor) -> Tensor:
    return strengths[:, None, None, None]


def _blend(base: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """Between base (factor 0) and images (1), or beyond."""
    return (base + (images - base) * _columns(factors)).clamp(-1, 1)


def _luma(images: Tensor) -> Tensor:
    """Grey by ITU-R BT.601, as in Pillow's conversion to "L": [b, 1, H, W]."""
    r, g, b = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return 0.299 * r + 0.587 * g + 0.114 * b


def brightness(image: Image.Image, change: float) -> Image.Image:
    """All values times 1 + change."""
    return ImageEnhance.Brightness(image).enhance(1 + change)


def train_brightness(images: Tensor, changes: Tensor, rows: Rows) -> Tensor:
    return _blend(torch.full_like(images[:1, :1, :1, :1], -1), images, 1 + changes)


def contrast(image: Image.Image, change: float) -> Image.Image:
    """Distance from the picture's mean grey times 1 + change."""
    return ImageEnhance.Contrast(image).enhance(1 + change)


def train_contrast(images: Tensor, changes: Tensor, rows: Rows) -> Tensor:
    return _blend(_luma(images).mean((1, 2, 3), keepdim=True), images, 1 + changes)


def saturation(image: Image.Image, change: float) -> Image.Image:
    """Distance from each pixel's own grey times 1 + change."""
    return ImageEnhance.Color(image).enhance(1 + change)


def train_saturation(images: Tensor, changes: Tensor, rows: Rows) -> Tensor:
    return _blend(_luma(images), images, 1 + changes)


def grey(image: Image.Image, share: float) -> Image.Image:
    """Blended with its own grey picture; a share of 1 is grey altogether."""
    return Image.blend(image, image.convert("L").convert("RGB"), share)


def train_grey(images: Tensor, shares: Tensor, rows: Rows) -> Tensor:
    return _blend(_luma(images), images, 1 - shares)


def hue(image: Image.Image, degrees: float) -> Image.Image:
    """Hue (of HSV) turned by that angle."""
    h, s, v = image.convert("HSV").split()
    turned = (np.asarray(h).astype(int) + round(degrees / 360 * 256)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), s, v)).convert("RGB")


def train_hue(images: Tensor, degrees: Tensor, rows: Rows) -> Tensor:
    r, g, b = images.unbind(1)
    high = images.amax(1)
    chroma = high - images.amin(1)
    divisor = torch.where(chroma > 1e-3, chroma, 1.0)  # in a grey pixel all hues are the same
    blue = (r - g) / divisor + 4
    green = (b - r) / divisor + 2
    sector = torch.where(high == r, (g - b) / divisor, torch.where(high == g, green, blue))
    sector = sector + degrees[:, None, None] / 60  # 0 red, 2 green, 4 blue

    def channel(offset: int) -> Tensor:
        k = torch.remainder(sector + offset, 6)
        return high - chroma * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], dim=1)


def gamma(image: Image.Image, stops: float) -> Image.Image:
    """Values in 0..1 raised to the power 2^stops: above 0 darker, below 0 brighter."""
    table = (255 * np.linspace(0, 1, 256) ** 2.0**stops).round().astype(int).tolist()
    return image.point(table * 3)


def train_gamma(images: Tensor, stops: Tensor, rows: Rows) -> Tensor:
    values, power = (images + 1) / 2, _columns(2**stops)
    # Straight below the least 8-bit value, since the slope of a root has no bound at 0.
    least = 1 / 255
    curve = values.clamp_min(least) ** power
    return 2 * torch.where(values < least, values * least ** (power - 1), curve) - 1


def noise(image: Image.Image, std: float, draw: Draw) -> Image.Image:
    """Gaussian noise on every value; ``std`` in units of the range [-1, 1] (0.5 is 64 of 255)."""
    values = np.asarray(image).astype(np.float32)
    values += std * 127.5 * draw.standard_normal(values.shape, dtype=np.float32)
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def train_noise(images: Tensor, stds: Tensor, rows: Rows) -> Tensor:
    assert rows.noise is not None
    return (images + _columns(stds) * rows.noise).clamp(-1, 1)
