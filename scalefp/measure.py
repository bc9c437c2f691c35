"""Measurements of a release on its instances' own images: is the key read, and is it hidden?

Everything is measured on what comes back from image files, with keys and latents that training
never saw, and attribution is judged by the thresholds that ``scalefp attribute`` uses.

Shape legend: K keys, m images of each, g keys or latents of the crossed sample, n key bits,
R resolution.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scalefp.errors import UserError
from scalefp.images import to_float, to_pil, to_tensor
from scalefp.key import Key
from scalefp.metrics import FloatArray, bit_accuracy, psnr, ssim
from scalefp.perturb import jpeg, reencode, resize

if TYPE_CHECKING:
    from scalefp.model import Model

BOOTSTRAP_SAMPLES = 2000
# Stands for the infinite PSNR of two equal images. One pixel value that differs by 1 gives 89 dB
# at 64x64 and 101 dB at 256x256.
MAX_PSNR = 100.0


@dataclass
class EvaluateConfig:
    """What is measured, on how much, from which seed."""

    keys: int = 200  # unseen keys, each one instance
    images_per_key: int = 10  # unseen latents of each instance
    pooled: int = 4  # images of one source whose logits are added
    fpr: float = 1e-6  # accepted probability of naming anybody wrongly
    issued: int = 1_000_000  # issued keys that attribution searches
    data: str = "emoji64"  # what the release was trained on: bundled name, folder or zip
    unrelated: list[str] = field(default_factory=list)  # further folders or zips of other images
    unrelated_images: int = 2000  # taken from each of them
    features: bool = True  # feature distance and diversity (needs MobileNetV2 weights)
    feature_weights: str | None = None  # a weights file instead of the optional package's
    feature_images: int = 2000  # images on each side of a feature distance, at most
    grid: int = 20  # keys x as many latents of the crossed sample
    seed: int = 0
    batch_size: int = 32

    def check(self) -> None:
        """Raise :class:`UserError` for numbers that cannot work."""
        at_least = {"keys": 2, "images_per_key": 2, "pooled": 1, "issued": 1, "batch_size": 1}
        at_least |= {"unrelated_images": 1, "feature_images": 2, "grid": 2, "seed": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        if self.pooled > self.images_per_key:
            raise UserError(
                f"pooled ({self.pooled}) cannot exceed images_per_key ({self.images_per_key})."
            )
        if not 0 < self.fpr < 1:
            raise UserError(f"fpr is a probability between 0 and 1, not {self.fpr}.")


def stream(config: EvaluateConfig, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose: drawing more for one part leaves the others as they were."""
    return np.random.default_rng([config.seed, zlib.crc32(purpose.encode())])


# What may happen to an image file on its way: RGB -> RGB of the same size, by Pillow.
COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "PNG": partial(reencode, format="PNG"),
    "JPEG 95": partial(jpeg, quality=95),
    "JPEG 90": partial(jpeg, quality=90),
    "JPEG 75": partial(jpeg, quality=75),
    "JPEG 50": partial(jpeg, quality=50),
    "resize 0.5": partial(resize, factor=0.5),
}


# The images.


@dataclass(frozen=True)
class Generated:
    """Images of instances, as PNG files gave them back."""

    bits: NDArray[np.uint8]  # [K, n], the keys
    images: Tensor  # uint8 [K, m, 3, R, R], every instance with latents of its own
    twins: Tensor  # uint8 [K, m, 3, R, R], the same latents under the next instance's key
    crossed: Tensor  # uint8 [g, g, 3, R, R], g keys, each with the same g latents


def _from_files(images: Tensor) -> Tensor:
    """Images [m, 3, R, R] in [-1, 1], saved as PNG and read again: uint8 of the same shape."""
    return to_tensor([COPIES["PNG"](image) for image in to_pil(images)], images.shape[-1])


def generate(model: Model, config: EvaluateConfig) -> Generated:
    """Make an instance of every key, once, and sample from it what the measurements need."""
    bits = stream(config, "keys").integers(0, 2, (config.keys, model.config.n_bits), dtype=np.uint8)
    *seeds, crossed_seed = stream(config, "latents").integers(0, 2**31, config.keys + 1).tolist()
    images, twins, crossed = [], [], []
    for k in tqdm(range(config.keys), "sampling instances", unit="key"):
        instance = model.instantiate(Key.from_bits(bits[k]))
        sample = partial(instance.sample, batch_size=config.batch_size)
        images.append(_from_files(sample(config.images_per_key, seed=seeds[k])))
        # Latents of the instance before; those of the last one for the first closes the circle.
        twins.append(_from_files(sample(config.images_per_key, seed=seeds[k - 1])))
        if k < config.grid:
            crossed.append(_from_files(sample(min(config.grid, config.keys), seed=crossed_seed)))
    return Generated(
        bits, torch.stack(images), torch.stack(twins).roll(-1, dims=0), torch.stack(crossed)
    )


# Is the key read?


def read_logits(
    model: Model, images: Iterable[Image.Image], count: int, batch_size: int, title: str
) -> FloatArray:
    """Decode images of any size, a batch in memory at a time: logits [b, n].

    ``count`` (as far as it is known) and ``title`` are for the progress bar.
    """
    waiting, logits = iter(images), []
    with tqdm(total=count, desc=f"reading {title}", unit="img") as bar:
        while batch := list(islice(waiting, batch_size)):
            logits.append(model.decode(batch, batch_size=batch_size).logits)
            bar.update(len(batch))
    return np.concatenate(logits).astype(np.float64)


def _interval_over_keys(accuracy: FloatArray, config: EvaluateConfig) -> list[float]:
    """95% percentile bootstrap interval of the mean of accuracy [K, m].

    Keys are resampled, not images, because images of one key share its luck.
    """
    means = accuracy.mean(axis=1)
    draws = stream(config, "bootstrap").integers(0, len(means), (BOOTSTRAP_SAMPLES, len(means)))
    low, high = np.percentile(means[draws].mean(axis=1), [2.5, 97.5])
    return [float(low), float(high)]


def _accuracy_figures(
    logits: FloatArray, bits: NDArray[np.uint8], needed: int | None, config: EvaluateConfig
) -> dict[str, Any]:
    """Figures of logits [K, m, n]; attributed: the share with ``needed`` bits of their own key."""
    keys, m, n_bits = logits.shape
    accuracy = bit_accuracy(logits.reshape(-1, n_bits), np.repeat(bits, m, axis=0))
    matches = np.rint(accuracy * n_bits)
    return {
        "sources": keys * m,
        "mean": float(accuracy.mean()),
        "ci95": _interval_over_keys(accuracy.reshape(keys, m), config),
        "p5": float(np.percentile(accuracy, 5)),
        "min": float(accuracy.min()),
        "attributed": 0.0 if needed is None else float((matches >= needed).mean()),
    }


def measure_reading(
    model: Model, generated: Generated, needed: int | None, config: EvaluateConfig
) -> tuple[dict[str, Any], FloatArray]:
    """Bit accuracy and share attributed of every kind of copy, images singly and pooled.

    Args:
        needed: matching bits at which a key is named; None where no number suffices.

    Returns:
        {copy: {"single": figures, "pooled": figures}}, and the PNG files' logits [K m, n].
    """
    files = to_pil(generated.images.flatten(0, 1))
    keys, m = generated.images.shape[:2]
    groups = m // config.pooled  # a remainder of images stays out of the pools
    results, png_logits = {}, None
    for name, operation in COPIES.items():
        logits = read_logits(model, map(operation, files), len(files), config.batch_size, name)
        if png_logits is None:
            png_logits = logits
        logits = logits.reshape(keys, m, -1)
        pools = logits[:, : groups * config.pooled].reshape(keys, groups, config.pooled, -1)
        results[name] = {
            "single": _accuracy_figures(logits, generated.bits, needed, config),
            "pooled": _accuracy_figures(pools.sum(axis=2), generated.bits, needed, config),
        }
    assert png_logits is not None
    return results, png_logits


# Is it hidden?


def _pair_figures(pairs: list[tuple[Tensor, Tensor]], title: str) -> dict[str, Any]:
    """PSNR and SSIM over pairs of equal batches uint8 [m, 3, R, R]."""
    decibels, similarity = [], []
    for a, b in tqdm(pairs, title, unit="key", delay=1):
        decibels.append(psnr(to_float(a), to_float(b)).clip(max=MAX_PSNR))
        similarity.append(ssim(to_float(a), to_float(b)))
    figures: dict[str, Any] = {"pairs": sum(map(len, decibels))}
    for name, values in (("psnr", np.concatenate(decibels)), ("ssim", np.concatenate(similarity))):
        figures[name] = float(values.mean())
        figures[f"{name}_p5"] = float(np.percentile(values, 5))
    return figures


def measure_hiding(generated: Generated) -> dict[str, Any]:
    """PSNR and SSIM of one latent under two keys and, for contrast, of two latents under one."""
    images, twins = generated.images, generated.twins
    return {
        "same_latent_two_keys": _pair_figures(
            list(zip(images, twins, strict=True)), "comparing keys"
        ),
        "two_latents_same_key": _pair_figures(
            [(own[:-1], own[1:]) for own in images], "comparing latents"
        ),
    }
