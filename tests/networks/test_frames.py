"""Frames of images: what they mean, and undoing them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalefp.networks.frames import compose, distance, identity_frame, inverse, similarity, warp


def picture(size=32, batch=1):
    """Smooth, so that interpolating twice changes little."""
    line = torch.linspace(-1, 1, size)
    waves = [torch.sin(3 * line[:, None] + k) * torch.cos(2 * line - k) for k in range(3)]
    return torch.stack(waves).repeat(batch, 1, 1, 1)


def frame(side=1.0, angle=0.0, x=0.0, y=0.0):
    return similarity(*(torch.tensor([float(value)]) for value in (side, angle, x, y)))


def test_the_identity_changes_nothing():
    torch.testing.assert_close(warp(picture(batch=2), identity_frame(2)), picture(batch=2))


def test_a_quarter_at_the_upper_right_is_that_quarter():
    image = picture(32)
    part = warp(image, frame(side=0.5, x=0.5, y=-0.5))
    # Every second pixel pair of the enlarged part averages to the pixel of the original.
    small = torch.nn.functional.avg_pool2d(part, 2)
    torch.testing.assert_close(small[..., 1:-1, 1:-1], image[..., 1:15, 17:31], atol=0.01, rtol=0)


def test_a_frame_turned_by_90_degrees_is_a_quarter_turn():
    image = picture(16)
    torch.testing.assert_close(warp(image, frame(angle=90)), image.rot90(1, (2, 3)))


def test_what_has_no_source_is_zero_or_the_border():
    ones = torch.ones(1, 1, 8, 8)
    shrunk = warp(ones, frame(side=2))
    assert shrunk[0, 0, 0, 0] == 0 and shrunk[0, 0, 4, 4] == 1
    assert (warp(ones, frame(side=2), outside="border") == 1).all()


places = st.floats(-0.5, 0.5)
frames = st.builds(frame, st.floats(0.4, 1.6), st.floats(-180, 180), places, places)


@given(frames)
def test_the_inverse_undoes_a_frame(f):
    torch.testing.assert_close(compose(f, inverse(f)), identity_frame(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(compose(inverse(f), f), identity_frame(1), atol=1e-5, rtol=0)


@given(frames, frames)
def test_composing_takes_points_through_both(first, second):
    points = torch.tensor([[0.3, -0.8, 0.1], [0.5, 0.2, -0.9]])

    def through(f, p):
        return f[0, :, :2] @ p + f[0, :, 2:]

    torch.testing.assert_close(
        through(compose(first, second), points), through(first, through(second, points))
    )


def test_composing_is_warping_twice():
    image = picture(64)
    first, second = frame(side=0.7, angle=20, x=0.1), frame(side=0.8, angle=-35, y=0.1)
    twice, once = warp(warp(image, first), second), warp(image, compose(first, second))
    middle = slice(16, 48)  # beyond, the first frame has no source
    torch.testing.assert_close(
        twice[..., middle, middle], once[..., middle, middle], atol=0.01, rtol=0
    )


def test_an_image_that_was_turned_and_cropped_is_put_back():
    image, f = picture(64), frame(side=0.8, angle=10, x=0.05, y=-0.1)
    back = warp(warp(image, f), inverse(f))
    middle = slice(20, 44)
    torch.testing.assert_close(
        back[..., middle, middle], image[..., middle, middle], atol=0.02, rtol=0
    )


def test_the_distance_is_that_of_the_corners():
    still = identity_frame(1)
    assert distance(still, still).item() == pytest.approx(0, abs=2e-3)
    assert distance(still, frame(x=0.3, y=0.4)).item() == pytest.approx(0.5, abs=1e-4)
    corner = 0.7 * math.sqrt(2)
    assert distance(still, frame(side=0.5)).item() == pytest.approx(corner / 2, abs=1e-4)
    chord = 2 * corner * math.sin(math.radians(10) / 2)
    assert distance(still, frame(angle=10)).item() == pytest.approx(chord, abs=1e-4)


def test_the_distance_has_finite_gradients_where_it_is_zero():
    f = identity_frame(2).requires_grad_(True)
    distance(f, identity_frame(2)).sum().backward()
    assert f.grad.isfinite().all()
