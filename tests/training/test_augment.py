"""What the discriminator sees: seeded, exact where it can be, and open to gradients."""

import dataclasses

import pytest
import torch

from scalefp.networks.frames import identity_frame
from scalefp.training.augment import BRIGHTNESS, CONTRAST, SATURATION, SHIFT, Augmentation

SIDE = 16


def drawn(count=64, probability=1.0, seed=0):
    source = torch.Generator().manual_seed(seed)
    return Augmentation.draw(count, SIDE, probability, source)


def nothing(count=1, **changes):
    ones = torch.ones(count)
    return dataclasses.replace(Augmentation(identity_frame(count), 0 * ones, ones, ones), **changes)


@pytest.fixture
def images():
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_without_a_chance_nothing_changes(images):
    torch.testing.assert_close(drawn(3, probability=0.0)(images), images)


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_each_kind_comes_as_often_as_was_asked(probability):
    changes = drawn(4000, probability)
    moved = (changes.frame[:, :, 2] != 0).any(dim=1)
    shares = {
        "mirrored": (changes.frame[:, 0, 0] < 0, probability / 2),
        "brightness": (changes.brightness != 0, probability),
        "saturation": (changes.saturation != 1, probability),
        "contrast": (changes.contrast != 1, probability),
    }
    for name, (rows, expected) in shares.items():
        assert rows.float().mean().item() == pytest.approx(expected, abs=0.03), name
    assert moved.float().mean() > 0.8 * probability


def test_strengths_stay_within_their_ranges_and_use_them():
    changes = drawn(4000)
    pixels = changes.frame[:, :, 2] * SIDE / 2
    torch.testing.assert_close(pixels, pixels.round())  # whole ones
    for values, low, high in (
        (pixels, -SHIFT * SIDE, SHIFT * SIDE),
        (changes.brightness, -BRIGHTNESS, BRIGHTNESS),
        (changes.saturation, *SATURATION),
        (changes.contrast, *CONTRAST),
    ):
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high >= values.max() > high - 0.1 * (high - low)


def test_mirroring_and_shifts_are_exact_and_repeat_the_border(images):
    frame = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    torch.testing.assert_close(
        nothing(frame=frame)(images[:1]), images[:1].flip(3), atol=1e-5, rtol=0
    )
    frame = torch.tensor([[[1.0, 0, 4 / SIDE], [0, 1, 0]]])  # two pixels
    moved = nothing(frame=frame)(images[:1])
    torch.testing.assert_close(moved[..., :-2], images[:1, ..., 2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[..., -1], images[:1, ..., -1], atol=1e-5, rtol=0)


def test_colours_change_as_they_say(images):
    one = images[:1]
    brighter = nothing(brightness=torch.tensor([0.2]))(one)
    torch.testing.assert_close(brighter, one + 0.2)
    grey = nothing(saturation=torch.tensor([0.0]))(one)
    torch.testing.assert_close(grey, one.mean(1, keepdim=True).expand_as(one))
    harder = nothing(contrast=torch.tensor([1.5]))(one)
    assert harder.mean().item() == pytest.approx(one.mean().item(), abs=1e-5)
    assert harder.std().item() == pytest.approx(1.5 * one.std().item(), rel=1e-4)


def test_the_same_seed_gives_the_same_changes_and_rows_keep_theirs(images):
    changes, again, other = drawn(3), drawn(3), drawn(3, seed=1)
    assert torch.equal(changes(images), again(images))
    assert not torch.equal(changes(images), other(images))
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(changes.of(rows)(images[rows]), changes(images)[rows])


def test_gradients_reach_the_images(images):
    changes = dataclasses.replace(drawn(3), saturation=torch.ones(3), contrast=torch.ones(3))
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(changes(images).sum(), images)
    # Every pixel that is shown counts once, one that repeats beyond the border more often.
    assert gradient.sum().item() == pytest.approx(images.numel(), rel=1e-4)
    assert gradient[:, :, 2:-2, 2:-2].mean().item() == pytest.approx(1, abs=1e-3)
