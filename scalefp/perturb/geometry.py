"""Changes of geometry: crops, turns, flips, a picture within a larger one.

Each has the real operation on whole pixels by Pillow and, for training, the matrix of the same
map between output and input coordinates in [-1, 1] (x to the right, y down, +-1 at the outer edges
of the border pixels: ``torch.nn.functional.affine_grid`` with ``align_corners=False``). The
matrices hold for square pictures.
"""

import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from scalefp.perturb.entry import Draw, Rows

BILINEAR = Image.Resampling.BILINEAR
WHITE = 255


def _matrices(a: Tensor, b: Tensor, x: Tensor, c: Tensor, d: Tensor, y: Tensor) -> Tensor:
    """[b, 2, 3] of the rows (a, b, x) and (c, d, y)."""
    return torch.stack([a, b, x, c, d, y], dim=1).view(-1, 2, 3)


def _scaled(scale: Tensor, x: Tensor, y: Tensor) -> Tensor:
    none = torch.zeros_like(scale)
    return _matrices(scale, none, x, none, scale, y)


def _draw_grey(draw: Draw) -> int:
    """What a picture is laid on: white half of the time, else any grey, 0..255."""
    white, grey = draw.random(2)
    return WHITE if white < 0.5 else int(256 * grey)


def _greys(white: Tensor, grey: Tensor) -> Tensor:
    """The same from uniform numbers [b], in [-1, 1]."""
    return torch.where(white < 0.5, 1.0, (256 * grey).floor() / 127.5 - 1)


# Crops, resized back.


def _crop(image: Image.Image, kept: float, x: float, y: float) -> Image.Image:
    """Keep that share of each side, at x, y in 0..1 of the free way, resized to the full size."""
    width, height = (max(1, round(kept * side)) for side in image.size)
    left, top = round(x * (image.width - width)), round(y * (image.height - height))
    box = (left, top, left + width, top + height)
    return image.crop(box).resize(image.size, BILINEAR)


def crop(image: Image.Image, kept: float) -> Image.Image:
    """The middle, ``kept`` of each side, resized back (bilinear)."""
    return _crop(image, kept, 0.5, 0.5)


def warp_crop(kept: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    none = torch.zeros_like(kept)
    return _scaled(kept, none, none), torch.ones_like(kept)


def crop_random(image: Image.Image, kept: float, draw: Draw) -> Image.Image:
    """``kept`` of each side at a random place, resized back (bilinear)."""
    x, y = draw.random(2).tolist()
    return _crop(image, kept, x, y)


def warp_crop_random(kept: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    x, y = ((2 * rows.numbers[:, :2] - 1) * (1 - kept[:, None])).unbind(1)
    return _scaled(kept, x, y), torch.ones_like(kept)


# Turns and flips.


def rotation(image: Image.Image, degrees: float, draw: Draw) -> Image.Image:
    """Counter-clockwise about the middle (bilinear); corners are white or grey."""
    fill = (_draw_grey(draw),) * 3
    return image.rotate(degrees, resample=BILINEAR, fillcolor=fill)


def _turned(degrees: Tensor) -> Tensor:
    # Counter-clockwise on screen (y down), from output to input.
    c, s = (degrees * (math.pi / 180)).cos(), (degrees * (math.pi / 180)).sin()
    none = torch.zeros_like(c)
    return _matrices(c, -s, none, s, c, none)


def warp_rotation(degrees: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    return _turned(degrees), _greys(*rows.numbers[:, :2].unbind(1))


def _quarters(degrees: float) -> int:
    return math.floor(degrees / 90 + 0.5) % 4


def quarter_turn(image: Image.Image, degrees: float) -> Image.Image:
    """Counter-clockwise by the nearest multiple of 90 degrees.

    A picture that is not square is resized back to its own size after a quarter.
    """
    turns = (None, *(getattr(Image.Transpose, f"ROTATE_{d}") for d in (90, 180, 270)))
    turn = turns[_quarters(degrees)]
    turned = image if turn is None else image.transpose(turn)
    return turned if turned.size == image.size else turned.resize(image.size, BILINEAR)


def warp_quarter_turn(degrees: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    return _turned(90 * (degrees / 90 + 0.5).floor()).round(), torch.ones_like(degrees)


def flip(image: Image.Image, flipped: float) -> Image.Image:
    """Left and right exchanged where ``flipped`` is at least 1/2."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped >= 0.5 else image


def warp_flip(flipped: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    none, one = torch.zeros_like(flipped), torch.ones_like(flipped)
    return _matrices(torch.where(flipped >= 0.5, -one, one), none, none, none, one, none), one


# A picture within a larger one.


def screenshot(image: Image.Image, side: float, draw: Draw) -> Image.Image:
    """Laid on a white or grey canvas, of whose sides it takes up ``side``; then resized back."""
    x, y = draw.random(2).tolist()
    size = (round(image.width / side), round(image.height / side))
    canvas = Image.new("RGB", size, (_draw_grey(draw),) * 3)
    canvas.paste(image, (round(x * (size[0] - image.width)), round(y * (size[1] - image.height))))
    return canvas.resize(image.size, BILINEAR)


def warp_screenshot(side: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    x, y = ((1 - 2 * rows.numbers[:, :2]) * (1 / side - 1)[:, None]).unbind(1)
    return _scaled(1 / side, x, y), _greys(*rows.numbers[:, 2:4].unbind(1))


# Training.


def warp_images(images: Tensor, matrices: Tensor, fill: Tensor, oversample: int = 1) -> Tensor:
    """Sample images bilinearly where the matrices point; differentiable.

    Args:
        images: [b, 3, H, H].
        matrices: [b, 2, 3], from output to input coordinates.
        fill: [b], the grey of what lies outside.
        oversample: samples a side of each output pixel, of which the mean is taken: above 1 for
            images that become smaller, which would alias otherwise.

    Returns:
        [b, 3, H, H].
    """
    b, channels, height, width = images.shape
    size = [b, channels, oversample * height, oversample * width]
    where = F.affine_grid(matrices, size, align_corners=False)
    fill = fill[:, None, None, None]
    # Outside, grid_sample has 0.
    sampled = F.grid_sample(images - fill, where, align_corners=False) + fill
    return F.avg_pool2d(sampled, oversample) if oversample > 1 else sampled


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Matrices [b, 2, 3] of what is sampled by ``first`` and then by ``second``."""
    linear = first[:, :, :2] @ second[:, :, :2]
    return torch.cat([linear, first[:, :, :2] @ second[:, :, 2:] + first[:, :, 2:]], dim=2)
