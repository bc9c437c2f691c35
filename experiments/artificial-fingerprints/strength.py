"""Robustness against visibility: how strong must a mark be to last?

The same images are marked by the same keys at one PSNR after the other, saved, changed and read.

    python experiments/artificial-fingerprints/strength.py --marker artificial-emoji
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tqdm import tqdm

from robustness import TARGETS, mark_images, quality
from scalefp.evaluation.robustness import Point, measure_point
from scalefp.evaluation.samples import EvaluateConfig
from scalefp.experiment import Experiment, made, markdown_table, new_figure
from scalefp.loading import load_marker

POOL = "16"  # images of one set that are also read together


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Readability at every strength."""
    marker = load_marker(options.marker)
    reader: Any = marker  # the measurements know of it what the two kinds of release share
    rows = []
    for psnr in tqdm(options.psnr, "strengths"):
        config = EvaluateConfig(seed=options.seed, data=options.data, keys=options.keys)
        marked, clean = mark_images(marker, config, psnr)
        samples: Any = marked
        row: dict[str, Any] = {"asked": psnr, **quality(marked, clean), "read": {}}
        for target in TARGETS:
            point = Point(target.perturbation, float(target.strength), True)
            found = measure_point(reader, samples, point, config)
            row["read"][target.what] = {
                "images": found["images"],
                "mean": found["mean"],
                "ci95": found["ci95"],
                "together": found["attributed"][POOL]["accuracy"],
            }
        rows.append(row)
    return {
        "digest": marker.digest,
        "trained_at": marker.config.psnr,
        "resolution": marker.config.resolution,
        "data": Path(options.data).name,
        "seed": options.seed,
        "rows": rows,
    }


def report(results: Mapping[str, Any]) -> str:
    """All markers as Markdown."""
    labels = [target.what for target in TARGETS]
    parts = []
    for name, figures in results.items():
        head = ["PSNR", "SSIM", *labels]
        rows = []
        for row in figures["rows"]:
            cells = [f"{row['psnr']['mean']:.1f} dB", f"{row['ssim']['mean']:.4f}"]
            for label in labels:
                found = row["read"][label]
                cells.append(f"{found['mean']:.3f} / {found['together']:.3f}")
            rows.append(cells)
        parts.append(
            f"## {name}\n\nTrained at {figures['trained_at']:g} dB. Bit accuracy of one image / of "
            f"{POOL} together.\n\n{markdown_table(head, rows)}\n\n{made(figures)}\n"
        )
    return "\n".join(parts)


def plot(figures: Mapping[str, Any]) -> Figure:
    """Bit accuracy of single images over the strength of the mark."""
    figure = new_figure(6, 4)
    axis = figure.subplots()
    depth = [row["psnr"]["mean"] for row in figures["rows"]]
    for target in TARGETS:
        means = [row["read"][target.what]["mean"] for row in figures["rows"]]
        axis.plot(depth, means, "o-", markersize=4, label=target.what)
    axis.axvline(figures["trained_at"], color="#b0b0b0", linestyle=":", linewidth=1)
    axis.axhline(TARGETS[-1].least, color="#707070", linestyle=":", linewidth=1)
    axis.set_xlabel("PSNR of marked images, dB (dotted: as trained)")
    axis.set_ylabel("bit accuracy of one image (dotted: target)")
    axis.legend(fontsize=8)
    return figure


def plots(results: Mapping[str, Any]) -> dict[str, Figure]:
    """One for each marker."""
    return {f"{name}.png": plot(figures) for name, figures in results.items()}


EXPERIMENT = Experiment(
    Path(__file__).parent / "strength", measure, report, plots, named_by="marker"
)


def main() -> None:
    """Measure one marker, and write results, table and plots."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--marker", required=True, help="bundled name or path of a marker")
    parser.add_argument("--data", default="emoji64", help="images to mark: name, folder or zip")
    parser.add_argument("--psnr", type=float, nargs="+", default=[28, 30, 32, 34, 36, 38, 40, 42])
    parser.add_argument("--keys", type=int, default=20, help="16 images of each")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
