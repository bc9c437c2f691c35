"""What all measurements of a release share: how much, from which seed, on which images.

Everything is measured on what comes back from image files, with keys and latents that training
never saw, and attribution is judged by the p-values that ``scalefp attribute`` uses.

Shape legend: K keys, m images of each, g keys or latents of the crossed sample, n key bits,
R resolution.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scalefp.attribution.evidence import log_p_hard, log_p_soft
from scalefp.data.images import to_pil, to_tensor
from scalefp.errors import UserError
from scalefp.files import counted
from scalefp.key import Key
from scalefp.metrics import FloatArray, bit_accuracy
from scalefp.perturb import reencode

if TYPE_CHECKING:
    from scalefp.evaluation.method import Measured

BOOTSTRAP_SAMPLES = 2000
FORMS = {"hard": log_p_hard, "soft": log_p_soft}  # of the evidence: bits alone, or real logits


@dataclass
class LiftingConfig:
    """How attackers lift a fingerprint onto other pictures, or wash it out; see lifting.py."""

    victims: int = 2  # instances lifted from, each by a recipient of his own
    estimators: list[str] | None = None  # names from estimators.py; null = all
    images: list[int] = field(default_factory=lambda: [1, 64, 256])  # of a victim's
    strengths: list[float] = field(default_factory=lambda: [1.0, 2.0, 3.0])  # times the estimate
    pictures: int = 32  # that the fingerprint is laid on, of each kind for each victim
    queries: int = 1000  # questions to the service about one picture
    redrawn: int = 8  # of these pictures, each lifted alone by who draws it again; 0 = left out
    redrawing_steps: int = 100  # on the latents of each
    # Of these pictures, of each kind, so many get a lift check where copies carry bound bits:
    # a minute each, three kinds. 0 = left out.
    checked: int = 2

    def check(self, pools: list[int], prefix: str = "") -> None:
        """Raise :class:`UserError` for numbers that cannot work; ``prefix`` names this part."""
        at_least = {"victims": 1, "queries": 1, "redrawing_steps": 1, "redrawn": 0, "checked": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"{prefix}{name} must be at least {least}, not {getattr(self, name)}."
                )
        if self.pictures < pools[0]:
            raise UserError(
                f"{prefix}pictures must be at least {pools[0]}, the least of pools, "
                f"not {self.pictures}."
            )
        for name in ("images", "strengths"):
            values = getattr(self, name)
            if not values or values[0] <= 0 or sorted(set(values)) != list(values):
                raise UserError(f"{prefix}{name} must be ascending numbers above 0, not {values}.")


@dataclass
class EvaluateConfig:
    """What is measured, on how much, from which seed."""

    seed: int = 0
    batch_size: int = 32

    # Reading the key from perturbed files.
    keys: int = 100  # unseen keys, each one instance
    images_per_key: int = 16  # unseen latents of each instance
    curve_keys: int = 12  # of these keys, at strengths without a target
    # A decoder that looks for crops and turns takes many times as long for an image that is
    # unclear. Changes of geometry, which need that, are measured on fewer images:
    moved_keys: int = 8  # at strengths with a target, images_per_key of each
    moved_curve_keys: int = 12  # without a target, one image of each
    thorough_images: int = 32  # of any other target's, read in this way too, for comparison
    perturbations: list[str] | None = None  # names from scalefp.perturb; null = all

    # Attribution.
    fpr: float = 1e-6  # accepted probability of naming anybody wrongly
    issued: list[int] = field(default_factory=lambda: [1, 1000, 1_000_000, 8_000_000_000])
    pools: list[int] = field(default_factory=lambda: [1, 4, 16])  # images of one source together

    # Images that no issued key made.
    data: str = "emoji64"  # what the release was trained on: bundled name, folder or zip
    unrelated: list[str] = field(default_factory=list)  # further folders or zips of other images
    unrelated_images: int = 10_000  # in all
    searched: int = 100_000  # issued keys among which each is searched

    # Pictures.
    twin: str | None = None  # release or instance trained in the same way without keys
    features: str = "auto"  # auto, mobilenet, inception or none
    feature_weights: str | None = None  # weights of that network; mobilenet: of a package
    feature_images: int = 1600  # images on each side of a feature distance, at most
    lpips_backbone: str | None = None  # weights of torchvision's AlexNet, VGG-16 or SqueezeNet 1.1
    grid: int = 20  # keys x as many latents of the crossed sample

    # Tampering with the weights of instances.
    tamperings: list[str] | None = None  # names from scalefp.evaluation.tamper; null = all
    tamper_keys: int = 8  # instances tampered with
    tamper_images: int = 32  # images of each
    finetune_images: list[int] = field(default_factory=lambda: [500, 1000, 2000, 4000])
    finetune_keys: int = 1  # instances trained on; as many images in all

    # Attacks on the pictures.
    lifting: LiftingConfig = field(default_factory=LiftingConfig)

    def check(self, prefix: str = "") -> None:
        """Raise :class:`UserError` for numbers that cannot work.

        Args:
            prefix: what stands before the names of options where they are typed: ``measure.``.
        """
        at_least = {"keys": 2, "images_per_key": 2, "curve_keys": 1, "batch_size": 1, "seed": 0}
        at_least |= {"moved_keys": 1, "moved_curve_keys": 1, "thorough_images": 0}
        at_least |= {"unrelated_images": 1, "searched": 1, "feature_images": 4, "grid": 2}
        at_least |= {"tamper_keys": 2, "tamper_images": 2, "finetune_keys": 1}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"{prefix}{name} must be at least {least}, not {getattr(self, name)}."
                )
        for name in ("issued", "pools", "finetune_images"):
            values = getattr(self, name)
            if any(value < 1 for value in values) or sorted(set(values)) != list(values):
                raise UserError(
                    f"{prefix}{name} must be ascending whole numbers from 1 on: {values}."
                )
        for name in ("issued", "pools"):
            if not getattr(self, name):
                raise UserError(f"{prefix}{name} must hold at least one number.")
        if self.pools[0] > self.images_per_key:
            raise UserError(
                f"{prefix}pools starts at {counted(self.pools[0], 'image')} of one source, but "
                f"{prefix}images_per_key is {self.images_per_key}."
            )
        self.lifting.check(self.pools, f"{prefix}lifting.")
        if not 0 < self.fpr < 1:
            raise UserError(f"{prefix}fpr is a probability between 0 and 1, not {self.fpr}.")


def stream(config: EvaluateConfig, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose: drawing more for one part leaves the others as they were."""
    return np.random.default_rng([config.seed, zlib.crc32(purpose.encode())])


# The images.


def from_files(images: Tensor) -> Tensor:
    """Images [m, 3, R, R] in [-1, 1], saved as PNG and read again: uint8 of the same shape."""
    files = [reencode(image, "PNG") for image in to_pil(images)]
    return to_tensor(files, images.shape[-1])


class Samples:
    """Instances of unseen keys and their images, each made when first asked for.

    Attributes:
        bits: [K, n], the keys; drawn unless they are given.
    """

    def __init__(
        self,
        model: Measured,
        config: EvaluateConfig,
        bits: NDArray[np.uint8] | None = None,
    ) -> None:
        self.model, self.config = model, config
        shape = (config.keys, model.config.n_bits)
        if bits is None:
            bits = stream(config, "keys").integers(0, 2, shape, dtype=np.uint8)
        self.bits: NDArray[np.uint8] = bits
        seeds = stream(config, "latents").integers(0, 2**31, config.keys + 1).tolist()
        *self._seeds, self._crossed_seed = seeds

    def instance(self, k: int) -> Any:
        """The instance of key ``k``."""
        return self.model.instantiate(Key.from_bits(self.bits[k]))

    def _sample(self, title: str, seeds: list[int], count: int) -> Tensor:
        """Images of the first keys, those of key k from ``seeds[k]``: [len(seeds), count, ...]."""
        rows = []
        for k, seed in enumerate(tqdm(seeds, title, unit="key", delay=2, leave=False)):
            images = self.instance(k).sample(count, seed=seed, batch_size=self.config.batch_size)
            rows.append(from_files(images))
        return torch.stack(rows)

    @cached_property
    def images(self) -> Tensor:
        """uint8 [K, m, 3, R, R]: every instance with latents of its own."""
        return self._sample("sampling", self._seeds, self.config.images_per_key)

    @cached_property
    def rekeyed(self) -> Tensor:
        """uint8 [K, m, 3, R, R]: the latents of ``images`` under the next instance's key."""
        # Key k draws the latents of key k - 1, the first key those of the last.
        seeds = [self._seeds[k - 1] for k in range(self.config.keys)]
        return self._sample("sampling other keys", seeds, self.config.images_per_key).roll(
            -1, dims=0
        )

    @cached_property
    def unkeyed(self) -> Tensor | None:
        """uint8 [K, m, 3, R, R]: the latents of ``images`` without any key; None where the model
        has no such pictures."""
        original = getattr(self.model, "original", None)
        if original is None:
            return None
        count = self.config.images_per_key
        return torch.stack([from_files(original.sample(count, seed=s)) for s in self._seeds])

    @cached_property
    def crossed(self) -> Tensor:
        """uint8 [g, g, 3, R, R]: g keys, each with the same g latents."""
        g = min(self.config.grid, self.config.keys)
        return self._sample("sampling keys x latents", [self._crossed_seed] * g, g)


# Reading.


def read_logits(
    model: Measured,
    images: Iterable[Image.Image],
    count: int,
    batch_size: int,
    title: str,
    *,
    thorough: bool,
) -> FloatArray:
    """Decode images of any size, a batch in memory at a time: logits [b, n].

    ``count`` (as far as it is known) and ``title`` are for the progress bar. ``thorough``: as
    :meth:`Model.decode` does it by default, which looks for crops and turns in what is unclear;
    else every image is read as it is, which takes a small part of the time.
    """
    waiting, logits = iter(images), []
    with tqdm(total=count, desc=f"reading {title}", unit="img", delay=2, leave=False) as bar:
        while batch := list(islice(waiting, batch_size)):
            reading = model.decode(batch, batch_size=batch_size, search=thorough)
            logits.append(reading.logits)
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


def _shares_attributed(
    logits: FloatArray, bits: NDArray[np.uint8], config: EvaluateConfig
) -> dict[str, dict[str, float]]:
    """Share of sources [b, n] whose own key [b, n] is named: form -> number of issued keys."""
    shares = {}
    for form, log_p in FORMS.items():
        logs = log_p(logits, bits)
        # The union bound over all issued keys, as attribution applies it.
        shares[form] = {
            str(issued): float((logs + math.log(issued) <= math.log(config.fpr)).mean())
            for issued in config.issued
        }
    return shares


def reading_figures(
    logits: FloatArray, bits: NDArray[np.uint8], config: EvaluateConfig
) -> dict[str, Any]:
    """Bit accuracy and shares attributed, from logits [K, m, n] of images of keys [K, n].

    Returns:
        ``images``, ``mean``, ``ci95`` (over keys), ``p5`` (5th percentile over images), ``min``
        and ``attributed``: images of one source together -> {"accuracy", "hard": {issued: share},
        "soft": {...}}, for the pools that m allows.
    """
    keys, m, n_bits = logits.shape
    accuracy = bit_accuracy(logits.reshape(-1, n_bits), np.repeat(bits, m, axis=0))
    attributed = {}
    for pool in config.pools:
        if (groups := m // pool) == 0:
            continue
        # A remainder of images stays out of the pools.
        pooled = logits[:, : groups * pool].reshape(keys * groups, pool, n_bits).sum(axis=1)
        own = np.repeat(bits, groups, axis=0)
        attributed[str(pool)] = {
            "sources": len(own),
            "accuracy": float(bit_accuracy(pooled, own).mean()),
            **_shares_attributed(pooled, own, config),
        }
    return {
        "images": keys * m,
        "mean": float(accuracy.mean()),
        "ci95": _interval_over_keys(accuracy.reshape(keys, m), config),
        "p5": float(np.percentile(accuracy, 5)),
        "min": float(accuracy.min()),
        "attributed": attributed,
    }
