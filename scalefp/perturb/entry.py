"""What one perturbation is: its real operation, its training form and its strengths.

The real operation takes its random numbers from a NumPy generator ("draw"), one after the other;
the training form has a row of such numbers for each image of a batch, on the device of the images.
From the same numbers both do the same thing.

Shape legend: b images, H x W pixels (square in training).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Draw = np.random.Generator

# (RGB picture, strength, draw) -> RGB picture of the same size.
Operation = Callable[[Image.Image, float, Draw], Image.Image]


@dataclass(frozen=True)
class Rows:
    """Random numbers for b images, in the order in which a real operation draws them."""

    numbers: Tensor  # uniform in 0..1 [b, k]
    noise: Tensor | None = None  # standard normal [b, 3, H, W], for what adds noise


# (images [b, 3, H, W] in [-1, 1], strengths [b], rows) -> images, differentiable. All shapes follow
# from those of the images, and nothing waits for the device.
TrainingForm = Callable[[Tensor, Tensor, Rows], Tensor]
# (strengths [b], rows) -> affine_grid matrices [b, 2, 3], and what lies outside [b]: a grey in
# [-1, 1].
WarpForm = Callable[[Tensor, Rows], tuple[Tensor, Tensor]]


def fixed(operation: Callable[[Image.Image, float], Image.Image]) -> Operation:
    """An operation without chance, in the form of the table."""
    return lambda image, strength, draw: operation(image, strength)


class _PassGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, changed: Tensor) -> Tensor:
        return changed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def pass_gradients(images: Tensor, changed: Tensor) -> Tensor:
    """The values of ``changed``, the gradients as if they were ``images``.

    Bengio et al. 2013, arXiv 1308.3432.
    """
    passed: Tensor = _PassGradients.apply(images, changed)  # type: ignore[no-untyped-call]
    return passed


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """One kind of change to an image.

    Attributes:
        apply: the real operation on an 8-bit picture, by Pillow; what evaluation uses.
        unit: what the strength means, to label an axis.
        identity: the strength at which nothing changes, up to the codec's own rounding.
        mild, severe: training draws strengths from mild towards severe.
        test_strengths: strengths evaluated, from the mildest on.
        signed: training draws either sign (the identity is 0).
        warp: the matrices of a change of geometry, in the convention of
            ``torch.nn.functional.affine_grid`` with ``align_corners=False``: from output to input
            coordinates, both in [-1, 1].
        oversample: samples a side of each pixel of the warped image; 2 where images shrink.
        train: the training form of a change of values. An entry with this and ``warp`` first
            changes the geometry, then the values.
        noisy: whether it adds noise.
    """

    apply: Operation
    unit: str
    identity: float
    mild: float
    severe: float
    test_strengths: tuple[float, ...]
    signed: bool = False
    warp: WarpForm | None = None
    oversample: int = 1
    train: TrainingForm | None = None
    noisy: bool = False

    def strengths(self, numbers: Tensor, severity: float | Tensor = 1.0) -> Tensor:
        """Strengths [b] from uniform numbers [b, 2]: uniform between mild and
        mild + severity * (severe - mild), of either sign if ``signed``."""
        size = self.mild + numbers[:, 0] * severity * (self.severe - self.mild)
        return torch.where(numbers[:, 1] < 0.5, -size, size) if self.signed else size
