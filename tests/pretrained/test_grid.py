"""Where a crop lies on the grid of the decoder that made the picture."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scalefp.pretrained.grid import grid_of, most_detailed


def again(parts: Tensor) -> Tensor:
    """An autoencoder that keeps the mean of every block of 4x4 pixels."""
    return F.interpolate(F.avg_pool2d(parts, 4), scale_factor=4.0)


def blocks(height: int, width: int, noise: float) -> Tensor:
    """What it makes, with noise on it [1, 3, 4 height, 4 width]."""
    source = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height, width, generator=source) * 2 - 1
    made = F.interpolate(coarse, scale_factor=4.0)
    return made + noise * torch.randn(made.shape, generator=source)


@pytest.mark.parametrize("noise", [0, 0.3])
@pytest.mark.parametrize("place", [(0, 0), (0, 3), (3, 1), (2, 2)])
def test_the_place_of_a_crop_is_found(place: tuple[int, int], noise: float) -> None:
    crop = blocks(40, 31, noise)[:, :, 4 - place[0] :, 4 - place[1] : -1]
    assert grid_of(again, crop, 4) == place


def test_what_shows_no_grid_is_read_from_its_corner() -> None:
    grain = torch.randn(1, 3, 100, 90, generator=torch.Generator().manual_seed(1))
    assert grid_of(again, grain, 4) == (0, 0)
    assert grid_of(again, torch.zeros(1, 3, 100, 90), 4) == (0, 0)  # all places are as good
    assert grid_of(again, blocks(7, 5, 0)[:, :, 1:, 1:], 4) == (0, 0)  # too small to tell
    assert grid_of(again, blocks(9, 9, 0), 1) == (0, 0)


def test_the_part_with_detail_is_looked_at() -> None:
    picture = torch.zeros(1, 3, 96, 120)
    picture[:, :, 50:70, 90:110] = torch.randn(
        3, 20, 20, generator=torch.Generator().manual_seed(2)
    )
    row, column = most_detailed(picture, 40)
    assert 30 <= row <= 50 and 70 <= column <= 80
