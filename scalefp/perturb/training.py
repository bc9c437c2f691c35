"""What a decoder sees in training: images that met the table's perturbations at random."""

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from scalefp.errors import UserError
from scalefp.perturb.chance import Chance
from scalefp.perturb.entry import Perturbation, Rows, pass_gradients
from scalefp.perturb.geometry import compose, warp_images
from scalefp.perturb.sequence import Change, in_turn
from scalefp.perturb.table import PERTURBATIONS


def check_names(probabilities: Mapping[str, float]) -> None:
    """Raise :class:`UserError` for unknown perturbations or impossible probabilities."""
    for name, probability in probabilities.items():
        if name not in PERTURBATIONS:
            raise UserError(
                f"unknown perturbation {name!r}; known are {', '.join(sorted(PERTURBATIONS))}"
            )
        if not 0 <= probability <= 1:
            raise UserError(
                f"the probability of {name} must lie between 0 and 1, not {probability}"
            )


def _as_file(images: Tensor) -> Tensor:
    """``to_float(to_uint8(images))``, in one piece of memory; gradients pass straight through."""
    levels = (images.detach() + 1).mul_(127.5).round_().clamp_(0, 255)
    return pass_gradients(images, levels.div_(127.5).sub_(1))


def change(entry: Perturbation, images: Tensor, strengths: Tensor, rows: Rows) -> Tensor:
    """One perturbation of images [b, 3, R, R] by ``strengths`` [b], as training has it."""
    if entry.warp is not None:
        images = warp_images(images, *entry.warp(strengths, rows), entry.oversample)
    return images if entry.train is None else entry.train(images, strengths, rows)


def perturb_images(
    images: Tensor,
    probabilities: Mapping[str, float],
    chance: Chance,
    severity: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor]:
    """What a decoder sees of ``images`` once they have been perturbed and saved as 8-bit files.

    Each image meets each perturbation with its probability, so it may meet several, in the order of
    the table; then it is rounded to 8 bits. A perturbation is computed for as many images as it can
    meet and kept for those that it does: nothing depends on values that lie on the device, and no
    shape on chance. Gradients are those of the training forms; they pass straight through the
    quantization of codecs, the clipping at first and the rounding at last.

    Args:
        images: [b, 3, R, R], nominal range [-1, 1].
        probabilities: perturbation name -> probability, as ``check_names`` accepts them.
        chance: draws for these images, by all of ``probabilities``.
        severity: 0..1, how far strengths reach from each entry's ``mild`` towards its ``severe``.

    Returns:
        float32 [b, 3, R, R] in [-1, 1], and the change of geometry of each image, [b, 2, 3], from
        output to input coordinates as in ``torch.nn.functional.affine_grid`` with
        ``align_corners=False``: the identity where there is none.
    """
    assert images.shape[2] == images.shape[3], "square images"
    frames = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    order = chance.places.argsort(dim=0)  # those that a perturbation meets come first
    changes = []
    for number, name in enumerate(chance.names):
        met = probabilities.get(name, 0.0) * chance.batch  # images of the whole batch, not rounded
        rows = order[: math.ceil(met - 1e-6), number]
        if not len(rows):
            continue
        entry = PERTURBATIONS[name]
        kept = (chance.places[rows, number] < met)[:, None, None]
        strengths = entry.strengths(chance.strengths[rows, number], severity)
        noise = chance.noise[rows] if entry.noisy and chance.noise is not None else None
        drawn = Rows(chance.numbers[rows, number], noise)
        if entry.warp is not None:
            earlier = frames[rows]
            moved = compose(earlier, entry.warp(strengths, drawn)[0])
            moved = torch.where(kept, moved, earlier)
            frames = frames.index_copy(0, rows, moved)
        form = partial(change, entry, strengths=strengths, rows=drawn)
        changes.append(Change(rows, kept[..., None], form))
    seen = pass_gradients(images.float(), images.detach().float().clamp(-1, 1))
    return _as_file(in_turn(seen, changes)), frames
