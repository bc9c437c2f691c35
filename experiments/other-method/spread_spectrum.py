"""A method to compare with, in a few lines: each key bit adds or subtracts a pattern of noise."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from scalefp import Key, Reading
from scalefp.data.images import to_tensor


class SpreadSpectrum:
    """Marks pictures of smooth colour, strength grey levels a bit; reads by correlation."""

    def __init__(self, n_bits: int = 64, resolution: int = 32, strength: float = 2.0) -> None:
        self.n_bits, self.resolution, self.strength = n_bits, resolution, strength

    def patterns(self) -> np.ndarray:
        shape = (self.n_bits, 3, self.resolution, self.resolution)
        return np.random.default_rng(0).choice([-1.0, 1.0], shape)

    def sample(self, key: Key, n: int, *, seed: int) -> list[Image.Image]:
        size = (self.resolution, self.resolution)
        seeds = np.random.default_rng(seed).integers(0, 256, (n, 2, 2, 3), dtype=np.uint8)
        mark = self.strength * np.tensordot(2.0 * key.bits - 1, self.patterns(), 1)
        pictures = [
            np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BICUBIC)) for x in seeds
        ]
        marked = [(x + mark.transpose(1, 2, 0)).clip(0, 255).astype(np.uint8) for x in pictures]
        return [Image.fromarray(x) for x in marked]

    def decode(self, images: Sequence[Image.Image]) -> Reading:
        pixels = to_tensor(list(images), self.resolution).double().numpy()
        pixels -= pixels.mean(axis=(2, 3), keepdims=True)
        return Reading(
            np.tensordot(pixels, self.patterns(), ([1, 2, 3], [1, 2, 3])) / pixels[0].size
        )
