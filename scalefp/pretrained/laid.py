"""How a drawn picture lies in a file that is a crop or was turned: zoomed, turned and moved.

Of a generator with latents nothing says where a picture's pixels lay, but what it can draw: a face
at another place or aslant is none of its pictures. So where a picture lies is four more numbers
that are found with its latents. No key is looked at, so p-values stay exact.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Log of the zoom, turn in radians, and shift to the right and down in halves of a side.
NUMBERS = 4
# Places of which no number is as large are none; of resized pictures by more, as to lie half a
# pixel aside blurs as that does.
STILL, STILL_BLURRED = 0.02, 0.1
ZOOM, TURN = (0.2, 0.5), 0.2  # of places that are drawn: log of the zoom, and radians at the most


def _where(places: Tensor, side: int) -> Tensor:
    """Of each pixel of files where it lay, [b, R, R, 2] in halves of a side from the middle."""
    shrink, turn = (-places[:, 0]).exp(), places[:, 1]
    along, across = shrink * turn.cos(), shrink * turn.sin()
    rows = [along, -across, places[:, 2], across, along, places[:, 3]]
    matrices = torch.stack(rows, dim=1).unflatten(1, (2, 3))
    return F.affine_grid(matrices, [len(places), 1, side, side], align_corners=False)


def laid(pictures: Tensor, places: Tensor) -> Tensor:
    """Pictures [b, 3, R, R] as they lie at places [b, 4], or one of either for all (bilinear)."""
    count = max(len(pictures), len(places))
    where = _where(places.expand(count, -1), pictures.shape[-1])
    pictures = pictures.expand(count, -1, -1, -1)
    return F.grid_sample(pictures, where, padding_mode="border", align_corners=False)


def inside(places: Tensor, side: int) -> Tensor:
    """1 where files at places [b, 4] show the picture, 0 beyond its borders: [b, 1, R, R]."""
    found: Tensor = (_where(places, side).abs() <= 1).all(dim=-1).to(places.dtype)[:, None]
    return found


def drawn_places(count: int, source: torch.Generator) -> Tensor:
    """Places [b, 4] to begin at: zoomed, turned, and both, by turns."""
    places, (zoom, turn) = torch.zeros(count, NUMBERS), torch.rand(2, count, generator=source)
    kind = torch.arange(count) % 3
    places[:, 0] = torch.where(kind != 1, ZOOM[0] + (ZOOM[1] - ZOOM[0]) * zoom, 0)
    places[:, 1] = torch.where(kind != 0, TURN * (2 * turn - 1), 0)
    return places
