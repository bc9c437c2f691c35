"""Changes of sharpness: blurs, resizing down and back, sharpening, median.

The separable ones are in training a product with one small matrix for the rows and one for the
columns of each image, which has each image's own strength at little cost: ``y = A x A^T``.
"""

import math

import torch
from PIL import Image, ImageFilter
from torch import Tensor

from scalefp.perturb.entry import Rows, pass_gradients

BILINEAR = Image.Resampling.BILINEAR
PUBLISHED_SIDE = 128  # the published strengths in pixels are for pictures of this side
EMOJI_SIDE = 64
MOST_LARGER = 2  # times the side, the largest picture that training resizes to
TAPS = 2  # pixels to each side of a pixel, of which training takes the median
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

    A sigma of 0 gives the identity. Up to side / 16 the whole Gaussian is there, beyond it is cut
    off at side / 4 pixels.
    """
    reach = math.ceil(side / 4)
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


def train_blur(images: Tensor, kernels: Tensor, rows: Rows) -> Tensor:
    sigmas = torch.where(kernels > 1, 0.15 * kernels + 0.35, 0.0)  # sigma_of_kernel
    return _gaussian(images, sigmas * images.shape[-1] / PUBLISHED_SIDE)


def blur_sigma(image: Image.Image, sigma: float) -> Image.Image:
    """Gaussian blur; ``sigma`` is its standard deviation in pixels of a picture of 64."""
    return image.filter(ImageFilter.GaussianBlur(sigma * _side(image) / EMOJI_SIDE))


def train_blur_sigma(images: Tensor, sigmas: Tensor, rows: Rows) -> Tensor:
    return _gaussian(images, sigmas * images.shape[-1] / EMOJI_SIDE)


# Resizing.


def resize(image: Image.Image, factor: float) -> Image.Image:
    """Resized by a factor and back (bilinear with antialiasing)."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, BILINEAR).resize(image.size, BILINEAR)


def _resize_matrices(targets: Tensor, side: int, most: int) -> tuple[Tensor, Tensor]:
    """Pillow's bilinear resizing of one dimension, with antialiasing, from ``side`` to ``targets``
    [b] pixels [b, most, side], and back [b, side, most]; 0 where there is no pixel."""
    small = torch.arange(most, device=targets.device)[:, None] + 0.5
    large = torch.arange(side, device=targets.device) + 0.5
    targets = targets[:, None, None]
    scale = side / targets
    apart = (small * scale - large).abs()  # in pixels of the picture [b, most, side]
    exists = small < targets
    # Of the triangles by which the two directions weigh, the wider is as wide for both.
    weights = (1 - apart / scale.clamp_min(1)).clamp_min(0) * exists
    there = weights / (weights.sum(2, keepdim=True) + ~exists)
    return there, (weights / weights.sum(1, keepdim=True)).mT


def resize_matrix(side: int, factor: float) -> Tensor:
    """What :func:`resize` does to the rows and to the columns of a picture, [side, side]."""
    target = torch.tensor([max(1, round(side * factor))])
    there, back = _resize_matrices(target, side, int(target))
    return (back @ there)[0]


def train_resize(images: Tensor, factors: Tensor, rows: Rows) -> Tensor:
    side, most = images.shape[-1], MOST_LARGER * images.shape[-1]
    there, back = _resize_matrices((side * factors).round().clamp(1, most), side, most)
    return _separable(images, back @ there)


# Sharper, and without specks.


def sharpen(image: Image.Image, amount: float) -> Image.Image:
    """Unsharp mask: ``amount`` times what a small Gaussian blur takes away is added."""
    sigma = UNSHARP_SIGMA * _side(image) / PUBLISHED_SIDE
    return image.filter(ImageFilter.UnsharpMask(sigma, round(100 * amount), threshold=0))


def train_sharpen(images: Tensor, amounts: Tensor, rows: Rows) -> Tensor:
    sigmas = torch.full_like(amounts, UNSHARP_SIGMA * images.shape[-1] / PUBLISHED_SIDE)
    detail = images - _gaussian(images, sigmas)
    return (images + amounts[:, None, None, None] * detail).clamp(-1, 1)


def median(image: Image.Image, size: float) -> Image.Image:
    """Median of size x size pixels, in pixels of a picture of 64, rounded to an odd number."""
    half = round((size * _side(image) / EMOJI_SIDE - 1) / 2)
    return image.filter(ImageFilter.MedianFilter(2 * max(0, half) + 1))


def _window(levels: Tensor, halves: Tensor) -> Tensor:
    """The k x k neighbours of each pixel of levels [b, 3, H, H] in windows of 2 half + 1 pixels:
    [k * k, b, 3, H, H]. Larger windows than k are sampled evenly; of smaller ones the places
    outside are filled with as many 0 as 255, which leaves the median."""
    b, channels, side, _ = levels.shape
    taps = torch.arange(-TAPS, TAPS + 1, device=levels.device)
    offsets = (taps * (halves / TAPS).clamp_min(1)[:, None]).round()  # [b, k]
    pixels = torch.arange(side, device=levels.device)
    where = (pixels + offsets[:, :, None]).long().clamp(0, side - 1).flatten(1)  # [b, k * H]
    near = levels.gather(2, where[:, None, :, None].expand(b, channels, -1, side))
    near = near.gather(3, where[:, None, None].expand(b, channels, near.shape[2], -1))
    near = near.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # [b, 3, k, H, k, W]
    near = near.permute(2, 4, 0, 1, 3, 5).flatten(0, 1)
    inside = (offsets.abs() <= halves[:, None]).T
    inside = (inside[:, None] & inside).flatten(0, 1)[:, :, None, None, None]
    later = torch.arange(len(near), device=near.device) > len(near) // 2
    outside = (255 * later).byte()[:, None, None, None, None]
    return torch.where(inside, near, outside)


@torch.no_grad()
def _medians(images: Tensor, sizes: Tensor) -> Tensor:
    halves = ((sizes * images.shape[-1] / EMOJI_SIDE - 1) / 2).round().clamp_min(0)
    near = _window(((images + 1) * 127.5).round().clamp(0, 255).byte(), halves)
    # Bit by bit: the highest level that no more than half of the values lie below.
    median = torch.zeros_like(near[0])
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        below = (near < median + bit).sum(0, dtype=torch.uint8)
        median = torch.where(below <= len(near) // 2, median + bit, median)
    return median / 127.5 - 1


def train_median(images: Tensor, sizes: Tensor, rows: Rows) -> Tensor:
    """Exact up to 5 pixels, beyond it of 25 of the pixels; gradients pass straight through."""
    return pass_gradients(images, _medians(images, sizes))
