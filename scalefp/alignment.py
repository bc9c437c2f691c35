"""Reading an image that was cropped, turned or mirrored: try where it came from, keep the best.

Read in the right place, the logits of all bits are about equally far from zero; anywhere else they
scatter about zero like noise. How even they are tells the two apart, whatever their scale. Trying
does no harm to the evidence: no key is looked at, and an innocent key agrees with *any* reading by
pure chance (see attribution.py), the best of many included.
"""

import math

import torch
from torch import Tensor

from scalefp.decoder import Decoder
from scalefp.geometry import compose, inverse, orientations, similarity, warp

# Of evenness above that of noise, in standard deviations of noise. From SURE on a reading is
# believed without looking further; from FOUND on another place is believed to be the right one if
# it also reads more evenly by MARGIN: the best of some hundred wrong places often reaches 3.3.
SURE, FOUND, MARGIN = 5.4, 3.7, 1.5
# What people do to pictures, tried beside the localizer's estimate: crops about the middle, turns.
SIDES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.56, 0.52, 0.48, 0.44, 0.4)
ANGLES = (-30, -26, -22, -18, -14, -10, -7, -4, 4, 7, 10, 14, 18, 22, 26, 30)
STARTS = 4  # places refined for each image
ROUNDS = 4  # of refinement, each with half the step of the one before
STEP = 0.06  # of the first round, in half images


def evenness(logits: Tensor) -> Tensor:
    """How even the sizes of logits [..., n] are: (mean |l|)^2 / mean l^2.

    1 where all are equally far from 0, 2 / pi = 0.64 on average where they are Gaussian noise
    (Geary's ratio, squared; Geary 1935).
    """
    return logits.abs().mean(dim=-1).square() / logits.square().mean(dim=-1).clamp_min(1e-20)


def above_noise(logits: Tensor) -> Tensor:
    """Evenness of logits [..., n] in standard deviations of that of n Gaussian numbers.

    From Geary's ratio w of those: mean sqrt(2 / pi), variance (1 - 3 / pi) / n; squared.
    """
    n = logits.shape[-1]
    deviation = 2 * math.sqrt(2 / math.pi) * math.sqrt((1 - 3 / math.pi) / n)
    return (evenness(logits) - 2 / math.pi) / deviation


def usual_frames() -> Tensor:
    """Frames [f, 2, 3] of crops about the middle and of turns."""
    sides, angles = torch.tensor(SIDES), torch.tensor(ANGLES, dtype=torch.float32)
    crops = similarity(sides, *torch.zeros(3, len(SIDES)))
    turns = similarity(torch.ones(len(ANGLES)), angles, *torch.zeros(2, len(ANGLES)))
    return torch.cat([crops, turns])


def first_frames(decoder: Decoder, image: Tensor) -> Tensor:
    """Frames [f, 2, 3] to try first for one image [3, R, R]: however it may have been turned, the
    localizer's estimate for each of these, a second estimate on top, and what people usually do."""
    turned = orientations().to(image)
    images = image.expand(8, -1, -1, -1)
    once = compose(decoder.locate(warp(images, inverse(turned))), turned)
    twice = compose(decoder.locate(warp(images, inverse(once))), once)
    return torch.cat([turned, once, twice, usual_frames().to(image)])


def neighbours(frame: Tensor, step: float) -> Tensor:
    """Frames [8, 2, 3] a step to each side of one [2, 3]: size, angle and place."""
    degrees = step * 180 / torch.pi
    sides = torch.tensor([1 + step, 1 / (1 + step), 1, 1, 1, 1, 1, 1])
    angles = torch.tensor([0, 0, degrees, -degrees, 0, 0, 0, 0])
    x = torch.tensor([0, 0, 0, 0, step, -step, 0, 0])
    y = torch.tensor([0, 0, 0, 0, 0, 0, step, -step])
    return compose(frame.expand(8, -1, -1), similarity(sides, angles, x, y).to(frame))


def find(decoder: Decoder, image: Tensor) -> Tensor:
    """The frame [2, 3] at which one image [3, R, R] reads most evenly."""

    def score(frames: Tensor) -> Tensor:
        return evenness(decoder.sketch(image.expand(len(frames), -1, -1, -1), frames))

    frames = first_frames(decoder, image)
    scores, best = score(frames).topk(STARTS)
    frames = frames[best]
    step = STEP
    for _ in range(ROUNDS):
        around = torch.stack([neighbours(frame, step) for frame in frames])
        tried, place = score(around.flatten(0, 1)).unflatten(0, (STARTS, -1)).max(dim=1)
        better = tried > scores
        frames = torch.where(better[:, None, None], around[torch.arange(STARTS), place], frames)
        scores = torch.where(better, tried, scores)
        step /= 2
    return frames[scores.argmax()]


def read(decoder: Decoder, images: Tensor) -> Tensor:
    """Logits [b, n] of images [b, 3, R, R], each read where it came from.

    Images that read evenly as they are cost one pass of the decoder; each other one costs some
    twenty to thirty. A decoder without localizer reads all as they are.
    """
    logits = decoder(images)[0]
    if decoder.localizer is None:
        return logits
    for i in torch.nonzero(above_noise(logits) < SURE).flatten().tolist():
        image = images[i : i + 1]
        moved = decoder(image, find(decoder, image[0])[None])[0][0]
        if above_noise(moved) > max(FOUND, float(above_noise(logits[i])) + MARGIN):
            logits[i] = moved
    return logits
