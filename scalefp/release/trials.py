"""Reading a moved image by trying places one by one, for decoders without carriers.

Each place costs a pass of the decoder. Where there are carriers, matching.py finds more in less.
"""

from functools import partial

import torch
from torch import Tensor

from scalefp.networks.decoder import Decoder
from scalefp.networks.frames import compose, distance, inverse, orientations, similarity, warp
from scalefp.release.evenness import above_noise, evenness
from scalefp.release.places import central_crops, neighbours, squeezed_frames, turns

# Of evenness above that of noise, in standard deviations of noise. Another place must read more
# evenly than the image as it is by MARGIN, and needs more the less else speaks for it: NEAR where
# the localizer sees a changed picture in a usual place, AROUND in an unusual one thereabouts, FOUND
# anywhere. The best of many wrong ones often reaches 3; of the few shapes that pictures are
# squeezed from, SQUEEZED is enough.
MARGIN = 1.5
NEAR, AROUND, FOUND, SQUEEZED = 2.0, 3.2, 4.2, 2.8
# Distances of frames (geometry.distance), in half images.
REACH = 0.2  # within this of the localizer's estimate a place is where the localizer sees it
CHANGED = 0.07  # farther than this from the image as it is, the estimate says that it was changed
GRID = ((0.93, 1, 1.07), (-0.12, 0, 0.12))  # sides and shifts tried about the localizer's estimate
STARTS = 2  # places refined of each of the three sets
ROUNDS = 4  # of refinement, each with half the step of the one before
STEP = 0.06  # of the first round, in half images


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
    usual = torch.cat([central_crops(), turns()]).to(image)
    frames, estimate = torch.cat([turned, once, twice, usual]), once[:1]
    near = distance(frames, estimate) <= REACH
    grid = grid_frames().to(image)
    around = compose(estimate.expand(len(grid), -1, -1), grid)
    changed = bool(distance(estimate, turned[:1]) > CHANGED)
    return [frames[near], around, frames[~near]], changed


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


def read_moved(decoder: Decoder, image: Tensor, logits: Tensor) -> Tensor:
    """Logits [n] of one image [3, R, R] where it came from; else those given, as it is."""
    sets, changed = first_frames(decoder, image)
    shapes = squeezed_frames().to(image)
    best = sketched(decoder, image, shapes).argmax()
    frames = torch.cat([find(decoder, image, sets), shapes[best][None]])
    moved: Tensor = decoder(image.expand(len(frames), -1, -1, -1), frames)[0]
    places = [NEAR, AROUND, FOUND] if changed else [FOUND] * 3
    needed = moved.new_tensor([*places, SQUEEZED])
    needed = needed.clamp_min(float(above_noise(logits)) + MARGIN)
    excess = above_noise(moved) - needed
    return moved[excess.argmax()] if excess.max() > 0 else logits
