"""Measurements of the pictures: is the key hidden, and do they look like the data?

Shape legend: K keys, m images of each, d features, g keys or latents of the crossed sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.data.images import to_float, to_tensor
from scalefp.evaluation.features import extract
from scalefp.evaluation.samples import EvaluateConfig, Samples, from_files, stream
from scalefp.evaluation.unrelated import draw_images, load_twin
from scalefp.metrics import (
    FloatArray,
    Statistics,
    feature_diversity,
    frechet_distance,
    kid,
    precision_recall,
    psnr,
    ssim,
)
from scalefp.networks.perceptual import distances

KID_SUBSETS, KID_SUBSET_SIZE = 50, 500
DATA, ORIGINAL = "the data", "the original's"  # what instances' pictures should look like
# Stands for the infinite PSNR of two equal images. One pixel value that differs by 1 gives 89 dB
# at 64x64 and 101 dB at 256x256.
MAX_PSNR = 100.0


# Is the key hidden?


def decibels(a: Tensor, b: Tensor) -> FloatArray:
    """PSNR of pairs of 8-bit images uint8 [m, 3, R, R], equal ones at ``MAX_PSNR``: [m]."""
    return psnr(to_float(a), to_float(b)).clip(max=MAX_PSNR)


def _pair_figures(
    pairs: list[tuple[Tensor, Tensor]], lpips: nn.Module | None, title: str
) -> dict[str, Any]:
    """PSNR, SSIM and perhaps LPIPS over pairs of equal batches uint8 [m, 3, R, R]."""
    values: dict[str, list[FloatArray]] = {"psnr": [], "ssim": []}
    if lpips is not None:
        values["lpips"] = []
    for a, b in tqdm(pairs, title, unit="key", delay=2, leave=False):
        values["psnr"].append(decibels(a, b))
        values["ssim"].append(ssim(to_float(a), to_float(b)))
        if lpips is not None:
            values["lpips"].append(distances(lpips, to_float(a), to_float(b)))
    figures: dict[str, Any] = {"pairs": sum(map(len, values["psnr"]))}
    for name, parts in values.items():
        whole = np.concatenate(parts)
        figures[name] = float(whole.mean())
        # The worst twentieth: the least alike.
        figures[f"{name}_worst"] = float(np.percentile(whole, 95 if name == "lpips" else 5))
    return figures


def measure_hiding(samples: Samples, lpips: nn.Module | None = None) -> dict[str, Any]:
    """How alike are pictures of one latent under two keys and, for contrast, two latents under one?

    And how alike are those of a key and of the generator that it was put into, if others trained
    that one?

    Returns:
        For each kind of pairs the mean and the 5th percentile (of LPIPS the 95th) of PSNR in dB,
        SSIM and, with the metric, LPIPS; and the metric's name.
    """
    images, rekeyed = samples.images, samples.rekeyed
    latents = [(own[:-1], own[1:]) for own in images]
    unkeyed = samples.unkeyed
    original: dict[str, Any] = {}
    if unkeyed is not None:
        pairs = list(zip(images, unkeyed, strict=True))
        original["key_and_original"] = _pair_figures(pairs, lpips, "comparing with the original")
    return {
        "lpips": getattr(lpips, "name", None),
        "same_latent_two_keys": _pair_figures(
            list(zip(images, rekeyed, strict=True)), lpips, "comparing keys"
        ),
        "two_latents_same_key": _pair_figures(latents, lpips, "comparing latents"),
        **original,
    }


# Do they look like the data?


def pixels_of(source: str, count: int, resolution: int, rng: np.random.Generator) -> Tensor:
    """Up to ``count`` random images of a folder or zip, uint8 [n, 3, R, R].

    Raises:
        UserError: as :func:`scalefp.evaluation.unrelated.draw_images`.
    """
    drawn = draw_images(source, count, rng)
    bar = tqdm(drawn, "opening pictures", total=count, unit="img", delay=2, leave=False)
    return torch.cat([to_tensor([image], resolution) for image in bar])


def data_pixels(config: EvaluateConfig, count: int, resolution: int) -> Tensor:
    """Up to ``count`` random images of the data set, uint8 [n, 3, R, R]."""
    return pixels_of(config.data, count, resolution, stream(config, "features"))


def reference_pixels(samples: Samples, config: EvaluateConfig, count: int) -> tuple[str, Tensor]:
    """What instances' pictures should look like, in a word, and up to ``count`` of it.

    That is the data set, or of a generator that others trained what that one makes.
    """
    original = getattr(samples.model, "original", None)
    if original is not None:
        seed = int(stream(config, "original").integers(2**31))
        return ORIGINAL, from_files(original.sample(count, seed=seed))
    return DATA, data_pixels(config, count, samples.model.config.resolution)


def measure_features(
    extractor: nn.Module, samples: Samples, config: EvaluateConfig
) -> dict[str, Any]:
    """Distance of instances' images to the data set, and diversity, beside the data's own.

    Two disjoint halves of as many images as are generated are drawn from the data; for a generator
    that others trained, what that one makes stands for the data. Generated to the
    second half is the distance, first half to second its floor: equal numbers on every side, so
    that the upward bias of small samples is the same in both. The twin without keys, where there is
    one, is held against the same half.

    The crossed sample tells what moves a picture: features over the latents of one key should be
    as diverse as the data, over the keys of one latent hardly diverse at all.
    """
    images = samples.images.flatten(0, 1)
    wanted = 2 * min(config.feature_images, len(images))
    against, data = reference_pixels(samples, config, wanted)
    n = len(data) // 2
    chosen = torch.from_numpy(stream(config, "chosen").permutation(len(images))[:n])
    sets = {"first": data[:n], "second": data[n : 2 * n], "fake": images[chosen]}
    if config.twin is not None:
        seed = int(stream(config, "twin images").integers(2**31))
        sets["twin"] = from_files(load_twin(config.twin, config).sample(n, seed=seed))
    features = {name: extract(extractor, x, config.batch_size) for name, x in sets.items()}
    second = features["second"]
    reference = Statistics.of(second)
    subsets = {"subsets": KID_SUBSETS, "subset_size": KID_SUBSET_SIZE}
    figures: dict[str, Any] = {
        "extractor": getattr(extractor, "name", type(extractor).__name__),
        "images_each": n,
        "against": against,
    }
    for name, x in features.items():
        if name == "second":
            continue
        prefix = {"fake": "", "first": "floor_", "twin": "twin_"}[name]
        precision, recall = precision_recall(second, x)
        figures |= {
            f"{prefix}distance": frechet_distance(Statistics.of(x), reference),
            f"{prefix}kernel_distance": kid(x, second, **subsets),
            f"{prefix}precision": precision,
            f"{prefix}recall": recall,
            f"{prefix}diversity": feature_diversity(x),
        }
    g = len(samples.crossed)
    crossed = extract(extractor, samples.crossed.flatten(0, 1), config.batch_size)
    crossed = crossed.reshape(g, g, -1)  # [key, latent, d]
    figures |= {
        "crossed": g,
        "diversity_over_latents": float(np.mean([feature_diversity(x) for x in crossed])),
        "diversity_over_keys": float(
            np.mean([feature_diversity(x) for x in crossed.transpose(1, 0, 2)])
        ),
    }
    return figures
