"""Pictures of a decoder that were turned about their middle, and by how much.

As for crops (grid.py) no key is looked at: a picture is turned back by every angle that is tried,
its middle encoded and decoded again by the original, and turned to where it was. What is lost on
that way is least where the angle is right. To lay the picture itself back, and read that, would
blur it twice; so what reads turns what it makes instead (inversion.py).
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.pretrained.grid import Again, Place

MOST = 15  # degrees to either side, in steps of one
# Then around the best: blocks a side of the part that is looked at, and steps in degrees.
COARSE, FINER = 12, ((20, 0.5), (20, 0.2))
INNER = 0.8  # of its sides a part has in common with itself turned
CLEARLY = 0.8  # of what is lost without a turn: as little must be lost with one
LEAST = 0.75  # degrees, below which a turn is none

Resampled = Callable[[Tensor], Tensor]  # pictures [b, 3, H, W], of the same size


def turned(pictures: Tensor, radians: Tensor, padding: str = "reflection") -> Tensor:
    """Pictures [b, 3, H, W] turned counter-clockwise about their middle (bilinear).

    Args:
        padding: what lies outside, as of ``grid_sample``.
    """
    height, width = pictures.shape[2:]
    c, s, none = radians.cos(), radians.sin(), torch.zeros_like(radians)
    rows = (torch.stack([c, -s * (height / width), none]),
            torch.stack([s * (width / height), c, none]))  # fmt: skip
    matrices = torch.stack(rows)[None].expand(len(pictures), -1, -1)
    where = F.affine_grid(matrices, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, where, padding_mode=padding, align_corners=False)


def inside(picture: Tensor, radians: Tensor) -> Tensor:
    """1 where a turned picture [1, 3, H, W] shows what it showed before, else 0: [1, 1, H, W]."""
    return (turned(torch.ones_like(picture[:, :1]), radians, "zeros") > 0.99).to(picture.dtype)


def between(pictures: Tensor, before: bool) -> Tensor:
    """Pictures [b, 3, H, W] half a pixel to the right and below, or before that, as bilinear
    resampling has them: blurred as a turn blurs them."""
    edges = (1, 0, 1, 0) if before else (0, 1, 0, 1)
    return F.avg_pool2d(F.pad(pictures, edges, mode="replicate"), 2, stride=1)


def lost(
    again: Again, picture: Tensor, there: Resampled, back: Resampled, blocks: int, factor: int
) -> float:
    """Mean square that the middle of a picture [1, 3, H, W] loses on its way there and back.

    Args:
        there, back: what lays its blocks where they were made, and the reverse.
        blocks: of its middle a side.
    """
    side, (height, width) = blocks * factor, picture.shape[2:]
    laid = there(picture.clone())
    row, column = ((whole - side) // 2 // factor * factor for whole in (height, width))
    part = laid[:, :, row : row + side, column : column + side]
    part.copy_(again(part))
    apart = (back(laid) - picture).square()
    kept = (round(INNER * side) - 2 * factor) // 2
    rows, columns = (
        slice(start + side // 2 - kept, start + side // 2 + kept) for start in (row, column)
    )
    return float(apart[..., rows, columns].mean())


@torch.no_grad()
def turn_of(again: Again, picture: Tensor, place: Place, factor: int) -> float:
    """Degrees by which a picture [1, 3, H, W] was turned, 0 unless a turn fits clearly better.

    Args:
        again: the original decoder after its encoder.
        place: where its blocks begin if it was not turned.
        factor: pixels of a block a side.
    """
    fitting = min(picture.shape[2:]) // factor - 1
    if fitting < COARSE:
        return 0.0

    def lost_by(degrees: float, blocks: int) -> float:
        angle = torch.tensor(math.radians(degrees), device=picture.device)
        ways = partial(turned, radians=-angle), partial(turned, radians=angle)
        return lost(again, picture, *ways, min(blocks, fitting), factor)

    top, left = place
    straight = [
        lost(again, cut, there, back, COARSE, factor)
        for cut in {place: picture[:, :, top:, left:], (0, 0): picture}.values()
        # What a turn only blurs, half a pixel blurs as well.
        for there, back in (
            (torch.clone, torch.clone),
            (partial(between, before=False), partial(between, before=True)),
        )
    ]
    tried = {float(d): lost_by(d, COARSE) for d in range(-MOST, MOST + 1) if d}
    best = min(tried, key=tried.__getitem__)
    if tried[best] >= CLEARLY * min(straight):
        return 0.0
    for blocks, step in FINER:
        best = min((best - step, best, best + step), key=partial(lost_by, blocks=blocks))
    return best if abs(best) >= LEAST else 0.0
