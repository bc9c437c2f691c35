"""Lossy files: JPEG and WebP, by Pillow, and what they do to pictures for training."""

import io
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from scalefp.perturb.entry import Rows, pass_gradients

# What a coefficient is divided by at quality 50, for luma and chroma: ITU-T T.81, annex K.
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99), (47, 66, 99, 99, 99, 99, 99, 99),
    (99,) * 8, (99,) * 8, (99,) * 8, (99,) * 8,
)  # fmt: skip


def reencode(image: Image.Image, format: str, **options: Any) -> Image.Image:
    """The picture as it comes back from a file of that format, with Pillow's options for it."""
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return Image.open(buffer).convert("RGB")


def jpeg(image: Image.Image, quality: float) -> Image.Image:
    """JPEG with 4:2:0 chroma, quality 1..100."""
    return reencode(image, "JPEG", quality=round(quality))


def webp(image: Image.Image, quality: float) -> Image.Image:
    """Lossy WebP, quality 1..100."""
    return reencode(image, "WEBP", quality=round(quality))


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The transform of the 64 values of a block to cosines [64, 64] (orthonormal), and what they
    are divided by at quality 50, for luma and chroma [64]."""
    k = torch.arange(8, dtype=torch.float64)
    cosines = torch.cos((2 * k + 1) * k[:, None] * (torch.pi / 16)) / 2
    cosines[0] *= 0.5**0.5
    tables = (torch.tensor(table, dtype=torch.float32).flatten() for table in (LUMA, CHROMA))
    luma, chroma = (table.to(device) for table in tables)
    return torch.kron(cosines, cosines).float().to(device), luma, chroma


@torch.no_grad()
def _quantized(planes: Tensor, steps: Tensor, cosines: Tensor) -> Tensor:
    """Planes [b, H, W] of 0..255 whose blocks of 8 x 8 keep multiples of ``steps`` [b, 64]."""
    b, height, width = planes.shape
    blocks = (planes.round() - 128).view(b, height // 8, 8, width // 8, 8)
    blocks = blocks.transpose(2, 3).reshape(b, -1, 64)
    kept = (blocks @ cosines.T).div_(steps[:, None]).round_().mul_(steps[:, None])
    back = (kept @ cosines).add_(128).round_().clamp_(0, 255)
    return back.view(b, height // 8, width // 8, 8, 8).transpose(2, 3).reshape(b, height, width)


def train_jpeg(images: Tensor, qualities: Tensor, rows: Rows) -> Tensor:
    """What a JPEG file keeps: colour at half the resolution, and rounded cosines of 8 x 8 pixels.

    Gradients pass straight through the rounding.
    """
    cosines, luma, chroma = _tables(images.device)
    quality = qualities.round().clamp(1, 100)
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)[:, None]
    of_luma, of_chroma = (((t * scale + 50) / 100).floor().clamp(1, 255) for t in (luma, chroma))

    side = images.shape[-1]
    missing = -side % 16
    levels = (images + 1) * 127.5
    r, g, b = F.pad(levels, (0, missing, 0, missing), mode="replicate").unbind(1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    colour = torch.stack([(b - y) / 1.772, (r - y) / 1.402], dim=1) + 128
    colour = F.avg_pool2d(colour, 2)
    flat = colour.flatten(0, 1)
    y = pass_gradients(y, _quantized(y, of_luma, cosines))
    kept = _quantized(flat, of_chroma.repeat_interleave(2, dim=0), cosines)
    colour = pass_gradients(colour, kept.view_as(colour))
    colour = F.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False) - 128
    b, r = y + 1.772 * colour[:, 0], y + 1.402 * colour[:, 1]
    g = (y - 0.299 * r - 0.114 * b) / 0.587
    back = torch.stack([r, g, b], dim=1)[..., :side, :side]
    return back / 127.5 - 1


def train_webp(images: Tensor, qualities: Tensor, rows: Rows) -> Tensor:
    """JPEG of the quality that harms pictures as much: a stand-in.

    VP8 predicts a block from its neighbours and smooths the edges of blocks, one after the other,
    which does not suit a device. What training needs is which detail is lost, and how much of it.
    """
    return train_jpeg(images, webp_as_jpeg(qualities), rows)


def webp_as_jpeg(qualities: Tensor) -> Tensor:
    """Quality of the JPEG that errs as much as WebP of these qualities, as measured on `emoji64`:
    30 for 10, 66 for 30, 78 for 50, 90 for 80."""
    return torch.minimum(12 + 1.8 * qualities, 58 + 0.4 * qualities)
