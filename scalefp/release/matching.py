"""Reading a moved image by its carriers: many places roughly, the best few as a whole.

Which of very many places is believed is weighed as in Bayes' rule. Of noise the evenness z (in
standard deviations, see evenness.py) is Gaussian, so that exp(z^2 / 2) is about how much likelier a
reading is in the right place; and the more places a family of them holds, the less likely was each
before. So the score of a place is z^2 / 2 - log(places of its family). No key is looked at, and of
each image one reading is kept, so that its p-value is what it is for any reading.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from scalefp.networks.decoder import Decoder
from scalefp.networks.frames import (
    compose,
    distance,
    identity_frame,
    inverse,
    orientations,
    similarity,
    warp,
)
from scalefp.release.evenness import above_noise
from scalefp.release.margins import margin_frames
from scalefp.release.matched import MatchedFilter
from scalefp.release.places import central_crops, neighbours, squeezed_frames, turns

# Crops anywhere: the side kept, and how many of the decoder's pixels each lies off the middle.
CROPS = ((0.95, 1), (0.9, 2), (0.85, 2), (0.8, 3), (0.75, 4), (0.7, 5))
# About the localizer's estimates, for the image as it is and mirrored: sides, relative to theirs.
ABOUT, ABOUT_REACH = (0.93, 0.98, 1.03, 1.08), 2
TRUST, TRUSTED = 3.0, 2.5  # the most that nearness to the estimate counts, in scores; pixels
COMMON = 1.5  # what crops about the middle have ahead of other families, in scores
KEPT = 3  # places looked at closely
ROUNDS, STEP = 3, 0.045  # of refinement, each with half the step of the one before, in half images
GIVE_UP = 2.4  # below this score nothing is looked at closely
# Scores that an image as it is has ahead of others: much, unless the localizer sees it changed.
UNCHANGED, CHANGED = 3.5, 0.5
CHANGE = 0.07  # distance of its estimate from the image as it is, in half images


class Places:
    """Frames that were tried, how evenly an image reads there, and what they cost (see score)."""

    def __init__(self, estimate: Tensor | None, pixel: float) -> None:
        """``estimate`` [1, 2, 3] is where the localizer sees an image that was changed."""
        self._estimate, self._trusted = estimate, TRUSTED * pixel
        self._frames: list[Tensor] = []
        self._evenness: list[Tensor] = []
        self._costs: list[Tensor] = []
        self._logits: list[Tensor] = []

    def add(
        self, frames: Tensor, logits: Tensor, *, common: float = 0, of: int | None = None
    ) -> None:
        """Take in a family of frames [f, 2, 3], so much commoner, and the logits [f, n] there.

        ``of`` is how many places the family had before some were left out; None = none were.
        """
        cost = frames.new_full([len(frames)], math.log(of or len(frames)) - common)
        if self._estimate is not None:
            far = distance(frames, self._estimate) / self._trusted
            cost -= (TRUST - far.square()).clamp_min(0)
        self._frames.append(frames)
        self._evenness.append(above_noise(logits))
        self._costs.append(cost)
        self._logits.append(logits)

    def best(self, count: int, apart: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frames [c, 2, 3], evenness [c], costs [c] and logits [c, n] of the best places that lie
        apart."""
        frames, costs = torch.cat(self._frames), torch.cat(self._costs)
        evenness, logits = torch.cat(self._evenness), torch.cat(self._logits)
        left, chosen = score(evenness, costs), []
        for _ in range(count):
            chosen.append(int(left.argmax()))
            left[distance(frames, frames[chosen[-1]][None]) < apart] = -math.inf
        return frames[chosen], evenness[chosen], costs[chosen], logits[chosen]


def score(evenness: Tensor, cost: Tensor | float) -> Tensor:
    """How much speaks for places of this evenness, as a logarithm."""
    return evenness.clamp_min(0).square() / 2 - cost


def crops(filter: MatchedFilter, image: Tensor) -> tuple[Tensor, Tensor]:
    """Every crop of a side of :data:`CROPS`, half a pixel's diagonal apart: as :func:`about`."""
    pixel = 2 / filter.size
    found = []
    for side, reach in CROPS:
        sides, off = image.new_tensor([side, side]), image.new_tensor([-pixel / 4, pixel / 4])
        found.append(filter.slide(image, similarity(sides, 0 * sides, off, off), reach))
    frames, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
    within = frames[:, :, 2].abs().amax(dim=1) <= 1 - frames[:, 0, 0] + 0.75 * pixel
    return frames[within], logits[within]


def about(filter: MatchedFilter, image: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    """Places about one estimate [1, 2, 3]: frames [f, 2, 3], logits [f, n]."""
    pixel, sides = 2 / filter.size, image.new_tensor(ABOUT)
    larger = similarity(sides, *torch.zeros(3, len(sides), device=image.device))
    frames = compose(estimate.expand(len(sides), -1, -1), larger).repeat(2, 1, 1)
    frames[:, :, 2] += pixel / 4
    frames[: len(sides), :, 2] -= pixel / 2
    return filter.slide(image, frames, ABOUT_REACH)


def straight(frames: Tensor) -> Tensor:
    """Frames [f, 2, 3] of the same places and sizes, mirrored or not, but neither turned nor
    sheared."""
    determinant = frames[:, :, :2].det()
    zero = torch.zeros_like(determinant)
    upright = similarity(determinant.abs().sqrt(), zero, frames[:, 0, 2], frames[:, 1, 2])
    upright[:, 0, 0] *= determinant.sign()
    return upright


def look(decoder: Decoder, filter: MatchedFilter, image: Tensor) -> tuple[Places, bool]:
    """All places where one image [3, R, R] may have come from, and whether it seems changed."""
    turned = orientations().to(image)
    both = turned[[0, 4]]  # as it is, and mirrored
    images = warp(image.expand(2, -1, -1, -1), inverse(both))
    estimates = compose(decoder.locate(images), both)
    central = central_crops().to(image)
    families = [turned, estimates, turns().to(image), squeezed_frames().to(image)]
    framed = margin_frames(image)
    if framed is not None:
        families.append(framed)
    changed = is_changed(estimates[:1])
    places = Places(estimates[:1] if changed else None, 2 / filter.size)
    logits = filter.logits(image, torch.cat(families))
    for frames, own in zip(families, logits.split([len(f) for f in families]), strict=True):
        places.add(frames, own)
    places.add(central, filter.logits(image, central), common=COMMON)
    places.add(*about(filter, image, estimates[:1]))
    places.add(*about(filter, image, straight(estimates[1:])))  # crops are tried unmirrored
    places.add(*crops(filter, image))
    return places, changed


def is_changed(estimate: Tensor) -> bool:
    """Whether the localizer, which sees an image at ``estimate`` [1, 2, 3], sees it changed."""
    return bool(distance(estimate, identity_frame(1, estimate.device)) > CHANGE)


def as_it_is(logits: Tensor, changed: bool) -> Tensor:
    """How much speaks for an image as it is, with the logits [n] that it has there."""
    return score(above_noise(logits), -(CHANGED if changed else UNCHANGED))


def refine(read: Callable[[Tensor], Tensor], frames: Tensor, evenness: Tensor) -> Tensor:
    """Where one image reads most evenly thereabouts: from frames [c, 2, 3] to such.

    Args:
        read: gives the logits [f, n] of the image in frames [f, 2, 3].
        evenness: of the image in the frames [c].
    """
    step = STEP
    for _ in range(ROUNDS):
        around = torch.stack([neighbours(frame, step) for frame in frames])
        tried = above_noise(read(around.flatten(0, 1)))
        tried, place = tried.unflatten(0, (len(frames), -1)).max(dim=1)
        better = tried > evenness
        closer = around[torch.arange(len(frames)), place]
        frames = torch.where(better[:, None, None], closer, frames)
        evenness = torch.where(better, tried, evenness)
        step /= 2
    return frames


def read_moved(decoder: Decoder, filter: MatchedFilter, image: Tensor, logits: Tensor) -> Tensor:
    """Logits [n] of one image [3, R, R] where it came from; else those given, as it is."""
    places, changed = look(decoder, filter, image)
    frames, evenness, costs, _ = places.best(KEPT, apart=2.4 / filter.size)
    if score(evenness, costs).max() < GIVE_UP:
        return logits
    frames = refine(partial(filter.logits, image), frames, evenness)
    moved: Tensor = decoder(image.expand(len(frames), -1, -1, -1), frames)[0]
    scores = score(above_noise(moved), costs)
    better = scores.max() > as_it_is(logits, changed)
    return moved[scores.argmax()] if better else logits
