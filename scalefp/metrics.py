"""Metrics: features -> statistics -> number, in float64, without any network.

Shape legend: b images, n key bits or images in a set, d features. Feature sets are [n, d] from one
extractor (:mod:`scalefp.evaluation.features`); a distance means something only between sets of
the same one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from scalefp.errors import UserError

FloatArray = NDArray[np.float64]

# SSIM constants of Wang et al., IEEE TIP 13(4), 2004, section III-C.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03


def bit_accuracy(logits: ArrayLike, bits: ArrayLike) -> FloatArray:
    """Share of key bits read correctly, per image.

    Args:
        logits: decoder logits [b, n]; a logit > 0 reads as 1.
        bits: the true bits in {0, 1}, [n] (one key for all images) or [b, n].

    Returns:
        Accuracies [b] in [0, 1].

    Raises:
        UserError: logits not [b, n] and finite, or bits of another shape or other values.
    """
    read, true = np.asarray(logits), np.asarray(bits)
    if read.ndim != 2 or not np.isfinite(read).all():
        raise UserError("logits must be a finite array [images, bits].")
    if true.shape not in (read.shape, read.shape[1:]) or not np.isin(true, (0, 1)).all():
        raise UserError(f"bits must be 0 or 1 and of shape {read.shape[1:]} or {read.shape}.")
    share: FloatArray = ((read > 0) == (true == 1)).mean(axis=1, dtype=np.float64)
    return share


def psnr_of(error: float) -> float:
    """Peak signal-to-noise ratio in dB of a pixel MSE between images in [-1, 1] (peak 2).

    At most 106 dB, so that equal images have one, too.
    """
    return 10 * math.log10(4 / max(error, 1e-10))


def psnr(a: Tensor, b: Tensor) -> FloatArray:
    """Peak signal-to-noise ratio in dB of pairs of images [b, 3, H, W] in [-1, 1].

    10 log10(2^2 / MSE), the peak-to-peak value being 2; infinite for identical images.

    Returns:
        [b], one value a pair.
    """
    _check_pairs(a, b)
    error = (a.double() - b.double()).square().flatten(1).mean(dim=1)
    return np.asarray(10 * (4 / error).log10().cpu().numpy())


def ssim(a: Tensor, b: Tensor) -> FloatArray:
    """Structural similarity of pairs of images [b, C, H, W] in [-1, 1]: mean over map and channels.

    Wang et al. 2004, eq. 13, with their 11x11 Gaussian window (sigma 1.5) at every position that
    lies wholly inside the image, and K1 = 0.01, K2 = 0.03. The images are shifted to [0, 1] first,
    since the luminance term (eq. 6) is defined for non-negative intensities.

    Returns:
        [b], one value a pair, at most 1.

    Raises:
        UserError: shapes differ, or images smaller than the window.
    """
    _check_pairs(a, b)
    channels, height, width = a.shape[1:]
    if min(height, width) < SSIM_WINDOW:
        raise UserError(f"SSIM needs images of at least {SSIM_WINDOW} pixels a side.")
    x = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=a.device) - SSIM_WINDOW // 2
    taps = torch.exp(-x.square() / (2 * SSIM_SIGMA**2))
    rows = (taps / taps.sum()).reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = rows.transpose(2, 3)

    def local_mean(images: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(images, rows, groups=channels), columns, groups=channels)

    a, b = (a.double() + 1) / 2, (b.double() + 1) / 2
    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a = local_mean(a * a) - mean_a.square()
    variance_b = local_mean(b * b) - mean_b.square()
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return np.asarray((luminance * structure).flatten(1).mean(dim=1).cpu().numpy())


@dataclass(frozen=True)
class Statistics:
    """First two moments of a feature set: what a Fréchet distance needs.

    Attributes:
        mean: [d].
        root: [d, r] with covariance = root root', unbiased (divided by count - 1).
        count: number of images n. The distance is biased upwards at small n: name it.
    """

    mean: FloatArray
    root: FloatArray
    count: int

    @classmethod
    def of(cls, features: ArrayLike) -> Statistics:
        """Statistics of features [n, d], n >= 2 (:class:`UserError` otherwise)."""
        x = _feature_set(features)
        mean = x.mean(axis=0)
        root = (x - mean).T / np.sqrt(len(x) - 1)
        # The features themselves are a root; where they are many, a square one is smaller.
        return cls(mean, root if len(x) <= len(mean) else _root(root @ root.T), len(x))

    @classmethod
    def of_moments(cls, mean: FloatArray, covariance: FloatArray, count: int) -> Statistics:
        """Statistics from the moments [d] and [d, d]."""
        return cls(mean, _root(covariance), count)

    @property
    def covariance(self) -> FloatArray:
        """[d, d]."""
        return np.asarray(self.root @ self.root.T)


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Fréchet distance of two Gaussians (Heusel et al., NeurIPS 2017, eq. 6).

    |m_a - m_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2)). The last trace is the sum of the
    singular values of R_a' R_b for any roots C = R R'. This is accurate to rounding for singular
    covariances too (fewer images than features), where a matrix root of C_a C_b is not.

    Raises:
        UserError: the statistics have different numbers of features.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(
            f"cannot compare {len(a.mean)} with {len(b.mean)} features: use one extractor for both."
        )
    overlap = np.linalg.svd(a.root.T @ b.root, compute_uv=False).sum()
    distance = np.square(a.mean - b.mean).sum() - 2 * overlap
    distance += np.square(a.root).sum() + np.square(b.root).sum()  # the traces
    return max(float(distance), 0.0)


def kid(
    features_a: ArrayLike,
    features_b: ArrayLike,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> float:
    """Kernel distance: unbiased squared MMD, kernel (x.y / d + 1)^3 (Binkowski et al., ICLR 2018).

    The mean over ``subsets`` random subsets of ``subset_size`` features of each side (of the
    smaller set's size where that is less), drawn without replacement from ``seed``. Zero on average
    for equal distributions, so single values may be negative.

    Raises:
        UserError: sets of fewer than two images or of different numbers of features.
    """
    x, y = _feature_set(features_a), _feature_set(features_b)
    if x.shape[1] != y.shape[1]:
        raise UserError(f"cannot compare {x.shape[1]} with {y.shape[1]} features.")
    size = min(subset_size, len(x), len(y))
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        u = x[rng.choice(len(x), size, replace=False)]
        v = y[rng.choice(len(y), size, replace=False)]
        values.append(_mean_over_pairs(u) + _mean_over_pairs(v) - 2 * _kernel(u, v).mean())
    return float(np.mean(values))


def feature_diversity(features: ArrayLike) -> float:
    """Mean Euclidean distance over all pairs of different images of a set [n, d], exact.

    Zero when all images look the same to the extractor. Computed from norms and inner products,
    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, a block of rows at a time.
    """
    x = _feature_set(features)
    x = x - x.mean(axis=0)  # distances do not change, cancellation shrinks
    norms = np.square(x).sum(axis=1)
    total = 0.0
    for start in range(0, len(x), 1024):
        rows = slice(start, start + 1024)
        squared = norms[rows, None] + norms[None] - 2 * x[rows] @ x.T
        np.fill_diagonal(squared[:, start:], 0)  # an image and itself: exactly zero
        total += float(np.sqrt(squared.clip(min=0)).sum())
    return total / (len(x) * (len(x) - 1))


def precision_recall(
    real: ArrayLike, fake: ArrayLike, *, neighbours: int = 3
) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al., NeurIPS 2019, eqs. 1-3).

    Each set's manifold is the union of the balls around its features that reach to the k-th nearest
    of the same set. Precision is the share of fake features inside the real manifold (do pictures
    look right?), recall the share of real ones inside the fake manifold (is everything there?).

    Raises:
        UserError: sets of other numbers of features, or of no more than ``neighbours`` images.
    """
    x, y = _feature_set(real), _feature_set(fake)
    if x.shape[1] != y.shape[1]:
        raise UserError(f"cannot compare {x.shape[1]} with {y.shape[1]} features.")
    if min(len(x), len(y)) <= neighbours:
        raise UserError(f"precision and recall need more than {neighbours} images on each side.")

    def inside(points: FloatArray, manifold: FloatArray) -> float:
        own = _squared_distances(manifold, manifold)
        np.fill_diagonal(own, 0)  # itself comes first, whatever rounding says
        radii = np.partition(own, neighbours, axis=1)[:, neighbours]
        return float((_squared_distances(points, manifold) <= radii).any(axis=1).mean())

    return inside(y, x), inside(x, y)


def _squared_distances(x: FloatArray, y: FloatArray) -> FloatArray:
    """|x_i - y_j|^2 for all pairs, [len(x), len(y)]."""
    norms = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)
    return np.asarray((norms - 2 * x @ y.T).clip(min=0))


def _check_pairs(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 4:
        raise UserError(f"images must be two equal batches [b, C, H, W], not {a.shape}, {b.shape}.")


def _feature_set(features: ArrayLike) -> FloatArray:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise UserError("a feature set needs at least two images: an array [images, features].")
    if not np.isfinite(x).all():
        raise UserError("a feature set holds values that are not finite.")
    return x


def _root(covariance: FloatArray) -> FloatArray:
    """R [d, r] with R R' = covariance, without the directions that hold rounding noise only."""
    values, vectors = np.linalg.eigh(covariance)
    keep = values > max(values[-1], 0) * len(values) * np.finfo(np.float64).eps
    return np.asarray(vectors[:, keep] * np.sqrt(values[keep]))


def _kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def _mean_over_pairs(x: FloatArray) -> float:
    """Mean kernel of two different rows: leaving out the diagonal makes the MMD unbiased."""
    values = _kernel(x, x)
    return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))
