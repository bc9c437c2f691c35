"""Something laid over the picture: a rectangle, or text.

Where it lies and its colour follow from uniform numbers, by the same formulas in both forms.
"""

import math
import string
from functools import cache, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from scalefp.perturb.entry import Draw, Rows

# Lines of four to eight letters.
_LETTERS = np.random.default_rng(0)
WORDS = tuple(
    "".join(_LETTERS.choice(list(string.ascii_letters), count))
    for count in _LETTERS.integers(4, 9, size=64)
)
DRAWN = 32  # type size, in pixels, of the words that training scales to theirs
FINER = 2  # samples of a word a side of each pixel


def _draw_colour(draw: Draw) -> tuple[int, ...]:
    """Black, white or any colour, equally often."""
    kind, *colour = draw.random(4)
    return ((0, 0, 0), (255, 255, 255), tuple(int(256 * value) for value in colour))[int(3 * kind)]


def _lay_over(images: Tensor, cover: Tensor, numbers: Tensor) -> Tensor:
    """A colour by ``numbers`` [b, 4] where ``cover`` [b, H, W] is 1; no gradient reaches what is
    covered."""
    kind = (3 * numbers[:, :1]).floor()
    any_colour = (256 * numbers[:, 1:]).floor() / 127.5 - 1
    colours = torch.where(kind == 0, -1.0, torch.where(kind == 1, 1.0, any_colour))
    return images + cover[:, None] * (colours[:, :, None, None] - images)


# A rectangle.


def erasing(image: Image.Image, area: float, draw: Draw) -> Image.Image:
    """A rectangle of that share of the picture, at most twice as wide as high or the reverse."""
    shape, x, y = 2 ** (2 * draw.random() - 1), *draw.random(2)
    width = min(image.width, round(image.width * math.sqrt(area * shape)))
    height = min(image.height, round(image.height * math.sqrt(area / shape)))
    left, top = round(x * (image.width - width)), round(y * (image.height - height))
    changed = image.copy()
    changed.paste(_draw_colour(draw), (left, top, left + width, top + height))
    return changed


def train_erasing(images: Tensor, areas: Tensor, rows: Rows) -> Tensor:
    side = images.shape[-1]
    numbers = rows.numbers
    shape = 2 ** (2 * numbers[:, 0] - 1)
    pixels = torch.arange(side, device=images.device)

    def covered(share: Tensor, place: Tensor) -> Tensor:
        length = (side * share.sqrt()).round().clamp_max(side)
        begin = (place * (side - length)).round()[:, None]
        return (pixels >= begin) & (pixels < begin + length[:, None])  # [b, side]

    across, down = covered(areas * shape, numbers[:, 1]), covered(areas / shape, numbers[:, 2])
    return _lay_over(images, (down[:, :, None] & across[:, None]).float(), numbers[:, 3:7])


# Text.


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _write(mask: Image.Image, word: str, size: int, x: float, y: float) -> tuple[float, float]:
    """Write at x, y in 0..1 of the free way; how wide and high it was."""
    canvas, font = ImageDraw.Draw(mask), _font(size)
    left, top, right, bottom = canvas.textbbox((0, 0), word, font=font)
    width, height = right - left, bottom - top
    place = (x * (mask.width - width) - left, y * (mask.height - height) - top)
    canvas.text(place, word, fill=255, font=font)
    return width, height


def text(image: Image.Image, size: float, draw: Draw) -> Image.Image:
    """A line of letters, whose type has that share of the picture's height."""
    word, x, y = draw.random(3)
    mask = Image.new("L", image.size)
    pixels = round(size * image.height)
    if pixels > 0:
        _write(mask, WORDS[int(len(WORDS) * word)], pixels, x, y)
    return Image.composite(Image.new("RGB", image.size, _draw_colour(draw)), image, mask)


@cache
def _written(device: torch.device) -> tuple[Tensor, Tensor]:
    """Every word in type of ``DRAWN`` pixels, in the upper left of a mask [n, 1, H, W], and their
    widths and heights [n, 2]."""
    masks, sizes = [], []
    for word in WORDS:
        mask = Image.new("L", (8 * DRAWN, 2 * DRAWN))
        sizes.append(_write(mask, word, DRAWN, 0, 0))
        masks.append(np.asarray(mask, dtype=np.float32) / 255)
    return torch.from_numpy(np.stack(masks))[:, None].to(device), torch.tensor(sizes).to(device)


def train_text(images: Tensor, sizes: Tensor, rows: Rows) -> Tensor:
    side, numbers = images.shape[-1], rows.numbers
    masks, lengths = _written(images.device)
    number = (len(WORDS) * numbers[:, 0]).long()
    pixels = (sizes * side).round()
    zoom = DRAWN / pixels.clamp_min(1)[:, None]  # pixels of the mask for one of the picture
    free = side - lengths[number] / zoom
    corner = numbers[:, 1:3] * free
    # From the picture's coordinates, -1..1, to the mask's.
    shift = zoom * (side / 2 - corner)
    scale, none = zoom[:, 0] * (side / 2), torch.zeros_like(pixels)
    x, y = masks.shape[3] / 2, masks.shape[2] / 2
    matrices = [scale / x, none, shift[:, 0] / x - 1, none, scale / y, shift[:, 1] / y - 1]
    size = [len(images), 1, FINER * side, FINER * side]
    where = F.affine_grid(torch.stack(matrices, 1).view(-1, 2, 3), size, align_corners=False)
    cover = F.avg_pool2d(F.grid_sample(masks[number], where, align_corners=False), FINER)[:, 0]
    return _lay_over(images, cover * (pixels > 0)[:, None, None], numbers[:, 3:7])
