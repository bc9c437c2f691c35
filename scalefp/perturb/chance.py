"""What is drawn at random for the perturbations of a training batch, all of it on one device.

Each of K perturbations meets the share of the batch that it should, up to one image: its images are
the first of a random order (systematic sampling). So which images it meets is up to chance, but how
many it can meet is known beforehand, which keeps every shape of a step the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from scalefp.perturb.table import PERTURBATIONS

NUMBERS = 8  # uniform numbers for one image and one perturbation besides its strength


@dataclass(frozen=True)
class Chance:
    """The draws for b images, of ``batch`` images that were drawn for together. Rows are images."""

    names: tuple[str, ...]  # of the K perturbations, in the order of the table
    batch: int
    # The image's place in the order of each perturbation, uniform in 0..batch [b, K].
    places: Tensor
    strengths: Tensor  # uniform in 0..1: how strong, and its sign [b, K, 2]
    numbers: Tensor  # uniform in 0..1, for what else is random [b, K, NUMBERS]
    noise: Tensor | None  # standard normal [b, 3, R, R], where a perturbation adds noise

    @classmethod
    def draw(cls, count: int, names: Iterable[str], side: int, source: torch.Generator) -> "Chance":
        """For ``count`` images of ``side`` pixels; the result lies on the device of ``source``."""
        chosen = set(names)
        ordered = tuple(name for name in PERTURBATIONS if name in chosen)
        k = len(ordered)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=source, device=source.device)

        noise = None
        if any(PERTURBATIONS[name].noisy for name in ordered):
            shape = (count, 3, side, side)
            noise = torch.randn(shape, generator=source, device=source.device)
        return cls(
            names=ordered,
            batch=count,
            places=uniform(count, k).argsort(dim=0) + uniform(k),
            strengths=uniform(count, k, 2),
            numbers=uniform(count, k, NUMBERS),
            noise=noise,
        )

    def of(self, rows: Tensor | slice) -> "Chance":
        """Those of some images."""
        noise = None if self.noise is None else self.noise[rows]
        drawn = self.places[rows], self.strengths[rows], self.numbers[rows]
        return Chance(self.names, self.batch, *drawn, noise)
