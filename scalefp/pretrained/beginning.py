"""Where reading begins where latents are drawn: latents, and a place, of which the original
generator draws nearly a picture.

Many are drawn, which costs little, and the nearest are changed by gradient descent, which ends near
where it begins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from scalefp.pretrained.inputs import Inputs
from scalefp.pretrained.inversion import InversionSizes
from scalefp.pretrained.laid import NUMBERS, drawn_places, inside, laid

SIFTED = 32  # latents that are drawn for each that is begun from
DRAWN = 256  # by which is told what is usual of latents
USUAL = 0.01  # weight of how far latents are from those that are drawn, beside the misfit
CONSTANT = 1e-6  # least variance
AT_ONCE = 32  # of these, whose pictures are made together
RATE, PLACE_RATE = 0.1, 0.02  # of Adam on latents, and on where a picture lies


@dataclass(frozen=True)
class Beginning:
    """Finds latents to begin from.

    Attributes:
        original: pictures [b, 3, R, R] of latents [b, ...] without a key.
    """

    original: Callable[[Tensor], Tensor]
    inputs: Inputs
    sizes: InversionSizes

    def near(
        self, picture: Tensor, search: bool, source: torch.Generator, tick: Callable[[], Any]
    ) -> tuple[Tensor, Tensor]:
        """Latents [1, ...] of which the original generator draws nearly the picture, and the place
        [1, 4] at which it lies.

        Begun is from the nearest of many that are only drawn, which costs a picture each. The worse
        half of those that are changed is given up again and again, so that many cost little more
        than a few (successive halving, Jamieson and Talwalkar, 2016).
        """
        starts = self.sizes.starts
        latents, places = self._sifted(picture, torch.zeros(SIFTED * starts, NUMBERS), source)
        if search:  # as many at other places
            lying = drawn_places(SIFTED * starts, source)
            others = self._sifted(picture, lying, source)
            latents, places = torch.cat([latents, others[0]]), torch.cat([places, others[1]])
        at, levels = (latents, places), max(1, (len(latents) - 1).bit_length())
        ends = [self.sizes.steps * level // levels for level in range(levels + 1)]
        for begin, end in pairwise(ends):
            order, at = self._nearer(picture, *at, search, end - begin, tick)
            best = order[: (len(order) + 1) // 2]
            at = (at[0][best], at[1][best])
        return at[0][:1], at[1][:1]

    def usual(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of latents, each [...] and of the type and device of ``like``."""
        drawn = self.inputs.draw(DRAWN, torch.Generator().manual_seed(0)).to(like)
        return drawn.mean(0), drawn.var(0).clamp_min(CONSTANT)

    def _sifted(
        self, picture: Tensor, places: Tensor, source: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """As many latents as are begun from, and their places: of as many that are drawn as there
        are places [b, 4], those whose pictures there are nearest."""
        latents = self.inputs.draw(len(places), source).to(picture.device)
        places, still, apart = places.to(latents), not places.any(), list[Tensor]()
        with torch.no_grad():
            for some, lying in zip(latents.split(AT_ONCE), places.split(AT_ONCE), strict=True):
                made = self.original(some)
                apart.append(self._apart(made, picture, None if still else lying))
        best = torch.cat(apart).argsort()[: self.sizes.starts]
        return latents[best], places[best]

    def _apart(self, made: Tensor, picture: Tensor, places: Tensor | None) -> Tensor:
        """Mean squares [b] between a picture and made ones, at their places if they have any."""
        if places is None:
            return (made - picture).square().mean((1, 2, 3))
        shown = inside(places.detach(), self.sizes.resolution)
        apart = (laid(made, places) - picture).square() * shown
        return apart.mean((1, 2, 3)) / shown.mean((1, 2, 3))

    def _nearer(
        self, picture: Tensor, latents: Tensor, places: Tensor, search: bool, steps: int,
        tick: Callable[[], Any],
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
        """Latents [b, ...] and places [b, 4] after some steps towards a picture, and their order,
        the nearest first."""
        rates = {latents.clone(): RATE} | ({places.clone(): PLACE_RATE} if search else {})
        optimizer = torch.optim.Adam(
            [{"params": [one.requires_grad_()], "lr": rate} for one, rate in rates.items()]
        )
        latents, places = (*rates, places)[:2]
        left = latents.new_zeros(len(latents))
        mean, variance = self.usual(latents)
        for _ in range(steps):
            with torch.enable_grad():
                made = self.original(latents)
                left = self._apart(made, picture, places if search else None)
                unusual = ((latents - mean).square() / variance).flatten(1).mean(1)
                slopes = torch.autograd.grad((left + USUAL * unusual).sum(), list(rates))
            for one, slope in zip(rates, slopes, strict=True):
                one.grad = slope
            optimizer.step()
            tick()
        return left.detach().argsort(), (latents.detach(), places.detach())
