"""Changes of sharpness: blurs, resizing down and back, sharpening, median.

The separable ones are in training a product with one small matrix for the rows and one for the
columns of each image, which has each image's own strength at little cost: ``y = A x A^T``.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from scalefp.perturb.entry import Draw, FloatArray

BILINEAR = Image.Resampling.BILINEAR
PUBLISHED_SIDE = 128  # the published strengths in pixels are for pictures of this side
EMOJI_SIDE = 64
UNSHARP_SIGMA = 2.0  # pixels of a picture of PUBLISHED_SIDE


def _side(image: Image.Image) -> int:
    return min(image.size)


def _separable(images: Tensor, matrices: Tensor) -> Tensor:
    """Apply matrices [b, H, H] to the rows and columns of images [b, 3, H, H]."""
    b, channels, side, _ = images.shape
    # Each product takes the three channels of an image as one matrix.
    wide = (images.reshape(b, channels * side, side) @ matrices.mT).reshape(images.shape)
    wide = matrices @ wide.transpose(1, 2).reshape(b, side, channels * side)
    return wide.reshape(b, side, channels, side).transpose(1, 2)


# Gaussian blurs.


def gaussian_matrices(sigmas: Tensor, side: int) -> Tensor:
    """[b, side, side]: Gaussian blurs by ``sigmas`` [b] pixels, with the border pixels repeated.

    A sigma of 0 gives the identity.
    """
    reach = math.ceil(4 * float(sigmas.max())) + 1
    offsets = torch.arange(-reach, side + reach, device=sigmas.device)
    offsets = offsets - torch.arange(side, device=sigmas.device)[:, None]  # [side, side + 2 reach]
    # Below 0.01 a Gaussian is all in its middle pixel.
    exponents = -0.5 * (offsets / sigmas.clamp_min(0.01)[:, None, None]).square()
    # Cut off at exp(-16) = 1e-7: products with denormal numbers would take 20 times as long.
    weights = torch.where(exponents > -16, torch.exp(exponents.clamp_min(-16)), 0.0)
    weights = weights / weights.sum(2, keepdim=True)
    before, inside, after = weights.split([reach, side, reach], dim=2)
    inside = torch.clone(inside)
    inside[:, :, 0] += before.sum(2)
    inside[:, :, -1] += after.sum(2)
    return inside


def _gaussian(images: Tensor, sigmas: Tensor) -> Tensor:
    return _separable(images, gaussian_matrices(sigmas, images.shape[-1]))


def sigma_of_kernel(kernel: float) -> float:
    """Standard deviation of a Gaussian kernel of that size; 0 for up to one pixel.

    OpenCV's rule (``getGaussianKernel``), which torchvision has too:
    0.3 ((k - 1) / 2 - 1) + 0.8.
    """
    return 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8 if kernel > 1 else 0.0


def blur(image: Image.Image, kernel: float) -> Image.Image:
    """Gaussian blur; ``kernel`` is its size in pixels of a picture of 128 (the published one)."""
    sigma = sigma_of_kernel(kernel) * _side(image) / PUBLISHED_SIDE
    return image.filter(ImageFilter.GaussianBlur(sigma))


def train_blur(images: Tensor, kernels: Tensor, draws: Sequence[Draw]) -> Tensor:
    sigmas = torch.where(kernels > 1, 0.15 * kernels + 0.35, 0.0)  # sigma_of_kernel
    return _gaussian(images, sigmas * images.shape[-1] / PUBLISHED_SIDE)


def blur_sigma(image: Image.Image, sigma: float) -> Image.Image:
    """Gaussian blur; ``sigma`` is its standard deviation in pixels of a picture of 64."""
    return image.filter(ImageFilter.GaussianBlur(sigma * _side(image) / EMOJI_SIDE))


def train_blur_sigma(images: Tensor, sigmas: Tensor, draws: Sequence[Draw]) -> Tensor:
    return _gaussian(images, sigmas * images.shape[-1] / EMOJI_SIDE)


# Resizing.


def resize(image: Image.Image, factor: float) -> Image.Image:
    """Resized by a factor and back (bilinear with antialiasing)."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, BILINEAR).resize(image.size, BILINEAR)


def _resize_matrix(side: int, target: int) -> FloatArray:
    """[target, side]: Pillow's bilinear resizing of one dimension, with antialiasing."""
    scale = side / target
    middles = (np.arange(target)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(side) + 0.5 - middles) / max(scale, 1.0)
    weights = np.clip(1 - distance, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@lru_cache(maxsize=1024)
def _there_and_back(side: int, target: int) -> Tensor:
    product = _resize_matrix(target, side) @ _resize_matrix(side, target)
    return torch.from_numpy(product).float()


def train_resize(images: Tensor, factors: Tensor, draws: Sequence[Draw]) -> Tensor:
    side = images.shape[-1]
    matrices = [_there_and_back(side, max(1, round(side * f))) for f in factors.tolist()]
    return _separable(images, torch.stack(matrices).to(images.device))


# Sharper, and without specks.


def sharpen(image: Image.Image, amount: float) -> Image.Image:
    """Unsharp mask: ``amount`` times what a small Gaussian blur takes away is added."""
    sigma = UNSHARP_SIGMA * _side(image) / PUBLISHED_SIDE
    return image.filter(ImageFilter.UnsharpMask(sigma, round(100 * amount), threshold=0))


def train_sharpen(images: Tensor, amounts: Tensor, draws: Sequence[Draw]) -> Tensor:
    sigmas = torch.full_like(amounts, UNSHARP_SIGMA * images.shape[-1] / PUBLISHED_SIDE)
    detail = images - _gaussian(images, sigmas)
    return (images + amounts[:, None, None, None] * detail).clamp(-1, 1)


def median(image: Image.Image, size: float) -> Image.Image:
    """Median of size x size pixels, in pixels of a picture of 64, rounded to an odd number."""
    half = round((size * _side(image) / EMOJI_SIDE - 1) / 2)
    return image.filter(ImageFilter.MedianFilter(2 * max(0, half) + 1))
