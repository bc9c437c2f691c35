"""The encoder: what it adds, how strongly, and to images of which size."""

import dataclasses

import pytest
import torch

from scalefp.artificial.config import MarkConfig
from scalefp.artificial.encoder import Encoder, mark

SMALL = MarkConfig(
    resolution=32, n_bits=8, encoder_width=4, decoder_resolution=16, decoder_base=32, decoder_max=8
)


def some(side=32, count=3):
    draw = torch.Generator().manual_seed(1)
    images = 2 * torch.rand(count, 3, side, side, generator=draw) - 1
    return images, torch.randint(0, 2, (count, 8), generator=draw)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(SMALL).requires_grad_(False)


@pytest.mark.parametrize("psnr", [None, 20.0, 45.0])
def test_every_residual_has_exactly_the_asked_strength(encoder, psnr):
    images, bits = some()
    residual = encoder(images, bits, psnr=psnr)
    reached = 10 * (4 / residual.double().square().mean(dim=(1, 2, 3))).log10()
    assert reached.tolist() == pytest.approx([SMALL.psnr if psnr is None else psnr] * 3, abs=1e-4)


def test_without_a_budget_the_strength_is_the_networks_own():
    torch.manual_seed(0)
    free = Encoder(dataclasses.replace(SMALL, psnr=None)).requires_grad_(False)
    images, bits = some()
    assert torch.equal(free(images, bits), free(images, bits, psnr=30.0))
    power = free(images, bits).square().mean(dim=(1, 2, 3))
    assert len(power.unique()) == 3


@pytest.mark.parametrize("side", [32, 33, 39, 48, 100])
def test_any_side_gives_a_residual_of_that_size(side):
    torch.manual_seed(0)
    odd = Encoder(dataclasses.replace(SMALL, resolution=side)).requires_grad_(False)
    images, bits = some(side)
    assert odd(images, bits).shape == images.shape


def test_padding_reaches_no_pixel_of_a_side_that_needs_none(encoder):
    images, bits = some(32)
    torch.manual_seed(0)
    assert torch.equal(encoder(images, bits), Encoder(SMALL)(images, bits).detach())


def test_a_residual_depends_on_each_bit_and_on_the_image(encoder):
    images, bits = some(count=1)
    first = encoder(images, bits)
    for bit in range(8):
        changed = bits.clone()
        changed[0, bit] = 1 - changed[0, bit]
        assert not torch.allclose(encoder(images, changed), first, atol=1e-4)
    assert not torch.allclose(encoder(images.flip(3), bits), first, atol=1e-6)


def test_images_of_a_batch_do_not_touch_each_other(encoder):
    images, bits = some(count=4)
    whole = encoder(images, bits)
    for row in range(4):
        alone = encoder(images[row : row + 1], bits[row : row + 1])
        torch.testing.assert_close(alone[0], whole[row], rtol=0, atol=1e-5)


def test_opposite_keys_start_as_opposite_carriers(encoder):
    bits = torch.zeros(1, 8, dtype=torch.long)
    carriers = [encoder.carriers(2.0 * b - 1) for b in (bits, 1 - bits)]
    torch.testing.assert_close(carriers[0], -carriers[1])


def test_marked_images_stay_in_range_and_gradients_reach_every_weight():
    torch.manual_seed(0)
    network = Encoder(SMALL)
    images, bits = some()
    marked = mark(images, network(images, bits, psnr=10.0))
    assert marked.min() >= -1 and marked.max() <= 1
    weights = torch.randn(marked.shape, generator=torch.Generator().manual_seed(2))
    (marked * weights).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name
