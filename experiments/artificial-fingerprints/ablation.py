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
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scalefp.artificial.losses import visibility
from scalefp.artificial.marker import Marker
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float, to_pil, to_tensor
from scalefp.evaluation.run import hardware
from scalefp.files import atomic_path
from scalefp.loading import load_marker
from scalefp.metrics import psnr, ssim
from scalefp.perturb import PERTURBATIONS

HERE = Path(__file__).parent
CHANGES = {"noise": 0.111, "blur_sigma": 1.0, "jpeg": 90.0}


def measure(marker: Marker, images: torch.Tensor, seed: int) -> dict[str, float]:
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


def table(rows: dict[str, dict[str, float]]) -> str:
    """The rows as Markdown."""
    columns = list(next(iter(rows.values())))
    lines = [["training", *columns], ["---"] * (len(columns) + 1)]
    for name, figures in rows.items():
        cells = [f"{figures[c]:.1f}" if c == "psnr" else f"{figures[c]:.3f}" for c in columns]
        lines.append([name, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, help="folder of the trainings")
    parser.add_argument("--data", default="emoji64", help="bundled name, folder or zip")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "ablation", help="folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    releases = sorted(options.runs.glob("*/release.safetensors"))
    if not releases:
        parser.error(f"{options.runs} holds no trained marker: run the trainings first")
    rows: dict[str, dict[str, float]] = {}
    about: dict[str, Any] = {}
    for path in releases:
        marker = load_marker(path)
        data = ImageSet(options.data, marker.config.resolution, progress=False)
        some = data.batch(torch.linspace(0, len(data) - 1, options.images).long())
        rows[path.parent.name] = measure(marker, some, options.seed)
        about[path.parent.name] = {
            "digest": marker.digest,
            "n_bits": marker.config.n_bits,
            "images_seen": marker.training["images"],
        }
    results = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "seed": options.seed,
        "images": options.images,
        "markers": about,
        "figures": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.out / "results.json") as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    with atomic_path(options.out / "table.md") as temporary:
        temporary.write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
