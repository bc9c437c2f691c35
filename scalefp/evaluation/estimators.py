"""How an attacker estimates what a victim's key does to pictures, from her images alone.

Shape legend: n images of the victim, m of the attacker's own copy, b pictures, R resolution; float
images in [-1, 1].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.errors import UserError
from scalefp.evaluation.samples import EvaluateConfig
from scalefp.perturb.filters import gaussian_matrices

Estimate = Callable[[Tensor], Tensor]  # pictures [b, 3, R, R] -> what to add to each, alike
SMOOTH = 1.5  # sigma, in pixels, of what counts as the coarse part of a picture
STEPS, WIDTH = 300, 24  # of the small network that predicts fine from coarse parts


def coarse(images: Tensor) -> Tensor:
    """The pictures blurred; what is left of them is their fine part."""
    side = images.shape[-1]
    blur = gaussian_matrices(torch.full((1,), SMOOTH), side)[0].to(images)
    return blur @ images @ blur.T


def fine(images: Tensor) -> Tensor:
    """What blurring takes away."""
    return images - coarse(images)


# How the fingerprint is estimated.


def pattern(centre: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor | None, int], Estimate]:
    """One pattern for all pictures: a centre of the victim's images less that of one's own.

    Without images of one's own, or with few of the victim's, the pictures themselves do not
    cancel; then only the fine part is used.
    """

    def estimate(victim: Tensor, own: Tensor | None, seed: int) -> Estimate:
        middle = centre(victim)
        if own is not None:
            middle = middle - centre(own)
        if own is None or len(victim) < 64:
            middle = fine(middle[None])[0]
        return lambda pictures: middle.expand_as(pictures)

    return estimate


def residual(victim: Tensor, own: Tensor | None, seed: int) -> Estimate:
    """One pattern: the mean of what a median filter of 3x3 pixels takes away."""

    def taken(images: Tensor) -> Tensor:
        around = F.pad(images, (1, 1, 1, 1), mode="replicate")
        windows = around.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
        return (images - windows.median(dim=4).values).mean(0)

    middle = taken(victim) if own is None else taken(victim) - taken(own)
    return lambda pictures: middle.expand_as(pictures)


def fine_predictor(images: Tensor, seed: int) -> Estimate:
    """How an instance draws the fine part of a picture, learned from its images.

    Their mean, and by a small network what differs from it, seen from the coarse part.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(5, WIDTH, 5, padding=2), nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 5, padding=2), nn.ReLU(),
            nn.Conv2d(WIDTH, 3, 5, padding=2),
        )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    draw = torch.Generator().manual_seed(seed)
    middle = fine(images).mean(0)
    seen, wanted = placed(coarse(images)), fine(images) - middle
    for _ in range(STEPS):
        rows = torch.randint(len(images), (min(32, len(images)),), generator=draw)
        optimizer.zero_grad()
        F.mse_loss(network(seen[rows]), wanted[rows]).backward()
        optimizer.step()

    @torch.no_grad()
    def predict(pictures: Tensor) -> Tensor:
        drawn: Tensor = network(placed(coarse(pictures)))
        return middle + drawn

    return predict


def placed(images: Tensor) -> Tensor:
    """Pictures with two more channels, the place of each pixel: [b, 5, R, R]."""
    line = torch.linspace(-1, 1, images.shape[-1])
    places = torch.stack(torch.meshgrid(line, line, indexing="ij"))
    return torch.cat([images, places.expand(len(images), -1, -1, -1)], dim=1)


def learned(victim: Tensor, own: Tensor | None, seed: int) -> Estimate:
    """A pattern for each picture: how the victim's instance would draw its fine part.

    With images of one's own copy, what that one would draw is taken off.
    """
    hers = fine_predictor(victim, seed)
    if own is None:
        return hers
    his = fine_predictor(own, seed)
    return lambda pictures: hers(pictures) - his(pictures)


ESTIMATORS: dict[str, Callable[[Tensor, Tensor | None, int], Estimate]] = {
    "mean": pattern(lambda images: images.mean(0)),
    "median": pattern(lambda images: images.median(0).values),
    "residual": residual,
    "learned": learned,
}


# What they are given.


@dataclass(frozen=True)
class Knowledge:
    """What the attacker estimates the fingerprint from."""

    estimator: str
    images: int  # of the victim's instance
    own_copy: bool  # whether he has an instance himself

    @property
    def name(self) -> str:
        """``mean of 64, own copy``."""
        return f"{self.estimator} of {self.images}{', own copy' if self.own_copy else ''}"


def knowledges(config: EvaluateConfig) -> list[Knowledge]:
    """Every estimator at every number of images, with and without a copy of the attacker's own.

    Raises:
        UserError: an estimator that the table does not have.
    """
    names = list(ESTIMATORS) if config.lifting.estimators is None else config.lifting.estimators
    for name in names:
        if name not in ESTIMATORS:
            raise UserError(
                f"unknown estimator {name!r} in lifting.estimators; known are "
                f"{', '.join(ESTIMATORS)}."
            )
    choices = itertools.product(names, config.lifting.images, (True, False))
    return [Knowledge(*choice) for choice in choices]
