"""Is the mark still read after whatever becomes of the images, and is nobody named wrongly?

Marked images that the marker may not have been trained on go through the whole table of
perturbations as 8-bit files; so do, if they are given, samples of generators that were trained on
marked data. (Changes of such a generator's weights: generator_tampering.py.)

    python experiments/artificial-fingerprints/robustness.py --marker artificial-emoji
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from robustness_report import plots, report
from scalefp.artificial.marker import Marker
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float, to_tensor
from scalefp.errors import UserError
from scalefp.evaluation.quality import decibels
from scalefp.evaluation.robustness import CLEAN, Point, measure_point
from scalefp.evaluation.samples import EvaluateConfig, stream
from scalefp.evaluation.targets import ReadingTarget
from scalefp.evaluation.unrelated import draw_images, measure_unrelated
from scalefp.experiment import Experiment, content_digest
from scalefp.key import Key
from scalefp.loading import load_marker
from scalefp.metrics import ssim
from scalefp.perturb import PERTURBATIONS

# Of the issue; published figures are those of samples (ProGAN on CelebA, ICCV 2021, figure 3).
TARGETS = (
    ReadingTarget("clean", CLEAN, 0, 1.00, 0.999),
    ReadingTarget("JPEG 50", "jpeg", 50, 0.76, 0.97),
    ReadingTarget("noise of standard deviation 0.11", "noise", 0.111, 0.74, 0.97),
    ReadingTarget("blur, kernel 5 of 128", "blur", 5, 0.80, 0.97),
    ReadingTarget("crop to 102 of 128, resized back", "crop", 102 / 128, 0.74, 0.97),
)
GROUP = 16  # samples of one generator that stand as a source of their own


@dataclass(frozen=True)
class Images:
    """Images to read, as :class:`scalefp.evaluation.samples.Samples` gives them.

    Attributes:
        images: uint8 [K, m, 3, R, R].
        bits: uint8 [K, n], the keys that are in them.
    """

    images: Tensor
    bits: NDArray[np.uint8]


def mark_images(
    marker: Marker, config: EvaluateConfig, psnr: float | None
) -> tuple[Images, Tensor]:
    """Random images of the data, marked by random keys; and the images before."""
    size = marker.config.resolution
    wanted = config.keys * config.images_per_key
    drawn = draw_images(config.data, wanted, stream(config, "images"))
    clean = torch.cat([to_tensor([image], size) for image in tqdm(drawn, "images", total=wanted)])
    config.keys = keys = len(clean) // config.images_per_key
    if keys < 2:
        raise UserError(
            f"{config.data} has too few images for two keys: lower --images-per-key or give more"
        )
    clean = clean[: keys * config.images_per_key]
    bits = stream(config, "keys").integers(0, 2, (keys, marker.config.n_bits), dtype=np.uint8)
    every = torch.from_numpy(bits).repeat_interleave(config.images_per_key, dim=0)
    marked = marker.mark(clean, every, psnr=psnr)
    return Images(marked.unflatten(0, (keys, -1)), bits), clean


def quality(marked: Images, clean: Tensor) -> dict[str, Any]:
    """How the marks show: distribution of PSNR in dB and SSIM over images."""
    after = marked.images.flatten(0, 1)
    pairs = zip(after.split(64), clean.split(64), strict=True)
    values = {
        "psnr": decibels(after, clean),
        "ssim": np.concatenate([ssim(to_float(a), to_float(b)) for a, b in pairs]),
    }
    return {
        name: {
            "mean": float(x.mean()),
            "p5": float(np.percentile(x, 5)),
            "p95": float(np.percentile(x, 95)),
            "min": float(x.min()),
        }
        for name, x in values.items()
    }


def generated_images(source: str, key: Key, resolution: int, most: int) -> Images:
    """Samples of one generator, in groups, each with the same key."""
    pixels = torch.from_numpy(ImageSet(source, resolution).pixels[:most])
    groups = len(pixels) // GROUP
    if groups < 2:
        raise UserError(f"{source} holds {len(pixels)} images: at least {2 * GROUP} are needed")
    images = pixels[: groups * GROUP].unflatten(0, (groups, GROUP))
    return Images(images, np.tile(key.bits, (groups, 1)))


def table_points(names: list[str]) -> list[Point]:
    """Every strength of the perturbations' tests, and those of the targets."""
    points = [Point(CLEAN, 0.0, True)]
    for name in names:
        wanted = [t.strength for t in TARGETS if t.perturbation == name]
        strengths = [*PERTURBATIONS[name].test_strengths]
        strengths += [strength for strength in wanted if strength not in strengths]
        points += [Point(name, float(s), s in wanted) for s in strengths]
    return points


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one marker."""
    marker = load_marker(options.marker)
    reader: Any = marker  # the measurements know of it what the two kinds of release share
    config = EvaluateConfig(
        seed=options.seed,
        data=options.data,
        keys=options.keys,
        images_per_key=options.images_per_key,
        issued=[1, 1000, 1_000_000],
        unrelated=options.unrelated,
        unrelated_images=options.unrelated_images,
    )
    config.check()
    key = None if options.key is None else Key.from_hex(options.key, marker.config.n_bits)
    if key is None and options.samples:
        raise UserError("samples are read for a key: give --key")
    marked, clean = mark_images(marker, config, options.psnr)
    everything: Any = marked
    points = table_points(options.perturbations)
    work: dict[str, Any] = {"quality": partial(quality, marked, clean)}
    for point in points:
        work[point.name] = partial(measure_point, reader, everything, point, config)
    work["unrelated"] = partial(measure_unrelated, reader, everything, config)
    for source in options.samples:
        assert key is not None
        images: Any = generated_images(source, key, marker.config.resolution, options.most_samples)
        own = EvaluateConfig(**vars(config) | {"keys": len(images.images), "images_per_key": GROUP})
        for point in points:
            name = f"{Path(source).stem} {point.name}"
            work[name] = partial(measure_point, reader, images, point, own)

    parts = EXPERIMENT.parts(options, settings(options))
    found = parts.measure(work, "robustness")
    return {
        "digest": marker.digest,
        "resolution": marker.config.resolution,
        "n_bits": marker.config.n_bits,
        "data": Path(options.data).name,
        "seed": options.seed,
        "fpr": config.fpr,
        "psnr": options.psnr,
        "quality": found["quality"],
        "reading": [found[point.name] for point in points],
        "unrelated": found["unrelated"],
        "generated": {
            Path(source).stem: [found[f"{Path(source).stem} {point.name}"] for point in points]
            for source in options.samples
        },
    }


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that decides the figures of a part."""
    names = ("seed", "psnr", "keys", "images_per_key", "unrelated_images", "most_samples", "key")
    kept = {name: getattr(options, name) for name in (*names, "data", "unrelated", "samples")}
    return kept | {"marker": content_digest(options.marker)}


EXPERIMENT = Experiment(
    Path(__file__).parent / "robustness",
    measure,
    partial(report, targets=TARGETS),
    plots,
    named_by="marker",
)


def main() -> None:
    """Measure one marker, and write results, table and plots."""
    parser = EXPERIMENT.parser(__doc__, in_parts=True)
    parser.add_argument("--marker", required=True, help="bundled name or path of a marker")
    parser.add_argument("--data", default="emoji64", help="images to mark: name, folder or zip")
    parser.add_argument("--psnr", type=float, help="strength of the marks (default: as trained)")
    parser.add_argument("--keys", type=int, default=40)
    parser.add_argument("--images-per-key", type=int, default=16)
    parser.add_argument(
        "--perturbations", nargs="*", default=[*PERTURBATIONS], choices=[*PERTURBATIONS]
    )
    parser.add_argument("--unrelated", nargs="*", default=[], help="folders or zips, nobody's")
    parser.add_argument("--unrelated-images", type=int, default=10_000)
    parser.add_argument(
        "--samples", nargs="*", default=[], help="of generators trained on data marked by --key"
    )
    parser.add_argument("--most-samples", type=int, default=512, help="read of each of them")
    parser.add_argument("--key", help="of the samples, in hexadecimal digits")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
