"""Perturbations: the 8-bit round trip, each table entry, chance and independence."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from scalefp import perturb
from scalefp.errors import UserError
from scalefp.images import to_float, to_uint8
from scalefp.perturb import PERTURBATIONS, Perturbation, check_names, through_file

NAMES = sorted(PERTURBATIONS)


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(batch=4, size=32, seed=0):
    """Smooth colours with some texture, float [b, 3, H, W] within [-1, 1]."""
    draw = np.random.default_rng(seed)
    line = np.linspace(0, 2 * np.pi, size)
    phase = draw.uniform(0, 6, (batch, 3, 1, 1))
    waves = np.sin(line[:, None] + phase) * np.cos(2 * line[None, :] - phase)
    texture = draw.normal(0, 0.08, (batch, 1, size, size))
    return torch.from_numpy(np.clip(0.7 * waves + texture, -1, 1)).float()


def photo(width=40, height=32):
    """A smooth grey-blue picture: nothing that chroma subsampling alone could harm."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    grey = 60 + 120 * (x + y) / 2
    return Image.fromarray(np.stack([grey, grey, grey + 30], axis=2).round().astype(np.uint8))


def textured(size=64):
    pixels = to_uint8(pictures(1, size))[0].permute(1, 2, 0).numpy()
    return Image.fromarray(pixels)


def difference(a, b):
    return np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float))


# The table.


@pytest.mark.parametrize("name", NAMES)
def test_identity_strength_changes_nothing_but_the_rounding_of_the_codec(name):
    entry, picture = PERTURBATIONS[name], photo()
    change = difference(entry.apply(picture, entry.identity), picture)
    assert change.max() <= 4
    assert change.mean() <= 1.5


@pytest.mark.parametrize("name", NAMES)
def test_any_strength_gives_an_rgb_picture_of_the_same_size_and_leaves_the_input_alone(name):
    entry = PERTURBATIONS[name]
    for size in ((40, 32), (16, 16), (33, 17)):
        picture = photo(*size)
        before = np.array(picture)
        for strength in (*entry.train_range, *entry.test_strengths, entry.identity):
            changed = entry.apply(picture, strength)
            assert (changed.mode, changed.size) == ("RGB", size)
        assert np.array_equal(np.array(picture), before)


@pytest.mark.parametrize("name", NAMES)
def test_harm_grows_with_the_distance_from_identity(name):
    entry, picture = PERTURBATIONS[name], textured()
    for side in (-1, 1):
        strengths = sorted(
            (s for s in entry.test_strengths if (s - entry.identity) * side > 0),
            key=lambda s: abs(s - entry.identity),
        )
        harms = [
            difference(entry.apply(picture, strength), picture).mean()
            for strength in (entry.identity, *strengths)
        ]
        assert harms == sorted(harms), strengths
        assert len(set(harms)) == len(harms)


@pytest.mark.parametrize("name", NAMES)
def test_training_range_and_test_strengths_are_usable(name):
    entry = PERTURBATIONS[name]
    low, high = entry.train_range
    assert low < high
    assert len(set(entry.test_strengths)) == len(entry.test_strengths) >= 1


@pytest.mark.parametrize(("name", "suffix"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_codecs_are_the_real_ones(name, suffix, tmp_path):
    textured().save(tmp_path / "x", format=suffix, quality=60)
    expected = np.asarray(Image.open(tmp_path / "x").convert("RGB"))
    assert np.array_equal(np.asarray(PERTURBATIONS[name].apply(textured(), 60)), expected)


# Names and probabilities.


@pytest.mark.parametrize(
    ("probabilities", "says"),
    [
        ({"rotate-by-moonlight": 0.1}, "rotate-by-moonlight"),
        ({"jpeg": -0.1}, "jpeg"),
        ({"jpeg": 0.6, "webp": 0.6}, "more than 1"),
        ({"jpeg": 1.1}, "jpeg|more than 1"),
        ({"jpeg": math.nan}, "jpeg"),
    ],
)
def test_bad_names_and_probabilities_are_refused(probabilities, says):
    with pytest.raises(UserError, match=says):
        check_names(probabilities)


def test_good_names_and_probabilities_pass():
    check_names({})
    check_names(dict.fromkeys(NAMES, 1 / len(NAMES)))
    check_names({"jpeg": 1.0})


# Through a file.


def test_without_perturbation_it_is_the_exact_rounding_to_8_bits():
    images = 1.3 * torch.randn(5, 3, 9, 7, generator=source())
    seen = through_file(images, {}, source())
    assert seen.dtype == torch.float32
    assert seen.shape == images.shape
    torch.testing.assert_close(seen, to_float(to_uint8(images)), rtol=0, atol=3e-7)
    assert torch.equal(to_uint8(seen), to_uint8(images))
    assert seen.abs().max() <= 1 + 3e-7


def test_what_is_8_bit_already_stays():
    levels = to_float(torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 3, 16, 16))
    torch.testing.assert_close(through_file(levels, {}, source()), levels, rtol=0, atol=3e-7)


@pytest.mark.parametrize("probabilities", [{}, *({name: 1.0} for name in NAMES)], ids=str)
def test_gradients_pass_straight_through(probabilities):
    images = (1.5 * pictures()).requires_grad_()  # values outside [-1, 1] included
    seen = through_file(images, probabilities, source())
    weights = torch.randn(images.shape, generator=source(1))
    (gradient,) = torch.autograd.grad((seen * weights).sum(), images)
    assert torch.equal(gradient, weights)


@pytest.mark.parametrize("name", NAMES)
def test_perturbed_images_are_8_bit_pictures_near_the_originals(name):
    images = pictures()
    seen = through_file(images, {name: 1.0}, source())
    assert seen.shape == images.shape
    torch.testing.assert_close(to_float(to_uint8(seen)), seen, rtol=0, atol=3e-7)
    assert not torch.equal(to_uint8(seen), to_uint8(images))
    assert (seen - images).abs().mean() < 0.15


def test_the_same_generator_state_gives_the_same_result_and_another_one_does_not():
    images, probabilities = pictures(8), {"jpeg": 0.4, "resize": 0.4}
    first = through_file(images, probabilities, source(3))
    assert torch.equal(through_file(images, probabilities, source(3)), first)
    assert not torch.equal(through_file(images, probabilities, source(4)), first)
    used = source(3)
    through_file(images, probabilities, used)
    assert not torch.equal(through_file(images, probabilities, used), first)


def test_images_of_a_batch_do_not_see_each_other():
    images, probabilities = pictures(6), {"jpeg": 0.3, "webp": 0.3, "resize": 0.3}
    before = through_file(images, probabilities, source(5))
    images[2] = pictures(1, seed=9)[0]
    after = through_file(images, probabilities, source(5))
    others = [0, 1, 3, 4, 5]
    assert torch.equal(after[others], before[others])
    assert not torch.equal(after[2], before[2])


def test_each_image_meets_at_most_one_perturbation_as_often_as_asked(monkeypatch):
    strengths = []

    def paint(value):
        def apply(image, strength):
            assert np.asarray(image).max() == 100, "perturbed twice"
            strengths.append(strength)
            return Image.new("RGB", image.size, (value,) * 3)

        return Perturbation(apply, 0.0, (2.0, 6.0), (1.0,))

    monkeypatch.setitem(perturb.PERTURBATIONS, "white", paint(255))
    monkeypatch.setitem(perturb.PERTURBATIONS, "black", paint(0))
    n = 2000
    images = to_float(torch.full((n, 3, 2, 2), 100, dtype=torch.uint8))
    seen = to_uint8(through_file(images, {"white": 0.2, "black": 0.5}, source()))[:, 0, 0, 0]
    shares = [float((seen == value).double().mean()) for value in (255, 0, 100)]
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=4 * 0.5 / math.sqrt(n))
    # Strengths are uniform over the training range, and not tied to which perturbation it is.
    assert 2 <= min(strengths) < 2.1 and 5.9 < max(strengths) <= 6
    assert np.mean(strengths) == pytest.approx(4, abs=0.15)


def test_probability_zero_never_happens():
    images = pictures(16)
    seen = through_file(images, dict.fromkeys(NAMES, 0.0), source())
    assert torch.equal(to_uint8(seen), to_uint8(images))
