"""Changes of geometry: crops, turns, flips, a picture within a larger one.

Each has the real operation on whole pixels by Pillow and, for training, the matrix of the same
map between output and input coordinates in [-1, 1] (x to the right, y down, +-1 at the outer edges
of the border pixels: ``torch.nn.functional.affine_grid`` with ``align_corners=False``). The
matrices hold for square pictures.
"""

import math

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from scalefp.perturb.entry import Draw, FloatArray

BILINEAR = Image.Resampling.BILINEAR
WHITE = 255


def _matrix(scale: float, x: float = 0.0, y: float = 0.0) -> FloatArray:
    return np.array([[scale, 0.0, x], [0.0, scale, y]])


def _draw_grey(draw: Draw) -> int:
    """What a picture is laid on: white half of the time, else any grey, 0..255."""
    white, grey = draw.random() < 0.5, draw.integers(256)
    return WHITE if white else int(grey)


def _to_float(grey: int) -> float:
    return grey / 127.5 - 1


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


def warp_crop(kept: float, draw: Draw) -> tuple[FloatArray, float]:
    return _matrix(kept), _to_float(WHITE)


def crop_random(image: Image.Image, kept: float, draw: Draw) -> Image.Image:
    """``kept`` of each side at a random place, resized back (bilinear)."""
    x, y = draw.random(2).tolist()
    return _crop(image, kept, x, y)


def warp_crop_random(kept: float, draw: Draw) -> tuple[FloatArray, float]:
    x, y = ((2 * draw.random(2) - 1) * (1 - kept)).tolist()
    return _matrix(kept, x, y), _to_float(WHITE)


# Turns and flips.


def rotation(image: Image.Image, degrees: float, draw: Draw) -> Image.Image:
    """Counter-clockwise about the middle (bilinear); corners are white or grey."""
    fill = (_draw_grey(draw),) * 3
    return image.rotate(degrees, resample=BILINEAR, fillcolor=fill)


def _turn_matrix(degrees: float) -> FloatArray:
    # Counter-clockwise on screen (y down), from output to input.
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0]])


def warp_rotation(degrees: float, draw: Draw) -> tuple[FloatArray, float]:
    return _turn_matrix(degrees), _to_float(_draw_grey(draw))


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


def warp_quarter_turn(degrees: float, draw: Draw) -> tuple[FloatArray, float]:
    return _turn_matrix(90 * _quarters(degrees)).round(), _to_float(WHITE)


def flip(image: Image.Image, flipped: float) -> Image.Image:
    """Left and right exchanged where ``flipped`` is at least 1/2."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped >= 0.5 else image


def warp_flip(flipped: float, draw: Draw) -> tuple[FloatArray, float]:
    return np.array([[-1.0 if flipped >= 0.5 else 1.0, 0, 0], [0, 1, 0]]), _to_float(WHITE)


# A picture within a larger one.


def screenshot(image: Image.Image, side: float, draw: Draw) -> Image.Image:
    """Laid on a white or grey canvas, of whose sides it takes up ``side``; then resized back."""
    x, y = draw.random(2).tolist()
    size = (round(image.width / side), round(image.height / side))
    canvas = Image.new("RGB", size, (_draw_grey(draw),) * 3)
    canvas.paste(image, (round(x * (size[0] - image.width)), round(y * (size[1] - image.height))))
    return canvas.resize(image.size, BILINEAR)


def warp_screenshot(side: float, draw: Draw) -> tuple[FloatArray, float]:
    x, y = ((1 - 2 * draw.random(2)) * (1 / side - 1)).tolist()
    return _matrix(1 / side, x, y), _to_float(_draw_grey(draw))


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
