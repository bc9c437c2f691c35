"""Hamming distance of two keys beside that of images, features and logits; and between two keys.

python experiments/key-geometry/key_geometry.py --model emoji
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from key_geometry_report import plots, report
from scalefp.attribution.evidence import log_p_soft
from scalefp.data.images import save_png, to_pil, to_uint8
from scalefp.evaluation.features import extract, mobilenet_features
from scalefp.experiment import Experiment
from scalefp.key import Key
from scalefp.loading import load_model
from scalefp.metrics import psnr_of
from scalefp.release.model import Model

SHOWN = 10  # times a difference is enlarged in the picture
PICTURES = 2  # latents in the picture of the way between two keys
ISSUED, FPR = 1_000_000, 1e-6  # keys among which somebody is named, and how surely


def flipped(key: Key, order: np.ndarray[Any, Any], count: int) -> Key:
    """The key with the first ``count`` bits of ``order`` turned over."""
    bits = key.bits.copy()
    bits[order[:count]] ^= 1
    return Key.from_bits(bits)


def grid(rows: list[list[torch.Tensor]]) -> Image.Image:
    """Images [3, H, W] in [-1, 1], in rows, as one picture of twice their size."""
    whole = torch.cat([torch.cat(row, dim=2) for row in rows], dim=1)
    picture = to_pil(whole.clamp(-1, 1)[None])[0]
    return picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)


class Distances:
    """How far images and readings of two keys are apart, mean over latents."""

    def __init__(self, model: Model, options: argparse.Namespace) -> None:
        self.model, self.options = model, options
        self.extractor = mobilenet_features()
        self.n_bits = model.config.n_bits
        self.draw = np.random.default_rng(options.seed)

    def key(self) -> Key:
        return Key.from_hex(self.draw.bytes(self.n_bits // 8).hex(), self.n_bits)

    def features(self, images: torch.Tensor) -> NDArray[np.float64]:
        """Of 8-bit images, as the metric of quality takes them."""
        return extract(self.extractor, to_uint8(images))

    def by_bits(self, sheet: Path) -> list[dict[str, Any]]:
        """For each distance of keys, of one latent."""
        distances = [
            self.n_bits * step // self.options.steps for step in range(self.options.steps + 1)
        ]
        tables: dict[int, list[list[float]]] = {distance: [] for distance in distances}
        for number in range(self.options.latents):
            key, order = self.key(), self.draw.permutation(self.n_bits)
            keys = [flipped(key, order, distance) for distance in distances]
            assert [int((k.bits != key.bits).sum()) for k in keys] == distances
            images = torch.cat([self.model.instantiate(k).sample(1, seed=number) for k in keys])
            logits = self.model.decode(images, search=False).logits
            features = self.features(images)
            for i, distance in enumerate(distances):
                error = float((images[i] - images[0]).square().mean())
                far = float(np.linalg.norm(features[i] - features[0]))
                moved = float(np.sqrt(np.square(logits[i] - logits[0]).mean()))
                read = float(((logits[i] > 0) != (logits[0] > 0)).sum())
                tables[distance].append([error, far, moved, read])
            if number == 0:
                differences = [SHOWN * (image - images[0]) for image in images]
                save_png(sheet, grid([list(images), differences]))
        rows = []
        for distance, values in tables.items():
            error, far, moved, read = np.mean(values, axis=0)
            row = {"distance": distance, "psnr": psnr_of(error) if error else None}
            rows.append(row | {"features": far, "logits": moved, "bits_read": read})
        return rows

    def two_latents(self) -> dict[str, float]:
        """How far apart two pictures of one instance are: what the distances compare with."""
        images = self.model.instantiate(self.key()).sample(2 * self.options.latents, seed=1)
        features = self.features(images)
        error = float((images[::2] - images[1::2]).square().mean())
        far = np.linalg.norm(features[::2] - features[1::2], axis=1)
        return {"psnr": psnr_of(error), "features": float(far.mean())}

    def between(self, sheet: Path) -> list[dict[str, float]]:
        """On the straight way from one key to another, bits between 0 and 1 on it.

        No recipient can go there, who has no key input: the owner's generator can. A mean of two
        instances' weights is near to the middle (experiments/collusion).
        """
        at = np.linspace(0, 1, self.options.steps + 1)
        tables: list[list[list[float]]] = [[] for _ in at]
        rows: list[list[torch.Tensor]] = []
        draw = torch.Generator().manual_seed(self.options.seed)
        for number in range(self.options.latents):
            first, second = self.key(), self.key()
            z = torch.randn(1, self.model.config.latent_dim, generator=draw)
            start, end = (torch.from_numpy(key.bits).float() for key in (first, second))
            bits = torch.stack([start.lerp(end, float(t)) for t in at])
            with torch.inference_mode():
                images = self.model.generator(z.expand(len(at), -1), bits).clamp(-1, 1)
            logits = self.model.decode(images, search=False).logits
            features = self.features(images)
            same = first.bits == second.bits
            for i, row in enumerate(tables):
                found = [(logits[i] > 0) == key.bits for key in (first, second)]
                named = [log_p_soft(logits[i : i + 1], k.bits[None])[0] for k in (first, second)]
                row.append(
                    [
                        *(float(right[~same].mean()) for right in found),
                        float(found[0][same].mean()),
                        *(float(p + np.log(ISSUED) <= np.log(FPR)) for p in named),
                        float(np.linalg.norm(features[i] - features[0])),
                    ]
                )
            if number < PICTURES:
                rows.append(list(images))
                rows.append([SHOWN * (image - images[0]) for image in images])
        save_png(sheet, grid(rows))
        names = ("first", "second", "common", "names_first", "names_second", "features")
        means = [np.mean(table, axis=0).tolist() for table in tables]
        return [
            {"at": float(t), **dict(zip(names, mean, strict=True))}
            for t, mean in zip(at, means, strict=True)
        ]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    model = load_model(options.model)
    distances, name = Distances(model, options), Path(options.model).stem
    return {
        "model": Path(options.model).stem,
        "release": model.digest,
        "seed": options.seed,
        "latents": options.latents,
        "features": distances.extractor.name,
        "rows": distances.by_bits(options.out / f"{name}-grid.png"),
        "two_latents": distances.two_latents(),
        "between": distances.between(options.out / f"{name}-between.png"),
    }


EXPERIMENT = Experiment(Path(__file__).parent, measure, report, plots)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--latents", type=int, default=48)
    parser.add_argument("--steps", type=int, default=8, help="distances beside 0")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
