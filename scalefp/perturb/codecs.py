"""Lossy files: JPEG and WebP, by Pillow."""

import io
from typing import Any

from PIL import Image


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
