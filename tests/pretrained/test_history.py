"""What a file has been through shows in it, and what is left of a picture is known then."""

import pytest
import torch
from torch import Tensor

from scalefp.data.images import to_float, to_pil, to_uint8
from scalefp.pretrained.history import Change, Histories, after, coefficients, jpeg_quality

SIDE = 48
CHANGES: list[Change | None] = [
    None, ("jpeg", 25), ("jpeg", 57), ("jpeg", 90), ("resize", 0.5), ("resize", 0.75),
]  # fmt: skip


def pictures(count: int, seed: int) -> Tensor:
    """Noise of which less is fine and in colours, as of pictures: [b, 3, R, R] in [-1, 1]."""
    noise = torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    rows = torch.fft.fftfreq(SIDE)[:, None].square() + torch.fft.rfftfreq(SIDE).square()
    smooth = torch.fft.irfft2(torch.fft.rfft2(noise) / (rows.sqrt() + 0.05), s=(SIDE, SIDE))
    grey = smooth.mean(1, keepdim=True)
    return to_float(to_uint8((0.15 * grey + 0.03 * (smooth - grey)).clamp(-1, 1)))


def test_coefficients_are_the_same_numbers_turned() -> None:
    some = pictures(3, 0)
    found = coefficients(some)
    assert found.shape == (3, 3, 8, 8, SIDE // 8, SIDE // 8)
    one, other = found.flatten(1), some.flatten(1)
    torch.testing.assert_close(one @ one.T, other @ other.T, rtol=1e-5, atol=1e-3)
    # A grey plane is nothing but the first cosine of the first colour, nearly as JPEG has it.
    plane = coefficients(torch.ones(1, 3, 8, 8)).flatten()
    assert plane[0].abs() == pytest.approx(8 * 3**0.5, rel=0.2)
    # A wave along the rows is one cosine.
    wave = (torch.pi / 8 * 3 * (torch.arange(8) + 0.5)).cos().expand(1, 3, 8, 8)
    assert coefficients(wave)[0, :, 0, 3].square().sum() == pytest.approx(
        float(wave.square().sum()), rel=1e-4
    )


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_file_has_been_through_is_told(change: Change | None) -> None:
    histories = Histories.of(pictures(32, 1))
    told = [histories.told(after(to_pil(to_uint8(one[None])), change)) for one in pictures(8, 2)]
    assert told.count(change) >= 7, told


def test_a_noisy_picture_has_been_through_nothing() -> None:
    histories, chance = Histories.of(pictures(32, 1)), torch.Generator().manual_seed(3)
    noise = 0.1 * torch.randn(4, 3, SIDE, SIDE, generator=chance)
    noisy = to_float(to_uint8((pictures(4, 2) + noise).clamp(-1, 1)))
    assert [histories.told(one[None]) for one in noisy] == [None] * 4


def test_every_quality_is_told_to_one() -> None:
    (file,) = to_pil(to_uint8(pictures(1, 4)))
    for quality in range(30, 95, 7):
        (jpeg,) = to_pil(to_uint8(after([file], ("jpeg", quality))))
        found = jpeg_quality(jpeg)
        assert found is not None and abs(found - quality) <= 1
    assert jpeg_quality(file) is None


def test_without_a_history_pictures_are_compared_pixel_by_pixel() -> None:
    one, other = pictures(2, 5).split(1)
    passage = Histories.of(pictures(32, 1)).passage(None)
    apart = passage.found(one) - passage.expected(other)
    torch.testing.assert_close(apart.square().sum(), (one - other).square().sum())


@pytest.mark.parametrize("change", CHANGES[1:])
def test_what_differs_beyond_a_history_is_of_one_deviation(change: Change) -> None:
    histories = Histories.of(pictures(32, 1))
    for one in pictures(4, 6).split(1):
        file = after(to_pil(to_uint8(one)), change)
        passage = histories.passage(histories.told(file))
        counts = (passage.scale > 0).float().mean()
        explained = (passage.found(file) - passage.expected(one)).square().mean() / counts
        assert 0.3 < explained < 1.35
        # Another picture differs by far more.
        another = (passage.found(file) - passage.expected(one.flip(3))).square().mean() / counts
        assert another > 3 * explained
