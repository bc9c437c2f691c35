"""Where a picture lies within a larger one, as in a screenshot: flat margins tell."""

import torch
from torch import Tensor

FLAT = 4 / 127.5  # margins of files are even but for so much
WIDEST = 0.6  # of the whole side: margins that are wider together hold hardly a picture


def flat_rows(image: Tensor) -> int:
    """How many rows from the top of one image [3, H, W] have the colour of its first."""
    colour = image[:, 0].mean(dim=1)[:, None, None]
    uneven = ((image - colour).abs() > FLAT).any(dim=2).any(dim=0)
    return int(uneven.int().argmax()) if uneven.any() else len(uneven)


def margin_frames(image: Tensor) -> Tensor | None:
    """Frames [f, 2, 3] of a picture within one image [3, R, R]; None if it has no flat margins.

    The whole picture fills what the margins leave; and in case a side of it is flat itself, a
    square of the longer or shorter side in each corner of that. Where that is a square it is the
    only one (f = 1), else corners of one side coincide (f = 5).
    """
    sides = [image, image.flip(1), image.transpose(1, 2), image.transpose(1, 2).flip(1)]
    top, bottom, left, right = (flat_rows(side) / image.shape[-1] for side in sides)
    if not 0 < max(top + bottom, left + right) < WIDEST:
        return None
    x0, x1, y0, y1 = 2 * left - 1, 1 - 2 * right, 2 * top - 1, 1 - 2 * bottom
    wide, high = 2 / (x1 - x0), 2 / (y1 - y0)
    frames = [[[wide, 0, -wide * (x0 + x1) / 2], [0, high, -high * (y0 + y1) / 2]]]
    for side in (min(wide, high), max(wide, high)):
        for x in (-1 - side * x0, 1 - side * x1):
            for y in (-1 - side * y0, 1 - side * y1):
                frames.append([[side, 0, x], [0, side, y]])
    different: Tensor = torch.tensor(frames).round(decimals=5).unique(dim=0)
    return different.to(image)
