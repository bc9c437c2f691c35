"""Robustness against quality: what does it cost to hide the fingerprint more deeply?

    scalefp train -m experiment=fidelity fingerprint=true,false seed=0,1
    scalefp train -m experiment=fidelity name=tradeoff schedule.hide_psnr=24,32,36
    scalefp train -m experiment=fidelity name=tradeoff perturb=none
    python experiments/fidelity/tradeoff.py runs/fidelity runs/tradeoff

measures every run with keys below these folders, beside the runs without, and writes
tradeoff.json, tradeoff.md and tradeoff.png here.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from fidelity import BATCH, HERE, data_pixels
from scalefp.errors import UserError
from scalefp.evaluation.features import choose_extractor, extract
from scalefp.evaluation.quality import measure_hiding
from scalefp.evaluation.robustness import CLEAN, Point, measure_point
from scalefp.evaluation.samples import EvaluateConfig, Samples, stream
from scalefp.experiment import Experiment, markdown_table, new_figure
from scalefp.loading import load_model
from scalefp.metrics import FloatArray, Statistics, frechet_distance
from scalefp.release.model import Model

KEYS, READ_EACH = 50, 16  # instances, and images of each that are read
# Name in table and plot -> perturbation and strength, as in the targets of a release.
READ = {
    "clean": (CLEAN, 0.0),
    "JPEG 50": ("jpeg", 50),
    "noise .167": ("noise", 0.167),
    "blur 10 of 128": ("blur", 10),
    "resized to 0.5": ("resize", 0.5),
    "crop to 115 of 128": ("crop", 115 / 128),
    "rotated by 10 degrees": ("rotation", 10),
}


def with_keys(model: Model) -> bool:
    """Whether a release was trained with keys, or as a twin without."""
    return bool(model.training["options"]["fingerprint"])


def label(model: Model) -> str:
    """What distinguishes a run: how deeply its keys were to hide, and what they were to stand."""
    options = model.training["options"]
    if not with_keys(model):
        return f"no keys, seed {options['seed']}"
    perturbed = any(name.startswith("perturb.") and value for name, value in options.items())
    kind = "" if perturbed else ", not immunized"
    return f"{options['schedule.hide_psnr']:g} dB, seed {options['seed']}{kind}"


def measure_run(model: Model, data: FloatArray, extractor: nn.Module, seed: int) -> dict[str, Any]:
    """Feature distance to ``data``, features [m, d]; with keys also how they hide and read."""
    config = EvaluateConfig(
        seed=seed, keys=KEYS, images_per_key=len(data) // KEYS, batch_size=BATCH
    )
    samples = Samples(model, config)
    made = extract(extractor, samples.images.flatten(0, 1), BATCH)
    row: dict[str, Any] = {
        "digest": model.digest,
        "options": {
            name: model.training["options"][name]
            for name in ("fingerprint", "seed", "schedule.hide_psnr", "schedule.total_images")
        },
        "distance": frechet_distance(Statistics.of(made), Statistics.of(data)),
    }
    if not with_keys(model):
        return row
    row["psnr"] = measure_hiding(samples)["same_latent_two_keys"]["psnr"]
    config.images_per_key = READ_EACH
    row["accuracy"] = {}
    for name, (perturbation, strength) in tqdm(READ.items(), "reading", leave=False):
        found = measure_point(model, samples, Point(perturbation, strength, True), config)
        row["accuracy"][name] = {"mean": found["mean"], "ci95": found["ci95"]}
    return row


def twins(results: Mapping[str, Any]) -> list[float]:
    """Feature distances of the runs without keys."""
    return [row["distance"] for row in results["runs"].values() if "psnr" not in row]


def table(results: Mapping[str, Any]) -> str:
    """The rows as Markdown, deepest hidden last."""
    head = ["run", "PSNR of one latent under two keys", "feature distance", "cost", *READ]
    best, lines = float(np.mean(twins(results))), []
    for name, row in results["runs"].items():
        cells = [name, "", f"{row['distance']:.1f}", ""] + [""] * len(READ)
        if "psnr" in row:
            cells[1] = f"{row['psnr']:.1f} dB"
            cells[3] = f"{row['distance'] / best - 1:+.1%}"
            cells[4:] = [f"{row['accuracy'][point]['mean']:.3f}" for point in READ]
        lines.append(cells)
    return (
        f"{markdown_table(head, lines)}\n\nCost: against the mean of the runs without keys, "
        f"{best:.1f}. One half of the data against the other: {results['floor']:.1f}.\n"
    )


def plots(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Readability and feature distance over how deeply the key hides."""
    figure = new_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    keyed = [row for row in results["runs"].values() if "psnr" in row]
    keyed.sort(key=lambda row: float(row["psnr"]))
    first = min(row["options"]["seed"] for row in keyed)  # its runs make the line
    immune = [row for row in keyed if row["immunized"] and row["options"]["seed"] == first]
    others = [(row, "+" if row["immunized"] else "x") for row in keyed if row not in immune]
    depth = [row["psnr"] for row in immune]
    for name in READ:
        means = [row["accuracy"][name]["mean"] for row in immune]
        (line,) = left.plot(depth, means, "o-", markersize=4, label=name)
        for row, mark in others:
            left.plot(row["psnr"], row["accuracy"][name]["mean"], mark, color=line.get_color())
    left.axhline(0.5, color="#b0b0b0", linestyle=":", linewidth=1)
    left.set_ylabel("bit accuracy")
    left.set_title("readable (x: not immunized, +: other seed) ...")
    figure.legend(loc="outside lower center", ncols=7, fontsize=7)
    right.plot(depth, [row["distance"] for row in immune], "o-", color="#1f4e79")
    for row, mark in others:
        right.plot(row["psnr"], row["distance"], mark, color="#d08b2c")
    for distance in twins(results):
        right.axhline(distance, color="#707070", linestyle=":", linewidth=1)
    right.set_ylabel("feature distance to the data")
    right.set_title("... and like the data (dotted: no keys)")
    for axis in (left, right):
        axis.set_xlabel("PSNR of one latent under two keys, dB")
    return {"tradeoff.png": figure}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All runs below the folders, those without keys first."""
    extractor = choose_extractor("mobilenet", None)
    assert extractor is not None  # it would have said that its weights are missing
    paths = [path for runs in options.runs for path in sorted(runs.glob("*/release.safetensors"))]
    models = sorted(
        (load_model(path) for path in paths),
        key=lambda model: (with_keys(model), model.training["options"]["schedule.hide_psnr"]),
    )
    if not models or with_keys(models[0]) or not with_keys(models[-1]):
        folders = ", ".join(map(str, options.runs))
        raise UserError(f"{folders}: there are no runs with keys beside some without")
    source = models[0].training["options"]["data.source"]
    pixels = data_pixels(source, models[0].config.resolution)
    order = torch.from_numpy(
        stream(EvaluateConfig(seed=options.seed), "halves").permutation(len(pixels))
    )
    one, other = (extract(extractor, half, BATCH) for half in pixels[order].chunk(2))
    rows: dict[str, dict[str, Any]] = {}
    for model in tqdm(models, "runs", unit="run"):
        name = label(model)
        rows[name] = measure_run(model, other, extractor, options.seed)
        rows[name]["immunized"] = with_keys(model) and "not immunized" not in name
    return {
        "data": source,
        "images_each": len(other),
        "extractor": getattr(extractor, "name", type(extractor).__name__),
        "floor": frechet_distance(Statistics.of(one), Statistics.of(other)),
        "runs": rows,
    }


EXPERIMENT = Experiment(
    HERE, measure, table, plots, results_file="tradeoff.json", page_file="tradeoff.md"
)


def main() -> None:
    """Measure all runs, and write results, table and plot."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of the multiruns")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
