"""Pictures of a decoder that were turned, and by how much."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from scalefp.data.images import to_float, to_pil, to_uint8
from scalefp.pretrained.turned import inside, turn_of, turned
from tests.pretrained.test_grid import again, blocks


def rotated(picture: Tensor, degrees: float) -> Tensor:
    """A picture [1, 3, H, W] in [-1, 1] as a file that Pillow turned."""
    (file,) = to_pil(to_uint8(picture))
    file = file.rotate(degrees, resample=Image.Resampling.BILINEAR, fillcolor=(255,) * 3)
    return to_float(torch.from_numpy(np.array(file)).permute(2, 0, 1)[None])


def test_a_picture_is_turned_as_pillow_turns_files() -> None:
    picture, angle = blocks(20, 27, 0), torch.tensor(math.radians(10))
    where = inside(picture, angle)
    assert 0.7 < float(where.mean()) < 0.95
    apart = (turned(picture, angle) - rotated(picture, 10)).abs() * where
    assert float(apart.max()) < 2 / 127.5  # levels of 8 bits


@pytest.mark.parametrize("degrees", [-7, 10, 12.4])
def test_a_turn_is_found(degrees: float) -> None:
    found = turn_of(again, rotated(blocks(34, 30, 0.1), degrees), (0, 0), 4)
    assert found == pytest.approx(degrees, abs=0.35)


def test_what_was_not_turned_is_left_as_it_is() -> None:
    made = blocks(30, 30, 0.1)
    assert turn_of(again, made, (0, 0), 4) == 0
    assert turn_of(again, made[:, :, 3:, 1:], (1, 3), 4) == 0  # a crop
    grain = torch.randn(1, 3, 100, 90, generator=torch.Generator().manual_seed(1))
    assert turn_of(again, grain, (0, 0), 4) == 0
    assert turn_of(again, rotated(blocks(12, 12, 0), 10), (0, 0), 4) == 0  # too small to tell


def test_a_turn_that_only_blurs_is_none() -> None:
    """What the autoencoder adds of its own is less seen where it is turned."""

    def sharp(parts: Tensor) -> Tensor:
        rows, columns = torch.meshgrid(*map(torch.arange, parts.shape[2:]), indexing="ij")
        return again(parts) + 0.3 * (1 - 2 * ((rows + columns) % 2))

    assert turn_of(sharp, 0.3 * blocks(30, 30, 0.1), (0, 0), 4) == 0
