"""Where an image may have come from: what people usually do to pictures, as frames."""

import torch
from torch import Tensor

from scalefp.networks.frames import compose, similarity

# Crops about the middle, turns, and the shapes that pictures are squeezed from.
SIDES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.56, 0.52, 0.48, 0.44, 0.4)
ANGLES = (-30, -26, -22, -18, -14, -10, -7, -4, 4, 7, 10, 14, 18, 22, 26, 30)
SHAPES = (9 / 16, 2 / 3, 3 / 4, 4 / 5)  # the short side of pictures, as a share of the long one


def central_crops() -> Tensor:
    """Frames [13, 2, 3] of crops about the middle."""
    return similarity(torch.tensor(SIDES), *torch.zeros(3, len(SIDES)))


def turns() -> Tensor:
    """Frames [16, 2, 3] of turns about the middle."""
    angles = torch.tensor(ANGLES, dtype=torch.float32)
    return similarity(torch.ones(len(ANGLES)), angles, *torch.zeros(2, len(ANGLES)))


def squeezed_frames() -> Tensor:
    """Frames [8, 2, 3] of what was cut to a usual shape about the middle and squeezed to a square.

    They fit as well where a whole picture was stretched to that shape, of which a square is read.
    """
    ones, shapes, frames = torch.ones(len(SHAPES)), torch.tensor(SHAPES), torch.zeros(8, 2, 3)
    frames[:, 0, 0] = torch.cat([ones, shapes])
    frames[:, 1, 1] = torch.cat([shapes, ones])
    return frames


def neighbours(frame: Tensor, step: float) -> Tensor:
    """Frames [8, 2, 3] a step to each side of one [2, 3]: size, angle and place."""
    degrees = step * 180 / torch.pi
    sides = torch.tensor([1 + step, 1 / (1 + step), 1, 1, 1, 1, 1, 1])
    angles = torch.tensor([0, 0, degrees, -degrees, 0, 0, 0, 0])
    x = torch.tensor([0, 0, 0, 0, step, -step, 0, 0])
    y = torch.tensor([0, 0, 0, 0, 0, 0, step, -step])
    return compose(frame.expand(8, -1, -1), similarity(sides, angles, x, y).to(frame))
