"""The discriminator: sizes, and the minibatch deviation against its definition."""

import pytest
import torch

from scalefp.config import ModelConfig
from scalefp.networks.discriminator import Discriminator, ResidualBlock, minibatch_deviation


def build(resolution):
    torch.manual_seed(0)
    return Discriminator(
        ModelConfig(resolution=resolution, channel_base=4 * resolution, channel_max=8)
    )


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256])
def test_one_finite_logit_for_each_image(resolution, batch):
    logits = build(resolution)(torch.randn(batch, 3, resolution, resolution))
    assert logits.shape == (batch,)
    assert logits.isfinite().all()


def test_every_pixel_and_every_parameter_counts():
    discriminator = build(32)
    images = torch.randn(4, 3, 32, 32, requires_grad=True)
    discriminator(images).square().sum().backward()
    assert images.grad is not None
    assert (images.grad.abs().amax(dim=(0, 1)) > 0).all()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_residual_block_halves_the_plane_and_keeps_power():
    torch.manual_seed(0)
    x = torch.randn(64, 16, 1, 1).expand(-1, -1, 16, 16)  # flat planes: nothing to low-pass
    y = ResidualBlock(16, 24)(x)
    assert y.shape == (64, 24, 8, 8)
    assert y[:, :, 2:-2, 2:-2].square().mean().item() == pytest.approx(1, rel=0.25)


# Minibatch deviation.


def test_minibatch_deviation_appends_the_mean_deviation_over_each_group():
    # Groups of a batch of 8 take every second sample. Even rows are all alike; the odd ones are
    # +1, -1, +3, -3 times a pattern of mean absolute value 1: deviation sqrt(5) on the average.
    pattern = torch.tensor([[[0.5, 1.5], [-1.0, 1.0]]])
    x = torch.stack([f * pattern for f in (2.0, 1.0, 2.0, -1.0, 2.0, 3.0, 2.0, -3.0)])
    y = minibatch_deviation(x)
    assert y.shape == (8, 2, 2, 2)
    assert torch.equal(y[:, :1], x)
    expected = torch.tensor([0.0, 5**0.5] * 4)
    torch.testing.assert_close(
        y[:, 1], expected[:, None, None].expand(8, 2, 2), rtol=0, atol=1.1e-4
    )


@pytest.mark.parametrize("batch", [8, 12, 16, 32])
def test_pairs_side_by_side_fall_into_different_groups(batch):
    """Else the discriminator would judge how much two keys differ on one latent."""
    torch.manual_seed(0)
    x = torch.randn(batch, 3, 4, 4)
    before = minibatch_deviation(x)[:, -1, 0, 0]
    for i in range(batch):
        changed = x.clone()
        changed[i] += torch.randn(3, 4, 4)
        touched = (minibatch_deviation(changed)[:, -1, 0, 0] != before).nonzero().flatten().tolist()
        assert len(touched) == 4
        assert i in touched
        assert i ^ 1 not in touched


@pytest.mark.parametrize(("batch", "group"), [(1, 1), (2, 2), (3, 1), (4, 4), (6, 2), (20, 4)])
def test_groups_shrink_to_what_divides_the_batch(batch, group):
    torch.manual_seed(0)
    x = torch.randn(batch, 2, 4, 4)
    deviations = minibatch_deviation(x)[:, -1, 0, 0]
    rows = x.reshape(group, batch // group, -1)
    expected = rows.std(dim=0, unbiased=False).mean(dim=1).repeat(group)
    torch.testing.assert_close(deviations, expected, rtol=1e-3, atol=1.1e-4)


def test_a_batch_of_equal_images_is_seen():
    discriminator = build(16)
    torch.manual_seed(1)
    images = torch.randn(8, 3, 16, 16)
    alike = images[:1].expand(8, -1, -1, -1)
    assert not torch.allclose(discriminator(alike)[0], discriminator(images)[0], atol=1e-4)
