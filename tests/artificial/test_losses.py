"""The marker's loss terms against closed forms."""

import math

import pytest
import torch

from scalefp.artificial.losses import (
    CHROMA,
    CONTRAST,
    contrast_sensitivity,
    terms,
    visibility,
)
from scalefp.networks.frames import identity_frame


def noise(count=8, side=32, seed=0):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 0.05


GREY = torch.zeros(8, 3, 32, 32)


def test_the_eye_sees_low_frequencies_fully_and_the_highest_least():
    curve = contrast_sensitivity(64)
    assert curve.shape == (64, 33)
    assert curve.max() == curve[0, 0] == 1
    assert (curve[0, 1:] <= curve[0, :-1]).all()
    assert curve[32, 32] == curve.min() < 0.5


def test_a_flat_grey_shift_is_fully_visible_and_a_flat_colour_shift_as_little_as_it_counts():
    shift = torch.full_like(GREY, 0.1)
    assert visibility(shift, GREY) == pytest.approx(1, rel=5e-3)
    colour = torch.zeros_like(GREY)
    colour[:, 0], colour[:, 2] = 0.1, -0.1  # lightness stays
    assert visibility(colour, GREY) == pytest.approx(CHROMA**2, rel=5e-3)


def test_visibility_does_not_depend_on_strength():
    residual = noise()
    assert visibility(residual, GREY) == pytest.approx(
        visibility(3 * residual, GREY).item(), rel=1e-4
    )


def test_fine_noise_is_less_visible_than_coarse_noise_of_the_same_power():
    fine = torch.zeros_like(GREY)
    fine[:, :, ::2, ::2] = fine[:, :, 1::2, 1::2] = 0.1
    fine[:, :, ::2, 1::2] = fine[:, :, 1::2, ::2] = -0.1
    coarse = torch.full_like(GREY, 0.1)
    coarse[:, :, :16] = -0.1
    assert visibility(fine, GREY) < 0.3 * visibility(coarse, GREY)


def test_texture_hides_half_at_the_stated_contrast():
    # A checkerboard of amplitude CONTRAST has that local standard deviation (but for 5x5 being
    # odd), so amplitudes are seen at half, powers at a quarter.
    board = torch.full_like(GREY, CONTRAST)
    board[:, :, ::2, ::2] = board[:, :, 1::2, 1::2] = -CONTRAST
    shift = torch.full_like(GREY, 0.1)
    assert visibility(shift, board) == pytest.approx(0.25, rel=0.02)


def test_visibility_has_finite_gradients_on_flat_images():
    residual = noise().requires_grad_()
    visibility(residual, GREY).backward()
    assert residual.grad.isfinite().all() and residual.grad.abs().sum() > 0


def test_terms_are_what_they_are_named():
    images, bits = GREY, torch.randint(0, 2, (8, 4), generator=torch.Generator().manual_seed(1))
    found = terms(
        logits=torch.zeros(8, 4),
        bits=bits,
        images=images,
        marked=images + 0.02,
        frame=identity_frame(8, images.device),
        located=None,
    )
    assert found.keys() == {"bits", "pixels", "visibility"}
    assert found["bits"] == pytest.approx(math.log(2))
    assert found["pixels"] == pytest.approx(0.0004)


def test_the_localizer_is_held_against_the_true_frame():
    frame = identity_frame(8, torch.device("cpu"))
    moved = frame.clone()
    moved[:, 0, 2] += 0.5  # half a half image to the side
    found = terms(
        logits=torch.zeros(8, 4), bits=torch.zeros(8, 4), images=GREY, marked=GREY + 0.02,
        frame=frame, located=moved,
    )  # fmt: skip
    assert found["geometry"] == pytest.approx(0.5, abs=1e-3)
