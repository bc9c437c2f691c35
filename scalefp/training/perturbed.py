"""What the decoder is shown in a training step: images that went through files, moved or not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

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

    seeds: Tensor  # of what perturbs the image, int64 [b]
    off: Tensor  # errors of the frames at which training reads [b, 2, 3]

    @classmethod
    def draw(cls, count: int, source: torch.Generator) -> "Chance":
        """The numbers for ``count`` images."""
        return cls(
            seeds=torch.randint(2**62, (count,), generator=source),
            off=torch.randn(count, 2, 3, generator=source) * FRAME_ERROR,
        )

    def of(self, rows: Tensor | slice) -> "Chance":
        """Those of some images."""
        return Chance(self.seeds[rows], self.off[rows])


@dataclass(frozen=True)
class Decoded:
    """The decoder's answer to perturbed images."""

    logits: Tensor  # of the key's bits [b, n]
    latents: Tensor  # [b, dz]
    frame: Tensor  # which part of its image the decoder was shown [b, 2, 3]
    located: Tensor | None  # the localizer's estimate of that [b, 2, 3]; None if there is none


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
    surprise = -log_binomial_tail(bits.shape[1], correct.sum(dim=1).cpu().numpy()) / math.log(2)
    evidence = torch.tensor(surprise.mean(), dtype=torch.float32, device=logits.device)
    return {"bit_accuracy": correct.float().mean(), "evidence": evidence}


def reading_frame(frame: Tensor, off: Tensor) -> Tensor:
    """The frame [b, 2, 3] at which a decoder with a localizer reads in a training step.

    Where the image was moved: the true frame, a little off, since in use it is found by trial.
    """
    still = torch.eye(2, 3)
    moved = (frame.cpu() != still).any(dim=2).any(dim=1)
    return torch.where(moved[:, None, None], frame.cpu() + off, still).to(frame.device)


def decode_perturbed(
    decoder: Decoder,
    images: Tensor,
    probabilities: Mapping[str, float],
    severity: float,
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
    seen, frame = perturb.perturb_images(images, probabilities, chance.seeds.tolist(), severity)
    with computing():
        located = None if decoder.localizer is None else decoder.locate(seen)
        at = None if located is None else reading_frame(frame, chance.off)
        logits, latents = decoder(seen, at)
    return Decoded(logits, latents, frame, located)
