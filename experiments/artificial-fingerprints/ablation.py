"""What each part of a marker's training brings, all on the same images for as long.

T="scalefp artificial train model.resolution=32 schedule.total_images=30000
   schedule.decay_images=15000 schedule.ramp_images=10000"
$T marker=small name=ablation/all
$T marker=published name=ablation/published
$T marker=small fitted_start=false name=ablation/no-fitted-start
$T marker=small transplant=0 name=ablation/no-transplant
$T marker=small loss.visibility=1 name=ablation/visibility
python experiments/artificial-fingerprints/ablation.py runs/ablation
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scalefp.artificial.losses import visibility
from scalefp.artificial.marker import Marker
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float, to_pil, to_tensor
from scalefp.errors import UserError
from scalefp.experiment import Experiment, markdown_table
from scalefp.loading import load_marker
from scalefp.metrics import psnr, ssim
from scalefp.perturb import PERTURBATIONS

CHANGES = {"noise": 0.111, "blur_sigma": 1.0, "jpeg": 90.0}


def figures_of(marker: Marker, images: torch.Tensor, seed: int) -> dict[str, float]:
    """Figures of one marker on clean images uint8 [b, 3, R, R], a random key each."""
    draw = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 2, (len(images), marker.config.n_bits), generator=draw)
    marked = marker.mark(images, bits)
    residual = marked.short() - images.short()
    moved = (images.roll(1, 0).short() + residual).clamp(0, 255).to(torch.uint8)

    def accuracy(pixels: torch.Tensor) -> float:
        return float(((marker.decode(pixels, search=False).logits > 0) == bits.numpy()).mean())

    figures = {
        "psnr": float(psnr(to_float(marked), to_float(images)).mean()),
        "ssim": float(ssim(to_float(marked), to_float(images)).mean()),
        "visibility": float(visibility(to_float(marked) - to_float(images), to_float(images))),
        "clean": accuracy(marked),
        "on another image": accuracy(moved),
    }
    for name, strength in CHANGES.items():
        change, source = PERTURBATIONS[name].apply, np.random.default_rng(seed)
        changed = [change(image, strength, source) for image in to_pil(marked)]
        figures[f"{name} {strength:g}"] = accuracy(to_tensor(changed, images.shape[-1]))
    return figures


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of every marker below the folder of the trainings."""
    releases = sorted(options.runs.glob("*/release.safetensors"))
    if not releases:
        raise UserError(f"{options.runs} holds no trained marker: run the trainings first")
    rows: dict[str, dict[str, float]] = {}
    about: dict[str, Any] = {}
    for path in releases:
        marker = load_marker(path)
        data = ImageSet(options.data, marker.config.resolution, progress=False)
        some = data.batch(torch.linspace(0, len(data) - 1, options.images).long())
        rows[path.parent.name] = figures_of(marker, some, options.seed)
        about[path.parent.name] = {
            "digest": marker.digest,
            "n_bits": marker.config.n_bits,
            "images_seen": marker.training["images"],
        }
    return {"seed": options.seed, "images": options.images, "markers": about, "figures": rows}


def table(results: Mapping[str, Any]) -> str:
    """The rows as Markdown."""
    columns = list(next(iter(results["figures"].values())))
    lines = []
    for name, figures in results["figures"].items():
        cells = [f"{figures[c]:.1f}" if c == "psnr" else f"{figures[c]:.3f}" for c in columns]
        lines.append([name, *cells])
    return markdown_table(["training", *columns], lines) + "\n"


EXPERIMENT = Experiment(Path(__file__).parent / "ablation", measure, table)


def main() -> None:
    """Measure all trainings, and write results and table."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("runs", type=Path, help="folder of the trainings")
    parser.add_argument("--data", default="emoji64", help="bundled name, folder or zip")
    parser.add_argument("--images", type=int, default=500)
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
