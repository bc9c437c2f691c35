"""What one perturbation is: its real operation, its training form and its strengths.

Randomness comes from one NumPy generator an image ("draw"). The real and the training form take
the same numbers from it in the same order, so from one seed they do the same thing.

Shape legend: b images, H x W pixels (square in training).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from scalefp.data.images import to_float, to_pil

FloatArray = NDArray[np.float64]
Draw = np.random.Generator

# (RGB picture, strength, draw) -> RGB picture of the same size.
Operation = Callable[[Image.Image, float, Draw], Image.Image]
# (images [b, 3, H, W] in [-1, 1], strengths [b], a draw for each image) -> images, differentiable.
TrainingForm = Callable[[Tensor, Tensor, Sequence[Draw]], Tensor]
# (strength, draw) -> affine_grid matrix [2, 3] and the grey in [-1, 1] of what lies outside.
WarpForm = Callable[[float, Draw], tuple[FloatArray, float]]


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


def straight_through(operation: Operation) -> TrainingForm:
    """The real operation on 8-bit pictures; gradients pass as if it were not there."""

    def form(images: Tensor, strengths: Tensor, draws: Sequence[Draw]) -> Tensor:
        rows = zip(to_pil(images), strengths.tolist(), draws, strict=True)
        changed = np.stack([np.asarray(operation(*row)) for row in rows])  # [b, H, W, 3]
        seen = to_float(torch.from_numpy(changed).permute(0, 3, 1, 2))
        return pass_gradients(images, seen.to(images.device))

    return form


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
        warp: the matrix of a change of geometry, in the convention of
            ``torch.nn.functional.affine_grid`` with ``align_corners=False``: from output to input
            coordinates, both in [-1, 1].
        train: the differentiable form of a change of values. Where this and ``warp`` are missing,
            training takes the real operation and passes gradients straight through. An entry with
            both first changes the geometry, then the values.
    """

    apply: Operation
    unit: str
    identity: float
    mild: float
    severe: float
    test_strengths: tuple[float, ...]
    signed: bool = False
    warp: WarpForm | None = None
    train: TrainingForm | None = None

    def random_strength(self, draw: Draw, severity: float = 1.0) -> float:
        """Uniform between mild and mild + severity * (severe - mild)."""
        strength = self.mild + draw.random() * severity * (self.severe - self.mild)
        return -strength if self.signed and draw.random() < 0.5 else strength
