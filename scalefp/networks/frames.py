"""Where the pixels of an image lie: affine frames, and undoing them.

A frame [b, 2, 3] says where each pixel of a changed image came from, in the convention of
``torch.nn.functional.affine_grid``: it takes output coordinates to input coordinates, both running
from -1 to 1 over the edges of the image. A crop to the middle half is [[.5, 0, 0], [0, .5, 0]].
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def identity_frame(batch: int, device: torch.device | str = "cpu") -> Tensor:
    """Frames [b, 2, 3] of images that nobody moved."""
    return torch.eye(2, 3, device=device).repeat(batch, 1, 1)


def warp(images: Tensor, frame: Tensor, *, outside: str = "zeros") -> Tensor:
    """Images [b, C, H, W] resampled to what lies at ``frame`` [b, 2, 3] (bilinear).

    ``outside`` fills what has no source: zeros or border.
    """
    grid = F.affine_grid(frame, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False, padding_mode=outside)


def inverse(frame: Tensor) -> Tensor:
    """The frames [b, 2, 3] that undo ``frame``."""
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in frame.unbind(-2))
    determinant = a * d - b * c
    rows = torch.stack([d, -b, b * y - d * x, -c, a, c * x - a * y], dim=-1)
    undone: Tensor = (rows / determinant[..., None]).unflatten(-1, (2, 3))
    return undone


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The frame of ``warp(warp(images, first), second)``."""
    linear = first[..., :2] @ second[..., :2]
    shift = first[..., :2] @ second[..., 2:] + first[..., 2:]
    return torch.cat([linear, shift], dim=-1)


def similarity(side: Tensor, angle: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Frames [b, 2, 3] of a part of an image.

    Args:
        side: the part's side as a share of the image's [b].
        angle: its rotation in degrees [b].
        x, y: its centre, each from -1 to 1 [b].
    """
    radians = angle * (math.pi / 180)
    c, s = side * radians.cos(), side * radians.sin()
    frames: Tensor = torch.stack([c, -s, x, s, c, y], dim=-1).unflatten(-1, (2, 3))
    return frames


def orientations() -> Tensor:
    """Frames [8, 2, 3] of the quarter turns of a picture and of its mirror image."""
    turns = [[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]]
    linear = torch.tensor(turns, dtype=torch.float32)
    mirrored = linear * torch.tensor([-1.0, 1.0])
    return torch.cat([torch.cat([linear, mirrored]), torch.zeros(8, 2, 1)], dim=2)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance [b] between the places where two frames put the corners, in half images.

    The corners are taken at 0.7 of the way from the centre: the error there is about that of the
    whole picture.
    """
    along_x, along_y, shift = (a - b).unbind(dim=2)  # each [b, 2]
    corners = torch.stack(
        [shift + 0.7 * (sx * along_x + sy * along_y) for sx in (-1, 1) for sy in (-1, 1)]
    )
    return corners.square().sum(dim=2).add(1e-6).sqrt().mean(dim=0)
