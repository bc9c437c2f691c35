"""Latents to begin from: the nearest of those that were drawn, and nearer than these."""

import pytest
import torch
from torch import Tensor

from scalefp.pretrained.beginning import SIFTED, Beginning
from scalefp.pretrained.inputs import Normal
from scalefp.pretrained.inversion import InversionSizes
from scalefp.pretrained.laid import laid

LATENT, SIDE, STARTS, STEPS = 6, 16, 3, 40
BASIS = torch.randn(LATENT, 3 * SIDE * SIDE, generator=torch.Generator().manual_seed(9))
# Smooth pictures, so that how they lie can be seen from near.
SMOOTH = torch.nn.functional.avg_pool2d(BASIS.view(LATENT, 3, SIDE, SIDE), 7, 1, 3).flatten(1)


def original(latents: Tensor) -> Tensor:
    return (latents @ SMOOTH).tanh().unflatten(1, (3, SIDE, SIDE))


def beginning(steps: int) -> Beginning:
    sizes = InversionSizes(SIDE, 8, steps, 1, STARTS, 1)
    return Beginning(original, Normal([LATENT]), sizes)


def test_without_steps_it_is_the_nearest_of_those_drawn() -> None:
    picture = original(torch.randn(1, LATENT, generator=torch.Generator().manual_seed(1)))
    latents, places = beginning(0).near(
        picture, False, torch.Generator().manual_seed(2), lambda: None
    )
    drawn = Normal([LATENT]).draw(SIFTED * STARTS, torch.Generator().manual_seed(2))
    apart = (original(drawn) - picture).square().mean((1, 2, 3))
    assert torch.equal(latents[0], drawn[apart.argmin()]) and not places.any()


@pytest.mark.parametrize("place", [[0.0, 0, 0, 0], [0.35, 0, 0, 0], [0, 0.15, 0, 0]])
def test_steps_lead_to_latents_and_to_where_they_lie(place: list[float]) -> None:
    where = torch.tensor([place])
    before, after = [], []
    for seed in range(6):
        true = torch.randn(1, LATENT, generator=torch.Generator().manual_seed(seed))
        picture = laid(original(true), where)
        for steps, apart in ((0, before), (STEPS, after)):
            source = torch.Generator().manual_seed(3)
            latents, places = beginning(steps).near(picture, True, source, lambda: None)
            apart.append(float((laid(original(latents), places) - picture).square().mean()))
    assert sum(after) < 0.5 * sum(before)


def test_every_step_is_told() -> None:
    ticks: list[int] = []
    picture = torch.zeros(1, 3, SIDE, SIDE)
    source = torch.Generator().manual_seed(0)
    beginning(STEPS).near(picture, True, source, lambda: ticks.append(1))
    assert len(ticks) == STEPS


class Shifted(Normal):
    """Latents of mean 3 and standard deviation 2."""

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        return 3 + 2 * super().draw(count, source)


def test_what_is_usual_of_latents_is_told_by_drawn_ones() -> None:
    inputs, sizes = Shifted([4000]), InversionSizes(SIDE, 8, STEPS, 1, STARTS, 1)
    mean, variance = Beginning(original, inputs, sizes).usual(torch.zeros(1))
    assert float(mean.mean()) == pytest.approx(3, abs=0.05)
    assert float(variance.mean()) == pytest.approx(4, abs=0.1)


def test_where_a_picture_says_nothing_latents_become_usual() -> None:
    def flat(latents: Tensor) -> Tensor:
        return (0 * latents.sum(1))[:, None, None, None].expand(-1, 3, SIDE, SIDE)

    sizes = InversionSizes(SIDE, 8, STEPS, 1, STARTS, 1)
    latents, _ = Beginning(flat, Shifted([50]), sizes).near(
        torch.zeros(1, 3, SIDE, SIDE), False, torch.Generator().manual_seed(0), lambda: None
    )
    assert float((latents - 3).square().mean()) < 1  # 4 of those that are drawn
