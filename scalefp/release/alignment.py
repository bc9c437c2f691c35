"""Reading an image that was cropped, turned, mirrored or squeezed: try places, keep the best.

Read in the right place, the logits of all bits are about equally far from zero; anywhere else they
scatter about zero like noise. How even they are tells the two apart, whatever their scale. Trying
does no harm to the evidence: no key is looked at, and an innocent key agrees with *any* reading by
pure chance (see scalefp/attribution/evidence.py), the best of many included.
"""

import math
from functools import partial

import torch
from torch import Tensor

from scalefp.networks.decoder import Decoder
from scalefp.networks.frames import (
    compose,
    distance,
    inverse,
    orientations,
    similarity,
    warp,
)

# Of evenness above that of noise, in standard deviations of noise. From SURE on a reading is
# believed without looking further. Another place must read more evenly by MARGIN, and needs more
# the less else speaks for it: NEAR where the localizer sees a changed picture in a usual place,
# AROUND in an unusual one thereabouts, FOUND anywhere. The best of many wrong ones often reaches 3;
# of the few shapes that pictures are squeezed from, SQUEEZED is enough.
SURE, MARGIN = 5.4, 1.5
NEAR, AROUND, FOUND, SQUEEZED = 2.0, 3.2, 4.2, 2.8
# Distances of frames (geometry.distance), in half images.
REACH = 0.2  # within this of the localizer's estimate a place is where the localizer sees it
CHANGED = 0.07  # farther than this from the image as it is, the estimate says that it was changed
# What people do to pictures, tried beside the localizer's estimate: crops about the middle, turns.
SIDES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.56, 0.52, 0.48, 0.44, 0.4)
ANGLES = (-30, -26, -22, -18, -14, -10, -7, -4, 4, 7, 10, 14, 18, 22, 26, 30)
SHAPES = (9 / 16, 2 / 3, 3 / 4, 4 / 5)  # the short side of pictures, as a share of the long one
GRID = ((0.93, 1, 1.07), (-0.12, 0, 0.12))  # sides and shifts tried about the localizer's estimate
STARTS = 2  # places refined of each of the three sets
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


def squeezed_frames() -> Tensor:
    """Frames [8, 2, 3] of what was cut to a usual shape about the middle and squeezed to a square.

    They fit as well where a whole picture was stretched to that shape, of which a square is read.
    """
    ones, shapes, frames = torch.ones(len(SHAPES)), torch.tensor(SHAPES), torch.zeros(8, 2, 3)
    frames[:, 0, 0] = torch.cat([ones, shapes])
    frames[:, 1, 1] = torch.cat([shapes, ones])
    return frames


def grid_frames() -> Tensor:
    """Frames [27, 2, 3] a little larger, smaller and to all sides."""
    sides, shifts = (torch.tensor(values) for values in GRID)
    side, x, y = torch.cartesian_prod(sides, shifts, shifts).unbind(1)
    return similarity(side, torch.zeros_like(side), x, y)


def first_frames(decoder: Decoder, image: Tensor) -> tuple[list[Tensor], bool]:
    """Where one image [3, R, R] may have come from; whether the localizer thinks it was changed.

    Tried are: however it may have been turned, the localizer's estimate for each of these, a second
    estimate on top, and what people usually do. Three sets of frames [f, 2, 3]: those of them near
    the estimate for the image as it is, a grid about this estimate, and the others.
    """
    turned = orientations().to(image)
    images = image.expand(8, -1, -1, -1)
    once = compose(decoder.locate(warp(images, inverse(turned))), turned)
    twice = compose(decoder.locate(warp(images, inverse(once))), once)
    frames, estimate = torch.cat([turned, once, twice, usual_frames().to(image)]), once[:1]
    near = distance(frames, estimate) <= REACH
    grid = grid_frames().to(image)
    around = compose(estimate.expand(len(grid), -1, -1), grid)
    changed = bool(distance(estimate, turned[:1]) > CHANGED)
    return [frames[near], around, frames[~near]], changed


def neighbours(frame: Tensor, step: float) -> Tensor:
    """Frames [8, 2, 3] a step to each side of one [2, 3]: size, angle and place."""
    degrees = step * 180 / torch.pi
    sides = torch.tensor([1 + step, 1 / (1 + step), 1, 1, 1, 1, 1, 1])
    angles = torch.tensor([0, 0, degrees, -degrees, 0, 0, 0, 0])
    x = torch.tensor([0, 0, 0, 0, step, -step, 0, 0])
    y = torch.tensor([0, 0, 0, 0, 0, 0, step, -step])
    return compose(frame.expand(8, -1, -1), similarity(sides, angles, x, y).to(frame))


def sketched(decoder: Decoder, image: Tensor, frames: Tensor) -> Tensor:
    """How evenly one image [3, R, R] reads in each frame [f, 2, 3], roughly: [f]."""
    return evenness(decoder.sketch(image.expand(len(frames), -1, -1, -1), frames))


def find(decoder: Decoder, image: Tensor, sets: list[Tensor]) -> Tensor:
    """Where one image [3, R, R] reads most evenly, starting from each set [f, 2, 3]: [s, 2, 3]."""
    score = partial(sketched, decoder, image)
    counts = [len(frames) for frames in sets]
    best = [
        scores.topk(min(STARTS, len(scores))) for scores in score(torch.cat(sets)).split(counts)
    ]
    scores = torch.cat([chosen.values for chosen in best])
    frames = torch.cat([own[chosen.indices] for own, chosen in zip(sets, best, strict=True)])
    step = STEP
    for _ in range(ROUNDS):
        around = torch.stack([neighbours(frame, step) for frame in frames])
        tried, place = score(around.flatten(0, 1)).unflatten(0, (len(frames), -1)).max(dim=1)
        better = tried > scores
        frames = torch.where(
            better[:, None, None], around[torch.arange(len(frames)), place], frames
        )
        scores = torch.where(better, tried, scores)
        step /= 2
    kept = [len(chosen.values) for chosen in best]
    pairs = zip(frames.split(kept), scores.split(kept), strict=True)
    return torch.stack([own[values.argmax()] for own, values in pairs])


def read(decoder: Decoder, images: Tensor) -> Tensor:
    """Logits [b, n] of images [b, 3, R, R], each read where it came from.

    Images that read evenly as they are cost one pass of the decoder, a batch at a time. Each other
    one costs as much as about seventy of them, which are passes of small batches over many places:
    a quarter of a second on one core with the bundled releases. A decoder without localizer reads
    all as they are.
    """
    logits: Tensor = decoder(images)[0]
    if decoder.localizer is None:
        return logits
    for i in torch.nonzero(above_noise(logits) < SURE).flatten().tolist():
        sets, changed = first_frames(decoder, images[i])
        shapes = squeezed_frames().to(images)
        best = sketched(decoder, images[i], shapes).argmax()
        frames = torch.cat([find(decoder, images[i], sets), shapes[best][None]])
        moved = decoder(images[i].expand(len(frames), -1, -1, -1), frames)[0]
        places = [NEAR, AROUND, FOUND] if changed else [FOUND] * 3
        needed = moved.new_tensor([*places, SQUEEZED])
        needed = needed.clamp_min(float(above_noise(logits[i])) + MARGIN)
        excess = above_noise(moved) - needed
        if excess.max() > 0:
            logits[i] = moved[excess.argmax()]
    return logits
