"""A picture like a photograph that belongs to nobody: mountains over a lake, computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float64]
STEEPNESS = 1.1  # of the spectrum of amplitudes: clouds and rock are near 1


def rough(shape: tuple[int, ...], steepness: float, source: np.random.Generator) -> Field:
    """Noise of the given shape whose amplitudes fall with the frequency, with deviation 1."""
    frequencies = np.sqrt(sum(np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in shape), indexing="ij")))
    frequencies.flat[0] = np.inf
    spectrum = np.fft.fftn(source.standard_normal(shape)) / frequencies**steepness
    field = np.fft.ifftn(spectrum).real
    made: Field = field / field.std()
    return made


def coloured(field: Field, dark: tuple[int, ...], bright: tuple[int, ...]) -> Field:
    """Colours [h, w, 3] between two, by a field of deviation 1."""
    share = (0.5 + field / 5).clip(0, 1)[..., None]
    colours: Field = np.array(dark) * (1 - share) + np.array(bright) * share
    return colours


def landscape(side: int = 256, seed: int = 4) -> Image.Image:
    """The picture, ``side`` pixels wide and high; the same for the same seed."""
    source, square = np.random.default_rng(seed), (side, side)
    height = np.arange(side)[:, None] / side
    picture = coloured(rough(square, 1.6, source) + 4 * height - 1, (88, 126, 178), (236, 238, 240))
    # Ridges, the nearer the darker; rock lies in the slope, grass below.
    for base, spread, dark, bright in (
        (0.42, 0.07, (96, 108, 128), (168, 174, 184)),
        (0.52, 0.06, (62, 66, 62), (142, 136, 122)),
        (0.62, 0.03, (26, 42, 20), (108, 124, 62)),
    ):
        ridge = base + spread * rough((side,), 1.3, source)[None]
        slope = coloured(rough(square, STEEPNESS, source) * 1.3, dark, bright)
        picture = np.where((height > ridge)[..., None], slope, picture)
    # The lake mirrors what is above it, and ripples.
    shore = round(0.7 * side)
    depth = np.arange(side - shore)
    ripples = rough((side, side), 0.9, source)[: side - shore] * (1 + depth[:, None] / 16)
    mirrored = (shore - 1 - depth[:, None] * 0.9 + ripples).round().astype(int).clip(0, shore - 1)
    picture[shore:] = picture[mirrored, np.arange(side)[None]] * 0.75 + np.array([4, 10, 18])
    picture += rough(square, 0, source)[..., None] * 2  # grain
    return Image.fromarray(picture.clip(0, 255).round().astype(np.uint8))
