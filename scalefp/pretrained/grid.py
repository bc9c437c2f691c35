"""Where a cropped picture of a decoder lies on the grid of its blocks.

A decoder of latents makes pictures of blocks, of 8 pixels a side for most. What it made is nearly
what comes back when the original encodes and decodes it again, without any key, but only if its
blocks lie where they were: in between, half as much again is lost. So all places of a block are
tried on a small part of the picture, and the best of them on larger ones. No key is looked at, so
p-values stay exact.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Sides of the parts in blocks, and how many of the places that were tried are left after each.
ROUNDS = ((8, 12), (12, 4), (20, 1))
SMALLEST = 6  # blocks a side, below which a picture is not looked at
CLEARLY = 0.97  # of what is lost where a picture begins: as little must be lost to begin elsewhere
AT_ONCE = 8  # parts in a batch
STRIDE = 8  # pixels between the parts among which one is chosen

Again = Callable[[Tensor], Tensor]  # parts [b, 3, H, W] of a picture, encoded and decoded
Place = tuple[int, int]  # row and column


def most_detailed(picture: Tensor, side: int) -> Place:
    """Corner of the square, of so many pixels a side, in which neighbours in a picture
    [1, 3, H, W] differ most."""
    corner = picture[..., :-1, :-1]
    change = (picture[..., 1:, :-1] - corner).square() + (picture[..., :-1, 1:] - corner).square()
    sums = F.avg_pool2d(change.mean(dim=1), side - 1, stride=STRIDE)[0]
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return row * STRIDE, column * STRIDE


def lost(again: Again, picture: Tensor, places: list[Place], blocks: int, factor: int) -> Tensor:
    """Mean square that a part of a picture loses, for each place of its grid.

    The part has so many blocks a side and is cut at each place anew; what all of these have in
    common, without the block at the border, is compared.

    Args:
        places: of the grid's first line and column in the picture [1, 3, H, W].
    """
    side, spare = blocks * factor, factor - 1
    row, column = most_detailed(picture, side + spare)
    # Where the part begins: on the grid, at most so many pixels further.
    begun = [((top - row) % factor, (left - column) % factor) for top, left in places]
    parts = torch.cat(
        [picture[..., row + y : row + y + side, column + x : column + x + side] for y, x in begun]
    )
    apart = torch.cat([(again(some) - some).square().mean(1) for some in parts.split(AT_ONCE)])
    inner = slice(factor + spare, side - factor)
    common = [
        one[inner.start - y : inner.stop - y, inner.start - x : inner.stop - x]
        for one, (y, x) in zip(apart, begun, strict=True)
    ]
    return torch.stack([one.mean() for one in common])


@torch.no_grad()
def grid_of(again: Again, picture: Tensor, factor: int) -> Place:
    """First row and first column, both less than the factor, at which blocks of a picture
    [1, 3, H, W] begin: 0 and 0 unless others fit clearly better.

    Args:
        again: the original decoder after its encoder; H and W are multiples of the factor.
        factor: pixels of a block a side.
    """
    fitting = (min(picture.shape[2:]) - factor + 1) // factor
    if factor == 1 or fitting < SMALLEST:
        return 0, 0
    places = [(top, left) for top in range(factor) for left in range(factor)]
    for blocks, kept in ROUNDS:
        losses = lost(again, picture, places, min(blocks, fitting), factor)
        order = [0, *(1 + losses[1:].argsort()[:kept]).tolist()]  # the corner is always kept
        places, losses = [places[n] for n in order], losses[order]
    return places[1] if losses[1] < CLEARLY * losses[0] else places[0]
