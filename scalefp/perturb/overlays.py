"""Something laid over the picture: a rectangle, or text.

A layer is where it covers, [H, W] in 0..1, and its colour; the real operation composes it by
Pillow, the training form by the same formula.
"""

import math
import string
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from scalefp.perturb.entry import Draw, Operation, TrainingForm

# (width, height, strength, draw) -> mask of mode L, RGB colour.
Layer = Callable[[int, int, float, Draw], tuple[Image.Image, tuple[int, ...]]]


def _draw_colour(draw: Draw) -> tuple[int, ...]:
    """Black, white or any colour, equally often."""
    kind, colour = draw.integers(3), draw.integers(256, size=3).tolist()
    return ((0, 0, 0), (255, 255, 255), tuple(colour))[kind]


def rectangle(
    width: int, height: int, area: float, draw: Draw
) -> tuple[Image.Image, tuple[int, ...]]:
    """A rectangle of that share of the picture, at most twice as wide as high or the reverse."""
    shape = 2 ** draw.uniform(-1, 1)
    w = min(width, round(width * math.sqrt(area * shape)))
    h = min(height, round(height * math.sqrt(area / shape)))
    left, top = round(draw.random() * (width - w)), round(draw.random() * (height - h))
    mask = Image.new("L", (width, height))
    mask.paste(255, (left, top, left + w, top + h))
    return mask, _draw_colour(draw)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def text(width: int, height: int, size: float, draw: Draw) -> tuple[Image.Image, tuple[int, ...]]:
    """A line of four to eight random letters, whose type has that share of the picture's height."""
    letters = "".join(draw.choice(list(string.ascii_letters), draw.integers(4, 9)))
    x, y, colour = draw.random(), draw.random(), _draw_colour(draw)
    mask = Image.new("L", (width, height))
    pixels = round(size * height)
    if pixels > 0:
        canvas, font = ImageDraw.Draw(mask), _font(pixels)
        left, top, right, bottom = canvas.textbbox((0, 0), letters, font=font)
        place = (x * (width - (right - left)) - left, y * (height - (bottom - top)) - top)
        canvas.text(place, letters, fill=255, font=font)
    return mask, colour


def real(layer: Layer) -> Operation:
    """Lay it over an 8-bit picture."""

    def apply(image: Image.Image, strength: float, draw: Draw) -> Image.Image:
        mask, colour = layer(*image.size, strength, draw)
        return Image.composite(Image.new("RGB", image.size, colour), image, mask)

    return apply


def training(layer: Layer) -> TrainingForm:
    """Lay it over images [b, 3, H, W]; no gradient reaches what it covers."""

    def form(images: Tensor, strengths: Tensor, draws: Sequence[Draw]) -> Tensor:
        height, width = images.shape[2:]
        layers = [
            layer(width, height, strength, draw)
            for strength, draw in zip(strengths.tolist(), draws, strict=True)
        ]
        masks = np.stack([np.asarray(mask, dtype=np.float32) / 255 for mask, _ in layers])
        cover = torch.from_numpy(masks).to(images.device)[:, None]
        colours = torch.tensor([colour for _, colour in layers], device=images.device) / 127.5 - 1
        return images + cover * (colours[:, :, None, None] - images)

    return form
