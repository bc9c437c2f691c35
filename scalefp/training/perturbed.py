"""What the decoder is shown in a training step: images that went through files, moved or not."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from scalefp import perturb
from scalefp.attribution.tails import log_binomial_tail
from scalefp.networks.decoder import Decoder
from scalefp.training.precision import Computing

FRAME_ERROR = 0.015  # of the frames at which training reads, in half images: half a decoder pixel


@dataclass(frozen=True)
class Chance:
    """What a step draws for the perturbation of each of its images, drawn for the whole batch at
    once, so that it is an image's own however the batch is split. Rows are images."""

    perturbations: perturb.Chance
    off: Tensor  # errors of the frames at which training reads [b, 2, 3]

    @classmethod
    def draw(cls, count: int, names: Iterable[str], side: int, source: torch.Generator) -> "Chance":
        """The numbers for ``count`` images of ``side`` pixels, which may meet those perturbations;
        they lie on the device of ``source``."""
        off = torch.randn(count, 2, 3, generator=source, device=source.device)
        return cls(perturb.Chance.draw(count, names, side, source), off * FRAME_ERROR)

    def of(self, rows: Tensor | slice) -> "Chance":
        """Those of some images."""
        return Chance(self.perturbations.of(rows), self.off[rows])


@dataclass(frozen=True)
class Decoded:
    """The decoder's answer to perturbed images."""

    logits: Tensor  # of the key's bits [b, n]
    latents: Tensor  # [b, dz]
    frame: Tensor  # which part of its image the decoder was shown [b, 2, 3]
    located: Tensor | None  # the localizer's estimate of that [b, 2, 3]; None if there is none


@cache
def _surprises(n_bits: int, device: torch.device) -> Tensor:
    """-log2 P[Binomial(n, 1/2) >= m] of m = 0..n [n + 1]."""
    matches = np.arange(n_bits + 1)
    surprises = -log_binomial_tail(n_bits, matches) / math.log(2)
    return torch.from_numpy(surprises).float().to(device)


def reading_figures(logits: Tensor, bits: Tensor) -> dict[str, Tensor]:
    """How well the keys of images are read, over all their bits.

    Bits that are not written yet count as the coin tosses that they are.

    Args:
        logits: decoder's [b, n].
        bits: the keys' [b, n] in {0, 1}.

    Returns:
        ``bit_accuracy``, the share read right, and ``evidence``, the mean over the images of
        -log2 of the p-value of an image's own key: P[Binomial(n, 1/2) >= bits read right].
    """
    correct = (logits > 0) == (bits > 0)
    surprises = _surprises(bits.shape[1], logits.device)[correct.sum(dim=1)]
    return {"bit_accuracy": correct.float().mean(), "evidence": surprises.mean()}


def reading_frame(frame: Tensor, off: Tensor) -> Tensor:
    """The frame [b, 2, 3] at which a decoder with a localizer reads in a training step.

    Where the image was moved: the true frame, a little off, since in use it is found by trial.
    """
    still = torch.eye(2, 3, device=frame.device)
    moved = (frame != still).any(dim=2).any(dim=1)
    return torch.where(moved[:, None, None], frame + off, still)


def decode_perturbed(
    decoder: Decoder,
    images: Tensor,
    probabilities: Mapping[str, float],
    severity: float | Tensor,
    chance: Chance,
    computing: Computing,
) -> Decoded:
    """What the decoder reads of ``images`` [b, 3, R, R] that were perturbed and saved as files.

    Without a localizer it learns to read moved images as they are.

    Args:
        probabilities: of each perturbation.
        severity: 0..1, see :func:`scalefp.perturb.perturb_images`.
        chance: draws for these images.
        computing: precision of the decoder.
    """
    seen, frame = perturb.perturb_images(images, probabilities, chance.perturbations, severity)
    with computing():
        located = None if decoder.localizer is None else decoder.locate(seen)
        at = None if located is None else reading_frame(frame, chance.off)
        logits, latents = decoder(seen, at)
    return Decoded(logits, latents, frame, located)
