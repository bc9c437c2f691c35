"""One image is enough for who draws it again with a copy of his own.

All copies of a release draw nearly the same picture of a latent. A recipient looks for the latent
whose picture by his own copy comes closest to one of hers; what is left between the two is mostly
what her key writes and his does not. He needs no decoder, release or key.

Shape legend: b pictures, R resolution; float images in [-1, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scalefp.evaluation.copies import Copy, draw_inputs
from scalefp.evaluation.method import OtherMethod
from scalefp.pretrained.inputs import ENCODED
from scalefp.pretrained.release import PretrainedModel

if TYPE_CHECKING:
    from scalefp.evaluation.method import Measured

RATE = 0.1  # of Adam, on latents; they are drawn with about unit variance


def nearest_inputs(
    instance: Copy, pictures: Tensor, inputs: Tensor, *, steps: int, rate: float = RATE
) -> Tensor:
    """Inputs [b, ...] of which an instance draws pictures [b, 3, R, R] as near as it comes to each.

    By gradient steps on them, from these on.
    """
    found = inputs.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([found], lr=rate)
    for _ in range(steps):
        # Each picture has its own inputs and its own error: how many there are changes nothing.
        error = (instance(found) - pictures).square().mean((1, 2, 3)).sum()
        (found.grad,) = torch.autograd.grad(error, [found])
        optimizer.step()
    return found.detach()


def redrawn(
    instance: Copy, pictures: Tensor, inputs: Tensor, *, steps: int, rate: float = RATE
) -> Tensor:
    """How an instance draws pictures [b, 3, R, R], as near as it comes: :func:`nearest_inputs`."""
    found = nearest_inputs(instance, pictures, inputs, steps=steps, rate=rate)
    with torch.no_grad():
        return instance(found).clamp(-1, 1)


def drawn_again(
    instance: Copy, pictures: Tensor, *, seed: int, steps: int, batch_size: int
) -> Tensor:
    """:func:`redrawn` from inputs that are drawn from ``seed``."""
    source = torch.Generator().manual_seed(seed)
    parts = [
        redrawn(instance, part, draw_inputs(instance, len(part), source), steps=steps)
        for part in pictures.split(batch_size)
    ]
    return torch.cat(parts)


def why_not(model: Measured) -> str | None:
    """What keeps recipients from it, as part of a sentence; None if nothing does."""
    if isinstance(model, OtherMethod):
        return "this method gives images alone"
    if isinstance(model, PretrainedModel) and model.origin["inputs"].get("_target_") == ENCODED:
        return "this generator's copies draw no latents: they are fed with pictures"
    return None
