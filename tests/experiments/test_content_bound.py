"""The reader of experiments/content-bound, where what it should find is known."""

import pytest
import torch
from torch import Tensor, nn

import read_again

SIDE = 32


class Fixed(nn.Module):
    """The same features whatever the picture, as if encoding again lost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = torch.randn(1, 64, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def forward(self, picture: Tensor) -> Tensor:
        return self.inside


@pytest.fixture
def coder() -> read_again.Coder:
    torch.manual_seed(0)
    return read_again.Coder(nn.Identity(), Fixed(), nn.Conv2d(64, 3, 3).requires_grad_(False))


def test_directions_are_apart_and_of_mean_square_one(coder: read_again.Coder) -> None:
    directions = read_again.basis(coder, torch.zeros(2, 3, SIDE, SIDE))
    along = directions @ coder.features(torch.zeros(1, 3, SIDE, SIDE))
    assert torch.allclose(along @ along.T / along.shape[1], torch.eye(576), atol=1e-2)


def test_a_change_of_the_last_layer_is_read_from_one_picture(coder: read_again.Coder) -> None:
    directions = read_again.basis(coder, torch.zeros(1, 3, SIDE, SIDE))
    features = coder.features(torch.zeros(1, 3, SIDE, SIDE))
    moved = torch.randn(576, generator=torch.Generator().manual_seed(1))
    luma = torch.tensor(read_again.LUMA)
    made = coder.colours(features) + luma[:, None] * (moved @ directions @ features)
    found = read_again.read(coder, directions, made.view(1, 3, SIDE, SIDE))
    expected = moved * luma.square().sum() / (1 + read_again.RIDGE)
    assert torch.allclose(found, expected, atol=2e-2 * float(expected.abs().max()))


def test_nothing_is_read_from_what_the_coder_makes_itself(coder: read_again.Coder) -> None:
    directions = read_again.basis(coder, torch.zeros(1, 3, SIDE, SIDE))
    own = coder.colours(coder.features(torch.zeros(1, 3, SIDE, SIDE)))
    assert read_again.read(coder, directions, own.view(1, 3, SIDE, SIDE)).abs().max() < 1e-4
