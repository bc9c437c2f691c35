"""Perturbations: every entry of the table, its two forms, chance, geometry and independence."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from scalefp import perturb
from scalefp.config import conf_dir
from scalefp.data.images import to_float, to_pil, to_tensor, to_uint8
from scalefp.errors import UserError
from scalefp.perturb import PERTURBATIONS, Chance, Perturbation, check_names
from scalefp.perturb.chance import NUMBERS
from scalefp.perturb.codecs import jpeg
from scalefp.perturb.colour import noise
from scalefp.perturb.entry import Rows
from scalefp.perturb.filters import blur, sigma_of_kernel
from scalefp.perturb.geometry import crop
from scalefp.perturb.training import change

NAMES = sorted(PERTURBATIONS)
GEOMETRIC = [name for name in NAMES if PERTURBATIONS[name].warp is not None]
VALUES = [name for name in NAMES if PERTURBATIONS[name].warp is None]
# Those whose gradients pass straight through what has none.
STRAIGHT = {"jpeg", "webp", "median"}
FORMULAS = [name for name in VALUES if name not in STRAIGHT]
# Entries whose harm depends on more than the strength: on a place, or on the picture's symmetry.
CHANCY = {"crop_random", "screenshot", "erasing", "text", "quarter_turn", "flip"}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(batch=4, size=32, seed=0, texture=0.08):
    """Smooth colours with some texture, float [b, 3, H, W] within [-0.9, 0.9]."""
    draw = np.random.default_rng(seed)
    line = np.linspace(0, 2 * np.pi, size)
    phase = draw.uniform(0, 6, (batch, 3, 1, 1))
    waves = np.sin(line[:, None] + phase) * np.cos(2 * line[None, :] - phase)
    specks = draw.normal(0, 1, (batch, 1, size, size))
    return torch.from_numpy(np.clip(0.6 * waves + texture * specks, -0.9, 0.9)).float()


def photo(width=40, height=32):
    """A smooth grey-blue picture: nothing that chroma subsampling alone could harm."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    grey = 60 + 120 * (x + y) / 2
    return Image.fromarray(np.stack([grey, grey, grey + 30], axis=2).round().astype(np.uint8))


def textured(size=64):
    return to_pil(pictures(1, size))[0]


def difference(a, b):
    return np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float))


def apply(name, picture, strength, seed=0):
    return PERTURBATIONS[name].apply(picture, strength, np.random.default_rng(seed))


def training_form(name, images, strength, seed=0):
    """What training makes of images at that strength, before the rounding to 8 bits, with the
    random numbers that the real operation draws."""
    b, _, height, width = images.shape
    numbers = np.random.default_rng(seed).random(NUMBERS, dtype=np.float64)
    normal = np.random.default_rng(seed).standard_normal((height, width, 3), dtype=np.float32)
    rows = Rows(
        torch.from_numpy(numbers).float().expand(b, -1),
        torch.from_numpy(normal).permute(2, 0, 1).expand(b, -1, -1, -1),
    )
    return change(PERTURBATIONS[name], images, torch.full((b,), float(strength)), rows)


def perturb_images(images, probabilities, draw, severity=1.0):
    chance = Chance.draw(len(images), probabilities, images.shape[-1], draw)
    return perturb.perturb_images(images, probabilities, chance, severity)


# The table.


@pytest.mark.parametrize("name", NAMES)
def test_identity_strength_changes_nothing_but_the_rounding_of_the_codec(name):
    change = difference(apply(name, photo(), PERTURBATIONS[name].identity), photo())
    assert change.max() <= 4
    assert change.mean() <= 1.5


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"jpeg", "webp", "combined", "screenshot"}))
def test_training_form_changes_nothing_at_identity(name):
    images = pictures()
    seen = training_form(name, images, PERTURBATIONS[name].identity)
    torch.testing.assert_close(seen, images, rtol=0, atol=0.51 / 127.5)


@pytest.mark.parametrize("name", NAMES)
def test_any_strength_gives_an_rgb_picture_of_the_same_size_and_leaves_the_input_alone(name):
    entry = PERTURBATIONS[name]
    for size in ((40, 32), (16, 16), (33, 17)):
        picture = photo(*size)
        before = np.array(picture)
        for strength in (entry.mild, entry.severe, *entry.test_strengths, entry.identity):
            changed = apply(name, picture, strength)
            assert (changed.mode, changed.size) == ("RGB", size)
        assert np.array_equal(np.array(picture), before)


@pytest.mark.parametrize("name", sorted(set(NAMES) - CHANCY))
def test_harm_grows_with_the_distance_from_identity(name):
    entry, picture = PERTURBATIONS[name], textured()
    # Once a crop has lost most of a picture, or a hue is all another, no more can be lost.
    within = {"crop": 0.6, "combined": 6}.get(name, math.inf)
    for side in (-1, 1):
        strengths = sorted(
            (s for s in entry.test_strengths if 0 < (s - entry.identity) * side < within),
            key=lambda s: abs(s - entry.identity),
        )
        harms = [
            difference(apply(name, picture, strength), picture).mean()
            for strength in (entry.identity, *strengths)
        ]
        assert harms == sorted(harms), strengths
        assert len(set(harms)) == len(harms)


@pytest.mark.parametrize("name", sorted(CHANCY))
def test_every_test_strength_does_harm(name):
    for strength in PERTURBATIONS[name].test_strengths:
        harms = [
            difference(apply(name, textured(), strength, seed), textured()).mean()
            for seed in range(3)
        ]
        assert min(harms) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_test_strengths_go_away_from_the_identity_once_each(name):
    entry = PERTURBATIONS[name]
    assert len(set(entry.test_strengths)) == len(entry.test_strengths)
    assert entry.identity not in entry.test_strengths
    assert entry.unit
    assert len(entry.test_strengths) >= {"flip": 1, "quarter_turn": 3, "median": 4}.get(name, 5)


@pytest.mark.parametrize(
    ("name", "strengths"),
    [
        ("jpeg", (90, 50, 20)),
        ("crop", (115 / 128, 88 / 128, 61 / 128)),
        ("noise", (0.056, 0.167, 0.5)),
        ("blur", (5, 10, 15)),
        ("resize", (0.5,)),
        ("rotation", (10,)),
        ("flip", (1,)),
        ("combined", (4, 5)),
    ],
)
def test_points_that_have_published_figures_or_targets_are_tested(name, strengths):
    assert set(strengths) <= set(PERTURBATIONS[name].test_strengths)


@pytest.mark.parametrize("name", NAMES)
def test_training_strengths_widen_from_mild_to_severe(name):
    entry = PERTURBATIONS[name]
    assert entry.identity == 0 or not entry.signed
    for severity in (0.0, 0.5, 1.0):
        strengths = entry.strengths(torch.rand(400, 2, generator=source()), severity).numpy()
        size = np.abs(strengths) if entry.signed else strengths
        end = entry.mild + severity * (entry.severe - entry.mild)
        low, high = sorted((entry.mild, end))
        assert low - 1e-5 <= size.min() and size.max() <= high + 1e-5
        assert size.mean() == pytest.approx((low + high) / 2, abs=0.1 * (high - low) + 1e-5)
        assert (strengths < 0).mean() == pytest.approx(0.5 if entry.signed else 0, abs=0.1)


# The real operations.


@pytest.mark.parametrize(("name", "suffix"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_codecs_are_the_real_ones(name, suffix, tmp_path):
    textured().save(tmp_path / "x", format=suffix, quality=60)
    expected = np.asarray(Image.open(tmp_path / "x").convert("RGB"))
    assert np.array_equal(np.asarray(apply(name, textured(), 60)), expected)


def test_a_crop_of_half_shows_the_middle_half():
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[16:48, 16:48] = 200
    assert np.asarray(apply("crop", Image.fromarray(pixels), 0.5)).min() == 200
    corner = np.asarray(apply("crop", Image.fromarray(pixels), 0.6))[0, 0]
    assert corner.max() < 200


def test_turns_go_counter_clockwise_and_four_quarters_are_none():
    picture = textured(32)
    quarter = apply("quarter_turn", picture, 90)
    assert np.array_equal(np.asarray(quarter), np.rot90(np.asarray(picture)))
    assert np.array_equal(np.asarray(apply("rotation", picture, 90)), np.asarray(quarter))
    for _ in range(3):
        quarter = apply("quarter_turn", quarter, 90)
    assert np.array_equal(np.asarray(quarter), np.asarray(picture))


@pytest.mark.parametrize(("kernel", "sigma"), [(0, 0), (1, 0), (3, 0.8), (5, 1.1), (15, 2.6)])
def test_kernel_sizes_mean_the_sigmas_of_opencv(kernel, sigma):
    assert sigma_of_kernel(kernel) == pytest.approx(sigma)


def spread(name, strength, side):
    """Standard deviation, in pixels, of what a filter makes of a bright column."""
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[:, side // 2] = 255
    row = np.asarray(apply(name, Image.fromarray(pixels), strength))[side // 2, :, 0].astype(float)
    return math.sqrt((row * (np.arange(side) - side // 2) ** 2).sum() / row.sum())


@pytest.mark.parametrize(
    ("name", "strength", "share"),
    [("blur", 15, 2.6 / 128), ("blur", 25, 4.1 / 128), ("blur_sigma", 2, 2 / 64)],
)
@pytest.mark.parametrize("side", [64, 128])
def test_blurs_scale_with_the_picture(name, strength, share, side):
    assert spread(name, strength, side) == pytest.approx(share * side, rel=0.1)


def test_noise_has_its_standard_deviation_in_units_of_minus_one_to_one():
    grey = Image.new("RGB", (64, 64), (128,) * 3)
    change = np.asarray(apply("noise", grey, 0.167)).astype(float) / 127.5 - 128 / 127.5
    assert change.std() == pytest.approx(0.167, rel=0.03)
    assert abs(change.mean()) < 0.01


def test_erasing_covers_its_share_with_one_colour():
    black = Image.new("RGB", (64, 64), (1, 2, 3))
    for seed in range(5):
        changed = np.asarray(apply("erasing", black, 0.2, seed)).reshape(-1, 3)
        covered = changed[(changed != (1, 2, 3)).any(axis=1)]
        assert len(covered) / len(changed) == pytest.approx(0.2, abs=0.02)
        assert len(np.unique(covered, axis=0)) == 1


def test_text_differs_and_grows():
    grey = Image.new("RGB", (64, 64), (128,) * 3)
    texts = [np.asarray(apply("text", grey, 0.3, seed)) for seed in range(4)]
    assert len({text.tobytes() for text in texts}) == 4
    covered = [
        np.mean([difference(apply("text", grey, size, s), grey).any(axis=2) for s in range(8)])
        for size in (0.1, 0.2, 0.4)
    ]
    assert 0.01 < covered[0] < covered[1] < covered[2] < 0.8


def test_combined_level_is_the_sequence_in_its_description():
    step = blur(crop(textured(), 0.75), 7.5)
    expected = jpeg(noise(step, 0.125, np.random.default_rng(0)), 60)
    assert np.array_equal(np.asarray(apply("combined", textured(), 5)), np.asarray(expected))


# The training forms.

# The real crop keeps whole pixels, half a pixel beside the matrix at other strengths.
WHOLE_PIXELS = {"crop": (60 / 64, 48 / 64, 32 / 64, 20 / 64), "combined": (2.5, 5, 7.5, 10)}
# Least agreement of training with Pillow, in dB. Random places are whole pixels there, type is
# hinted, WebP has a stand-in, and of medians over 5 pixels training takes a sample; what is not
# named differs by rounding.
AGREEMENT = {
    "crop": 40, "crop_random": 30, "rotation": 35, "screenshot": 28, "combined": 37,
    "jpeg": 39, "webp": 25, "median": 27, "sharpen": 39, "blur": 42, "blur_sigma": 42,
}  # fmt: skip


def decibels(a, b):
    return 10 * math.log10(4 / max((a - b).square().mean().item(), 1e-12))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"text"}))
def test_training_form_does_what_the_real_operation_does(name):
    entry = PERTURBATIONS[name]
    # Texture within a pixel would measure how the two sample between pixels, not where.
    images = to_float(to_uint8(pictures(2, 64, texture=0 if name in GEOMETRIC else 0.08)))
    strengths = WHOLE_PIXELS.get(name, (entry.mild, entry.severe, *entry.test_strengths))
    for strength in strengths:
        real = [apply(name, picture, strength) for picture in to_pil(images)]
        real = to_float(to_tensor(real, 64))
        form = to_float(to_uint8(training_form(name, images, strength)))
        agreement = decibels(form, real)
        assert agreement >= AGREEMENT.get(name, 48), (strength, agreement)
        assert agreement > decibels(images, real) - 3, strength


@pytest.mark.parametrize("side", [16, 40, 64])
def test_jpeg_in_training_is_that_of_pillow_at_sides_of_any_size(side):
    images = to_float(to_uint8(pictures(2, side)))
    for quality in (95, 75, 49, 20):
        real = to_float(to_tensor([jpeg(p, quality) for p in to_pil(images)], side))
        assert decibels(training_form("jpeg", images, quality), real) > 39


def test_webp_has_a_stand_in_that_harms_as_much():
    images = to_float(to_uint8(pictures(4, 64)))
    for quality in (90, 70, 50, 30, 10):
        real = [apply("webp", picture, quality) for picture in to_pil(images)]
        harm = decibels(images, to_float(to_tensor(real, 64)))
        assert decibels(images, training_form("webp", images, quality)) == pytest.approx(
            harm, abs=3
        )


@pytest.mark.parametrize("size", [0.15, 0.3, 0.4])
def test_text_in_training_says_the_same_in_the_same_place_and_colour(size):
    grey = torch.zeros(1, 3, 64, 64)
    for seed in range(4):
        real = to_tensor([apply("text", to_pil(grey)[0], size, seed)], 64)
        form = training_form("text", grey, size, seed)
        real, form = (F.avg_pool2d(x, 8).flatten() for x in (to_float(real) - 1 / 255, form))
        assert (real - form).norm() < 0.4 * real.norm()


@pytest.mark.parametrize("size", [3, 5, 7])
def test_medians_are_pillows_up_to_the_largest_that_training_draws(size):
    images = to_float(to_uint8(pictures(2, 64)))
    real = to_tensor([apply("median", picture, size) for picture in to_pil(images)], 64)
    same = torch.equal(to_uint8(training_form("median", images, size)), real)
    assert same == (size <= PERTURBATIONS["median"].severe)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_gradients_are_those_of_the_formula(name, share):
    entry = PERTURBATIONS[name]
    strength = entry.identity + share * (entry.severe - entry.identity)
    images = (0.5 * pictures(2, 16)).requires_grad_()  # not near the clipping
    weights = torch.randn(images.shape, generator=source(1))
    direction = 0.5 * pictures(2, 16, seed=3)

    def value(x):
        return (training_form(name, x, strength) * weights).sum()

    (gradient,) = torch.autograd.grad(value(images), images)
    step = 1e-2
    with torch.no_grad():
        slope = (value(images + step * direction) - value(images - step * direction)) / (2 * step)
    expected = (gradient * direction).sum()
    scale = gradient.norm() * direction.norm()
    assert gradient.norm() > 0.05 * weights.norm()
    assert abs(slope - expected) < 0.01 * scale


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["waves", "black", "white", "grey"])
def test_gradients_are_finite_even_where_formulas_have_poles(name, kind):
    images = 1.3 * pictures(6)
    if kind != "waves":
        images = torch.full_like(images, {"black": -1.0, "white": 1.0, "grey": 0.0}[kind])
    images.requires_grad_()
    seen, _ = perturb_images(images, {name: 1.0}, source())
    (gradient,) = torch.autograd.grad(seen.square().sum(), images)
    assert seen.isfinite().all()
    assert gradient.isfinite().all()
    if kind == "waves":
        assert gradient.abs().sum() > 0


def test_brightening_by_gamma_is_continuous_and_never_steeper_than_at_the_least_level():
    values = torch.linspace(0, 3 / 255, 301)
    images = (2 * values - 1).expand(1, 3, 301, 301)
    curve = (training_form("gamma", images, -1.5)[0, 0, 0] + 1) / 2
    rises = curve.diff() / values.diff()
    assert rises.min() > 0
    assert rises.max() <= 1.01 * 255 * (1 / 255) ** 2**-1.5


# Geometry.


@pytest.mark.parametrize("name", GEOMETRIC)
def test_matrices_say_what_was_done(name):
    images = pictures(6, 64, texture=0)
    seen, matrices = perturb_images(images, {name: 1.0}, source(2), severity=0.5)
    assert matrices.shape == (6, 2, 3)
    assert matrices.dtype == torch.float32
    where = F.affine_grid(matrices, list(images.shape), align_corners=False)
    inside = (where.abs() < 0.98).all(dim=3)[:, None].expand_as(images)
    expected = F.grid_sample(images, where, align_corners=False)
    # A combination also adds noise and the like.
    allowed = 0.2 if name == "combined" else 0.01
    assert (seen - expected)[inside].abs().mean() < allowed
    assert (matrices - torch.eye(2, 3)).flatten(1).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("name", sorted(set(GEOMETRIC) - {"combined"}))
def test_the_inverse_matrix_brings_the_middle_back(name):
    images = pictures(6, 64, texture=0)
    seen, matrices = perturb_images(images, {name: 1.0}, source(4), severity=0.3)
    last = torch.tensor([0.0, 0.0, 1.0]).expand(6, 1, 3)
    inverse = torch.cat([matrices, last], dim=1).inverse()[:, :2]
    where = F.affine_grid(inverse, list(images.shape), align_corners=False)
    back = F.grid_sample(seen, where, align_corners=False)
    middle = (slice(None), slice(None), slice(24, 40), slice(24, 40))
    moved = (seen - images)[middle].abs().mean()
    assert (back - images)[middle].abs().mean() < min(0.03, 0.5 * float(moved))


@pytest.mark.parametrize("name", VALUES)
def test_changes_of_values_leave_the_geometry(name):
    _, matrices = perturb_images(pictures(), {name: 1.0}, source())
    assert torch.equal(matrices, torch.eye(2, 3).expand(4, 2, 3))


# Names and probabilities.


@pytest.mark.parametrize(
    ("probabilities", "says"),
    [
        ({"rotate-by-moonlight": 0.1}, "rotate-by-moonlight"),
        ({"jpeg": -0.1}, "jpeg"),
        ({"jpeg": 1.1}, "jpeg must lie between 0 and 1"),
        ({"jpeg": math.nan}, "jpeg"),
    ],
)
def test_bad_names_and_probabilities_are_refused(probabilities, says):
    with pytest.raises(UserError, match=says):
        check_names(probabilities)


def test_good_names_and_probabilities_pass():
    check_names({})
    check_names(dict.fromkeys(NAMES, 1.0))
    check_names({"jpeg": 1.0, "crop": 1.0})


def test_the_full_setting_has_nearly_every_entry_and_the_published_one_its_five():
    def setting(name):
        return yaml.safe_load((conf_dir() / "perturb" / f"{name}.yaml").read_text())

    # The reader tries flips and quarter turns anyway.
    assert set(setting("full")) == set(NAMES) - {"flip", "quarter_turn"}
    assert min(setting("full").values()) > 0
    assert set(setting("published")) == {"crop", "combined", "blur", "jpeg", "noise"}


# In training.


def test_without_perturbation_it_is_the_exact_rounding_to_8_bits():
    images = 1.3 * torch.randn(5, 3, 9, 9, generator=source())
    seen, matrices = perturb_images(images, {}, source())
    assert seen.dtype == torch.float32
    assert torch.equal(seen, to_float(to_uint8(images)))
    assert torch.equal(matrices, torch.eye(2, 3).expand(5, 2, 3))


def test_half_precision_comes_back_as_float32():
    seen, _ = perturb_images(pictures().bfloat16(), {"jpeg": 0.5, "crop": 0.5}, source())
    assert seen.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_perturbed_images_are_8_bit_pictures(name):
    images = pictures(size=64)
    seen, _ = perturb_images(images, {name: 1.0}, source(1))
    assert seen.shape == images.shape
    assert torch.equal(to_float(to_uint8(seen)), seen)
    changed = (to_uint8(seen) != to_uint8(images)).flatten(1).any(1)
    assert changed.all()


@pytest.mark.parametrize("probabilities", [{}, {"median": 1.0}])
def test_gradients_pass_straight_through_rounding_and_clipping(probabilities):
    images = (1.5 * pictures()).requires_grad_()  # values outside [-1, 1] included
    seen, _ = perturb_images(images, probabilities, source())
    weights = torch.randn(images.shape, generator=source(1))
    (gradient,) = torch.autograd.grad((seen * weights).sum(), images)
    assert torch.equal(gradient, weights)


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_gradients_of_codecs_are_those_of_halved_colour_alone(name):
    images = (0.5 * pictures()).requires_grad_()
    weights = torch.randn(images.shape, generator=source(1))
    grey = weights.mean(dim=1, keepdim=True).expand_as(weights)
    slow = F.interpolate(F.avg_pool2d(weights, 8), scale_factor=8.0).contiguous()
    (gradient,) = torch.autograd.grad((training_form(name, images, 30) * grey).sum(), images)
    luma = grey * 3 * torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    assert (gradient.sum(1) - luma.sum(1)).abs().max() < 1e-4
    (gradient,) = torch.autograd.grad((training_form(name, images, 30) * slow).sum(), images)
    assert gradient.sum().item() == pytest.approx(slow.sum().item(), rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_generator_state_gives_the_same_result_and_another_one_does_not(name):
    images, probabilities = pictures(8), {name: 0.5}
    first = perturb_images(images, probabilities, source(3))
    again = perturb_images(images, probabilities, source(3))
    other = perturb_images(images, probabilities, source(4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    used = source(3)
    perturb_images(images, probabilities, used)
    assert not torch.equal(perturb_images(images, probabilities, used)[0], first[0])


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_do_not_see_each_other(name):
    images, probabilities = pictures(6), {name: 0.8}
    before, _ = perturb_images(images, probabilities, source(5))
    images[2] = pictures(1, seed=9)[0]
    after, _ = perturb_images(images, probabilities, source(5))
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(after[others], before[others], rtol=0, atol=1e-6)
    assert not torch.equal(after[2], before[2])


def test_each_image_meets_each_change_as_often_as_asked(monkeypatch):
    strengths = []

    def paint(channel):
        def train(images, strength, rows):
            strengths.extend(strength.tolist())
            return images.index_fill(1, torch.tensor(channel), 1.0)

        return Perturbation(
            apply=None, train=train, unit="", identity=0, mild=2, severe=6, test_strengths=()
        )

    def move(x):
        def warp(strength, rows):
            matrix = torch.tensor([[1, 0, x], [0, 1, 0.0]])
            return matrix.expand(len(strength), 2, 3), torch.full_like(strength, -1.0)

        return Perturbation(
            apply=None, warp=warp, unit="", identity=0, mild=2, severe=6, test_strengths=()
        )

    for name, entry in {
        "left": move(0.5), "right": move(-0.25), "red": paint(0), "green": paint(1)
    }.items():  # fmt: skip
        monkeypatch.setitem(perturb.PERTURBATIONS, name, entry)
    n = 4000
    probabilities = {"left": 0.1, "right": 0.3, "red": 0.2, "green": 0.5001}
    seen, matrices = perturb_images(torch.full((n, 3, 2, 2), -1.0), probabilities, source())
    red, green = (seen[:, channel].flatten(1).amax(1) == 1 for channel in (0, 1))
    # How many meet a change is not left to chance, which of them is.
    assert (int(red.sum()), int(green.sum()) - 2000 in (0, 1)) == (800, True)
    shifts = matrices[:, 0, 2]
    tolerance = 4 * 0.5 / math.sqrt(n)
    for shift, part in ((0.5, 0.07), (-0.25, 0.27), (0.25, 0.03), (0, 0.63)):
        assert (shifts == shift).double().mean() == pytest.approx(part, abs=tolerance)
        for chosen, share in ((red, 0.2), (green, 0.5), (red & green, 0.1)):
            both = ((shifts == shift) & chosen).double().mean()
            assert float(both) == pytest.approx(share * part, abs=tolerance)
    # Strengths are uniform over the range, and not tied to which perturbation it is.
    assert 2 <= min(strengths) < 2.1 and 5.9 < max(strengths) <= 6
    assert np.mean(strengths) == pytest.approx(4, abs=0.15)


def test_over_many_batches_every_image_is_as_likely_to_be_met():
    draw, met = source(), torch.zeros(6)
    for _ in range(3000):
        met += Chance.draw(6, ["jpeg"], 8, draw).places[:, 0] < 0.05 * 6
    assert (met / 3000 - 0.05).abs().max() < 4 * math.sqrt(0.05 / 3000)


def test_part_of_a_batch_meets_what_it_does_in_the_whole():
    images, probabilities = pictures(12), dict.fromkeys(NAMES, 0.15)
    chance = Chance.draw(12, probabilities, 32, source(1))
    whole, frames = perturb.perturb_images(images, probabilities, chance)
    for rows in (torch.arange(0, 12, 2), torch.arange(1, 12, 2)):
        part, moved = perturb.perturb_images(images[rows], probabilities, chance.of(rows))
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=1.01 / 127.5)
        assert (part - whole[rows]).abs().mean() < 1e-4
        torch.testing.assert_close(moved, frames[rows])


class NoWaiting(TorchDispatchMode):
    """Refuses what would wait for a device, copy from the host to it, or have a shape by values."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in {
            "_local_scalar_dense", "lift_fresh", "nonzero", "masked_select", "is_nonzero", "equal",
        }, name  # fmt: skip
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device():
    probabilities = dict.fromkeys(NAMES, 0.3)
    images, severity = pictures(6, 16).requires_grad_(), torch.tensor(0.5)
    for mode in (contextlib.nullcontext(), NoWaiting()):  # the first fills tables
        with mode:
            chance = Chance.draw(6, probabilities, 16, source())
            seen, _ = perturb.perturb_images(images, probabilities, chance, severity)
            seen.square().sum().backward()


@pytest.mark.parametrize("name", ["brightness", "noise", "rotation"])
def test_what_is_out_of_range_is_clipped_before_anything_happens_to_it(name):
    images = 2 * pictures()
    seen, _ = perturb_images(images, {name: 1.0}, source())
    clipped, _ = perturb_images(images.clamp(-1, 1), {name: 1.0}, source())
    assert torch.equal(seen, clipped)


def test_equal_images_of_a_batch_meet_chance_of_their_own():
    grey = torch.zeros(8, 3, 16, 16)
    seen, _ = perturb_images(grey, {"noise": 1.0}, source())
    alike = np.corrcoef(seen.flatten(1).numpy())
    assert np.abs(alike - np.eye(8)).max() < 0.2
    turned = perturb_images(pictures(1).expand(8, -1, -1, -1), {"rotation": 1.0}, source())[1]
    assert len({tuple(matrix.flatten().tolist()) for matrix in turned}) == 8


def test_what_shrinks_does_not_alias(monkeypatch):
    half = dataclasses.replace(PERTURBATIONS["screenshot"], mild=0.5, severe=0.5)
    monkeypatch.setitem(perturb.PERTURBATIONS, "screenshot", half)
    rows = torch.arange(32)
    checks = (1.0 - 2 * ((rows[:, None] + rows) % 2)).expand(4, 3, 32, 32)
    seen, matrices = perturb_images(checks, {"screenshot": 1.0}, source())
    where = F.affine_grid(matrices, list(checks.shape), align_corners=False)
    inside = (where.abs() < 0.9).all(dim=3)[:, None].expand_as(checks)
    assert inside.float().mean() > 0.15
    assert seen[inside].abs().mean() < 0.05


def test_a_crop_and_a_change_of_values_can_both_happen():
    seen, matrices = perturb_images(pictures(), {"crop": 1.0, "grey": 1.0}, source(), severity=0)
    assert matrices[:, 0, 0].tolist() == pytest.approx([0.95] * 4)
    cropped, _ = perturb_images(pictures(), {"crop": 1.0}, source(), severity=0)
    spread = [images.std(dim=1).mean() for images in (seen, cropped)]
    assert float(spread[0] / spread[1]) == pytest.approx(0.75, abs=0.03)  # grey by a quarter


def test_probability_zero_never_happens():
    images = pictures(16)
    seen, _ = perturb_images(images, dict.fromkeys(NAMES, 0.0), source())
    assert torch.equal(to_uint8(seen), to_uint8(images))
