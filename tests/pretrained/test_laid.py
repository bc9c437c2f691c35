"""Pictures that were zoomed, turned and moved lie where they should."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.data.images import to_pil, to_uint8
from scalefp.pretrained.history import after
from scalefp.pretrained.laid import NUMBERS, STILL, drawn_places, inside, laid

SIDE = 16


@pytest.fixture
def pictures() -> Tensor:
    noise = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(noise, 3, 1, 1).clamp(-1, 1)


def test_at_no_place_a_picture_is_what_it_was(pictures: Tensor) -> None:
    none = torch.zeros(1, NUMBERS)
    torch.testing.assert_close(laid(pictures, none), pictures, atol=1e-5, rtol=0)
    assert (inside(none, SIDE) == 1).all()


def test_a_zoom_is_the_crop_resized(pictures: Tensor) -> None:
    middle = pictures[:, :, 4:12, 4:12]
    wanted = F.interpolate(middle, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    found = laid(pictures, torch.tensor([[math.log(2), 0, 0, 0]]))
    torch.testing.assert_close(found[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], atol=1e-5, rtol=0)
    # Half of a side to the right and below: the last quarter.
    there = torch.tensor([[math.log(2), 0, 0.5, 0.5]])
    last = F.interpolate(pictures[:, :, 8:, 8:], size=(SIDE, SIDE), mode="bilinear")
    found = laid(pictures, there)[..., 1:-1, 1:-1]
    torch.testing.assert_close(found, last[..., 1:-1, 1:-1], atol=1e-5, rtol=0)
    assert (inside(there, SIDE) == 1).all()


def test_a_turn_is_that_of_files(pictures: Tensor) -> None:
    place = torch.tensor([[0, math.radians(10), 0, 0]])
    turned = after(to_pil(to_uint8(pictures)), ("rotation", 10))
    shown = F.max_pool2d(1 - inside(place, SIDE), 3, 1, 1) == 0
    assert 0.5 < shown.float().mean() < 1  # without the corners
    apart = (laid(pictures, place) - turned).abs() * shown
    assert apart.max() < 0.03  # of 8 bits


def test_one_picture_at_several_places_and_several_at_one(pictures: Tensor) -> None:
    places = drawn_places(6, torch.Generator().manual_seed(1))
    assert places.shape == (6, NUMBERS)
    assert (places.abs().amax(dim=1) > STILL / 2).all()
    several = laid(pictures[:1], places)
    for place, one in zip(places, several, strict=True):
        torch.testing.assert_close(laid(pictures[:1], place[None])[0], one)
    assert laid(pictures, places[:1]).shape == pictures.shape
