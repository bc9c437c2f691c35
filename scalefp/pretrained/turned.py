"""Pictures of a decoder that were turned about their middle, and by how much.

As for crops (grid.py) no key is looked at: a picture is turned back by every angle that is tried,
its middle encoded and decoded again by the original, and turned to where it was. What is lost on
that way is least where the angle is right. To lay the picture itself back, and read that, would
blur it twice; so what reads turns what it makes instead (inversion.py).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.pretrained.grid import Again, Place

MOST = 15  # degrees to either side, in steps of one
# Then around the best: blocks a side of the part that is looked at, and steps in degrees.
COARSE, FINER = 12, ((20, 0.5), (20, 0.2))
INNER = 0.8  # of its sides a part has in common with itself turned
CLEARLY = 0.9  # of what is lost without a turn: as little must be lost with one


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


def lost(again: Again, picture: Tensor, degrees: float, blocks: int, factor: int) -> float:
    """Mean square that the middle of a picture [1, 3, H, W] loses, if it was turned so far.

    Args:
        blocks: of its middle a side.
    """
    side, (height, width) = blocks * factor, picture.shape[2:]
    angle = torch.tensor(math.radians(degrees), device=picture.device)
    back = turned(picture, -angle)
    row, column = ((whole - side) // 2 // factor * factor for whole in (height, width))
    part = back[:, :, row : row + side, column : column + side]
    part.copy_(again(part))
    apart = (turned(back, angle) - picture).square()
    kept = (round(INNER * side) - 2 * factor) // 2
    middle = apart[..., row + side // 2 - kept : row + side // 2 + kept,
                   column + side // 2 - kept : column + side // 2 + kept]  # fmt: skip
    return float(middle.mean())


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
    top, left = place
    straight = min(
        lost(again, cut, 0, COARSE, factor) for cut in (picture, picture[:, :, top:, left:])
    )
    tried = {float(d): lost(again, picture, d, COARSE, factor) for d in range(-MOST, MOST + 1) if d}
    best = min(tried, key=tried.__getitem__)
    if tried[best] >= CLEARLY * straight:
        return 0.0
    for blocks, step in FINER:
        near = [best - step, best, best + step]
        best = min(near, key=lambda d: lost(again, picture, d, min(blocks, fitting), factor))
    return best
