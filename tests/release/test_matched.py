"""The matched filter against the decoder's own rough logits, and its shifts against frames."""

import pytest
import torch

from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float
from scalefp.data.source import resolve_source
from scalefp.key import Key
from scalefp.loading import load_marker
from scalefp.networks.frames import identity_frame, similarity
from scalefp.release.evenness import above_noise
from scalefp.release.margins import margin_frames
from scalefp.release.matched import MatchedFilter, clouds, linear_content


@pytest.fixture(scope="module")
def marker():
    """A trained decoder with carriers reads what this writes."""
    return load_marker("artificial-emoji")


@pytest.fixture(scope="module")
def decoder(marker):
    return marker.decoder


@pytest.fixture(scope="module")
def filter(decoder):
    return MatchedFilter(decoder)


@pytest.fixture(scope="module")
def images(marker):
    pictures = ImageSet(resolve_source("emoji64"), 64, progress=False).pixels[:4]
    return to_float(marker.mark(torch.from_numpy(pictures), Key.from_hex("5a" * 16)))


def test_the_content_of_other_pictures_is_predicted_nearly_as_the_decoder_does(decoder, images):
    pixels = torch.nn.functional.pixel_unshuffle(decoder.low_pass(images), 2)
    content = decoder.content(decoder.stem(pixels))
    linear = torch.nn.functional.conv2d(pixels, linear_content(decoder), padding=2)
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    error = (content - linear)[inner]
    error = error - error.mean(dim=(0, 2, 3), keepdim=True)  # the constant is left out
    left = (pixels - content)[inner].var()
    assert error.var() < 0.05 * left


def test_rough_logits_are_those_of_the_decoder(decoder, filter, images):
    rough = torch.cat([filter.logits(image, identity_frame(1)) for image in images])
    own = decoder.look(images, identity_frame(len(images)))[1]
    assert torch.corrcoef(torch.stack([rough.flatten(), own.flatten()]))[0, 1] > 0.98
    assert (above_noise(rough) > 6).all()


def test_all_shifts_at_once_are_what_their_frames_are(filter, images):
    frames = similarity(
        torch.tensor([0.8, 1.3]), torch.tensor([0.0, 7.0]), torch.tensor([0.1, 0]), torch.zeros(2)
    )
    shifted, logits = filter.slide(images[0], frames, 2)
    assert shifted.shape == (50, 2, 3)
    torch.testing.assert_close(shifted[12], frames[0])  # the middle one of 25 is not shifted
    torch.testing.assert_close(logits, filter.logits(images[0], shifted), atol=2e-3, rtol=1e-3)


def test_clouds_are_the_same_every_time():
    torch.testing.assert_close(clouds(2, 16), clouds(2, 16))
    assert clouds(2, 16).abs().max() <= 1


def test_flat_margins_say_where_the_picture_lies():
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    assert margin_frames(picture) is None
    canvas = torch.full((3, 64, 64), 0.25)
    canvas[:, 8:56, 12:60] = picture[:, :48, :48]  # 48 of 64 pixels
    frames = margin_frames(canvas)
    corners = torch.tensor([[12 / 32 - 1, 60 / 32 - 1], [8 / 32 - 1, 56 / 32 - 1], [1, 1]])
    found = frames[0] @ corners  # the picture's corners come from the corners of the whole
    torch.testing.assert_close(found, torch.tensor([[-1.0, 1], [-1, 1]]))
    assert len(frames) == 1  # a square has no other square in its corners
    canvas[:, 40:] = 0.25
    frames = margin_frames(canvas)
    assert len(frames) == 5  # it may be a picture that is wide, or a square that is flat below
    assert any(torch.allclose(frame @ corners, found[0], atol=1e-4) for frame in frames)
    assert margin_frames(torch.zeros(3, 64, 64)) is None
