"""What is measured of a set of images: the key in them, and how far they are from the data."""

import json
import math
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scalefp.artificial.marker import Marker
from scalefp.attribution.evidence import log_p_hard, log_p_soft
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float, to_pil
from scalefp.evaluation.features import choose_extractor, extract
from scalefp.experiment import write_json
from scalefp.files import atomic_path
from scalefp.key import Key
from scalefp.metrics import Statistics, bit_accuracy, frechet_distance, psnr
from transfer_config import TransferConfig, check_settings

POOLS = (1, 4, 16, 64)  # images of one source whose readings are added
FPR = 1e-6  # at which the key counts as found


def reading_figures(marker: Marker, images: Tensor, key: Key) -> dict[str, Any]:
    """How well ``key`` is read from images uint8 [n, 3, R, R], n >= 64.

    Returns:
        ``accuracy`` (mean over images), ``accuracy_sd`` (over images) and, for each size of a pool
        of images whose logits are added, ``pools``: bit accuracy, the median p-value in both forms
        of the test (log10; of this one key, as for a registry that issued no other), and the share
        of pools in which the soft form finds the key at ``FPR``.
    """
    logits, bits = marker.decode(images, search=False).logits, key.bits[None]
    each = bit_accuracy(logits, key.bits)
    pools = {}
    for size in POOLS:
        whole = len(logits) // size
        pooled = logits[: whole * size].reshape(whole, size, -1).sum(axis=1)
        every = np.repeat(bits, whole, axis=0)
        hard, soft = (form(pooled, every) / math.log(10) for form in (log_p_hard, log_p_soft))
        pools[str(size)] = {
            "sources": whole,
            "accuracy": float(bit_accuracy(pooled, key.bits).mean()),
            "log10_p_binomial": float(np.median(hard)),
            "log10_p_soft": float(np.median(soft)),
            "found": float((soft <= math.log10(FPR)).mean()),
        }
    return {"accuracy": float(each.mean()), "accuracy_sd": float(each.std()), "pools": pools}


def mean_psnr(images: Tensor, marked: Tensor) -> float:
    """Mean PSNR of 8-bit pairs, in dB; pairs that are equal count 100."""
    return float(psnr(to_float(images), to_float(marked)).clip(max=100).mean())


class Distances:
    """Fréchet distances of image sets to ``images`` clean ones, on one extractor's features.

    The features of the clean images are kept in ``file``, for the other jobs on that data. All
    sets should have the same number of images, because the distance is biased upwards at small
    ones.

    Attributes:
        name: of the extractor; None without one, and then distances are None.
    """

    def __init__(self, images: Tensor, features: str, file: Path) -> None:
        self._extractor = choose_extractor(features, None)
        self.name: str | None = getattr(self._extractor, "name", None)
        if self._extractor is None:
            return
        if not file.exists():
            with atomic_path(file) as temporary, open(temporary, "wb") as content:
                np.save(content, extract(self._extractor, images))
        self._reference = Statistics.of(np.load(file))

    def to(self, images: Tensor) -> float | None:
        """Distance of images uint8 [n, 3, R, R] to the clean ones."""
        if self._extractor is None:
            return None
        return frechet_distance(Statistics.of(extract(self._extractor, images)), self._reference)


class Yardstick:
    """What the images of a generator are measured by, and what the data itself would reach.

    Two disjoint sets of ``config.samples`` clean images are drawn from the data: distances are to
    the first; the second, as it is and marked, is measured like a generator's images. All jobs of
    a data set and seed share them, and what is measured of them is kept in ``config.folder``.
    """

    def __init__(
        self,
        config: TransferConfig,
        data: ImageSet,
        marker: Marker,
        key: Key,
        settings: dict[str, Any],
    ) -> None:
        count = config.samples
        order = np.random.default_rng([config.seed, len(data)]).permutation(len(data))
        self.config, self.marker, self.key = config, marker, key
        self.kept = Path(config.folder) / f"data-{config.data}-{count}-seed={config.seed}"
        self.settings = {name: settings[name] for name in ("data", "seed", "marker", "psnr")}
        self.chosen = data.batch(order[count : 2 * count])
        reference = data.batch(order[:count])
        self.distances = Distances(reference, config.features, self.kept.with_suffix(".npy"))

    def measure(self, images: Tensor) -> dict[str, Any]:
        """The reading of images uint8 [n, 3, R, R], and their distance to the data."""
        figures = reading_figures(self.marker, images, self.key)
        return figures | {"distance": self.distances.to(images)}

    def of_data(self) -> dict[str, Any]:
        """``marked_data``, the best that a generator could reach, and ``unmarked_data``."""
        file = self.kept.with_suffix(".json")
        if not file.exists():
            bits = torch.from_numpy(self.key.bits)
            marked = self.marker.mark(self.chosen, bits, psnr=self.config.psnr)
            figures = {
                "settings": self.settings,
                "marked_data": self.measure(marked) | {"psnr": mean_psnr(self.chosen, marked)},
                "unmarked_data": self.measure(self.chosen),
            }
            write_json(file, figures)
        found: dict[str, Any] = json.loads(file.read_text())
        check_settings(found, self.settings, file)
        return {name: found[name] for name in ("marked_data", "unmarked_data")}


def write_samples(path: Path, images: Tensor) -> None:
    """Images uint8 [n, 3, R, R] as a zip of PNG files, which every command takes as a data set."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for number, image in enumerate(to_pil(images)):
            content = BytesIO()
            image.save(content, format="PNG")
            archive.writestr(zipfile.ZipInfo(f"{number:06d}.png"), content.getvalue())
