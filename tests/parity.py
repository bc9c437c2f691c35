"""A model whose figures are known: it writes key bits as parities of pixel values.

Parities survive PNG and nothing else, change a picture by a known number of grey levels, and are
fair coins on unrelated pictures.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from scalefp.config import ModelConfig
from scalefp.data.images import to_float, to_tensor
from scalefp.evaluation.samples import EvaluateConfig, LiftingConfig
from scalefp.key import Key

SIZE, N_BITS = 16, 64  # bits lie in the first 64 of the 256 pixels of the red channel


class ParityInstance:
    """``flip``: share of bits written wrongly; ``key_rules``: the key decides the whole picture."""

    def __init__(self, key: Key, key_rules: bool, flip: float) -> None:
        self.key, self.key_rules, self.flip = key, key_rules, flip

    def sample(self, n: int, *, seed: int = 0, batch_size: int = 32) -> Tensor:
        key_seed = int.from_bytes(self.key.bytes[:4], "big")
        rng = np.random.default_rng(key_seed if self.key_rules else seed)
        blocks = 2 * rng.integers(10, 110, (n, 3, 4, 4))
        if self.key_rules:
            blocks[:] = blocks[:1]
        pixels = blocks.repeat(4, axis=2).repeat(4, axis=3).astype(np.uint8)
        noise = np.random.default_rng([seed, key_seed]).random((n, N_BITS)) < self.flip
        pixels[:, 0].reshape(n, -1)[:, :N_BITS] += self.key.bits ^ noise
        pixels[:, 1, -1, 0] += 1  # a mark in the lower left corner
        return to_float(torch.from_numpy(pixels))


class ParityModel:
    """``searches``: as a decoder that finds back what was mirrored."""

    digest = "ab" * 32
    config = ModelConfig(resolution=SIZE, n_bits=N_BITS)

    def __init__(self, key_rules: bool = False, flip: float = 0.0, searches: bool = False) -> None:
        self.key_rules, self.flip, self.searches = key_rules, flip, searches
        self.decoded = {False: 0, True: 0}  # images read as they are, and searched

    def instantiate(self, key: Key) -> ParityInstance:
        return ParityInstance(key, self.key_rules, self.flip)

    def decode(
        self, images: list[Image.Image], *, batch_size: int = 32, search: bool = True
    ) -> SimpleNamespace:
        assert len(images) <= batch_size
        self.decoded[search] += len(images)
        pixels = to_tensor(images, SIZE)
        if search and self.searches:
            mirrored = pixels[:, 1, -1, -1] % 2 == 1  # where the mark has come to lie
            pixels[mirrored] = pixels[mirrored].flip(3)
        red = pixels[:, 0].flatten(1)[:, :N_BITS]
        return SimpleNamespace(logits=(red % 2).numpy() * 2.0 - 1)


class BlockMeans(nn.Module):
    """An extractor for tests: the 48 mean colours of 4x4 blocks."""

    name = "block means"

    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, SIZE // 4).flatten(1)


def make_folder(path: Path, count: int, seed: int) -> str:
    """A folder of so many pictures: coloured blocks under noise."""
    path.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        blocks = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        noise = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        pixels = blocks.repeat(4, axis=0).repeat(4, axis=1) // 2 + noise // 2
        Image.fromarray(pixels).save(path / f"{i}.png")
    return str(path)


def small_config(folder: Path) -> EvaluateConfig:
    """A measurement of a moment on two folders made for it."""
    return EvaluateConfig(
        keys=12,
        images_per_key=5,
        curve_keys=3,
        moved_keys=2,
        moved_curve_keys=4,
        thorough_images=7,
        perturbations=["jpeg", "flip"],
        pools=[1, 2],
        issued=[1, 2000],
        data=make_folder(folder / "data", 40, seed=0),
        unrelated=[make_folder(folder / "other", 30, seed=1)],
        unrelated_images=60,
        searched=2000,
        features="none",
        grid=4,
        tamperings=[],
        lifting=LiftingConfig(estimators=[]),
        batch_size=7,
    )
