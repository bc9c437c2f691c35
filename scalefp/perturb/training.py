"""What a decoder sees in training: images that met the table's perturbations at random."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from scalefp.errors import UserError
from scalefp.perturb.entry import Draw, pass_gradients, straight_through
from scalefp.perturb.geometry import warp_images
from scalefp.perturb.table import PERTURBATIONS

# Images that shrink by more than this in area are sampled twice as densely.
SHRINKS = 1.02


def _by_stage(probabilities: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Those that change the geometry, and the others."""
    geometric = {n: p for n, p in probabilities.items() if PERTURBATIONS[n].warp is not None}
    return geometric, {n: p for n, p in probabilities.items() if n not in geometric}


def check_names(probabilities: Mapping[str, float]) -> None:
    """Raise :class:`UserError` for unknown perturbations or impossible probabilities.

    An image meets at most one change of geometry and at most one other: each of the two sorts may
    add up to 1.
    """
    for name, probability in probabilities.items():
        if name not in PERTURBATIONS:
            raise UserError(
                f"unknown perturbation {name!r}; known are {', '.join(sorted(PERTURBATIONS))}"
            )
        if not 0 <= probability <= 1:
            raise UserError(
                f"the probability of {name} must lie between 0 and 1, not {probability}"
            )
    for chosen in _by_stage(probabilities):
        if sum(chosen.values()) > 1 + 1e-9:
            raise UserError(
                f"the probabilities of {', '.join(chosen)} add up to more than 1, but an image "
                "meets at most one of these perturbations: lower some"
            )


def _choose(probabilities: Mapping[str, float], draw: Draw) -> str | None:
    place = draw.random()
    for name, probability in probabilities.items():
        if place < probability:
            return name
        place -= probability
    return None


def _as_file(images: Tensor) -> Tensor:
    """``to_float(to_uint8(images))``, in one piece of memory; gradients pass straight through."""
    levels = (images.detach() + 1).mul_(127.5).round_().clamp_(0, 255)
    return pass_gradients(images, levels.div_(127.5).sub_(1))


def perturb_images(
    images: Tensor,
    probabilities: Mapping[str, float],
    source: torch.Generator | Sequence[int],
    severity: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """What a decoder sees of ``images`` once they have been perturbed and saved as 8-bit files.

    Each image independently meets at most one change of geometry and then at most one other (an
    entry with both counts as a change of geometry and is both of them), and rounding to 8 bits.
    Gradients are those of the operations where these have a differentiable form; they pass
    straight through the codecs, the clipping at first and the rounding at last.

    Args:
        images: [b, 3, R, R], nominal range [-1, 1].
        probabilities: perturbation name -> probability, as ``check_names`` accepts them.
        source: CPU source of randomness, or a seed for each image.
        severity: 0..1, how far strengths reach from each entry's ``mild`` towards its ``severe``.

    Returns:
        float32 [b, 3, R, R] in [-1, 1], and the change of geometry of each image, [b, 2, 3], from
        output to input coordinates as in ``torch.nn.functional.affine_grid`` with
        ``align_corners=False``: the identity where there is none.
    """
    n, device = len(images), images.device
    assert images.shape[2] == images.shape[3], "square images"
    if isinstance(source, torch.Generator):
        source = torch.randint(2**62, (n,), generator=source).tolist()
    draws = [np.random.default_rng(seed) for seed in source]
    matrices = np.tile(np.eye(2, 3), (n, 1, 1))
    fills, strengths = np.ones(n), np.zeros(n)
    same_size: list[int] = []
    smaller: list[int] = []
    values: dict[str, list[int]] = {}  # perturbation -> rows

    # Draw what happens to each image.
    geometric, others = _by_stage(probabilities)
    for i, draw in enumerate(draws):
        name, other = _choose(geometric, draw), _choose(others, draw)
        if name is not None:
            entry = PERTURBATIONS[name]
            assert entry.warp is not None
            strengths[i] = entry.random_strength(draw, severity)
            matrices[i], fills[i] = entry.warp(strengths[i], draw)
            (a, b, _), (c, d, _) = matrices[i]
            (smaller if abs(a * d - b * c) > SHRINKS else same_size).append(i)
            if entry.train is not None:
                values.setdefault(name, []).append(i)
                continue
        if other is not None:
            strengths[i] = PERTURBATIONS[other].random_strength(draw, severity)
            values.setdefault(other, []).append(i)
    where = torch.from_numpy(matrices).float().to(device)
    fill = torch.from_numpy(fills).float().to(device)
    strength = torch.from_numpy(strengths).float().to(device)

    # Do it, group by group.
    clipped = pass_gradients(images.float(), images.detach().float().clamp(-1, 1))
    seen = list(clipped.unbind())

    def take(rows: list[int]) -> Tensor:
        return torch.stack([seen[i] for i in rows])

    def put(rows: list[int], changed: Tensor) -> None:
        for i, image in zip(rows, changed.unbind(), strict=True):
            seen[i] = image

    for rows, oversample in ((same_size, 1), (smaller, 2)):
        if rows:
            put(rows, warp_images(take(rows), where[rows], fill[rows], oversample))
    for name, rows in values.items():
        form = PERTURBATIONS[name].train or straight_through(PERTURBATIONS[name].apply)
        put(rows, form(take(rows), strength[rows], [draws[i] for i in rows]))
    return _as_file(torch.stack(seen)), where
