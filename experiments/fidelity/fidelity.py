"""What does the fingerprint cost? Releases trained with keys, held against twins trained without.

    scalefp train -m experiment=fidelity fingerprint=true,false seed=0,1
    python experiments/fidelity/fidelity.py runs/fidelity

reads every run below that folder and writes results.json, table.md and pictures.png here.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import scalefp
from scalefp.data.images import grid, save_png, to_tensor, to_uint8
from scalefp.data.source import Source, resolve_source
from scalefp.errors import UserError
from scalefp.evaluation.features import choose_extractor, extract
from scalefp.experiment import Experiment, make_folder, markdown_table
from scalefp.loading import load_model
from scalefp.metrics import Statistics, feature_diversity, frechet_distance, precision_recall

HERE = Path(__file__).parent
BATCH = 64


def data_pixels(source: str, resolution: int) -> torch.Tensor:
    """All images of the data set, uint8 [n, 3, R, R]."""
    with Source(resolve_source(source)) as entries:
        rows = [to_tensor([entries.read(i)], resolution) for i in tqdm(range(len(entries.names)))]
    return torch.cat(rows)


@torch.inference_mode()
def sample(model: scalefp.Model, keys: int, images: int, seed: int) -> tuple[torch.Tensor, float]:
    """8-bit images [keys * images, 3, R, R] of that many instances, and their bit accuracy.

    The twin gives every key the same network; the accuracy is then that of guessing.
    """
    draw = np.random.default_rng(seed)
    made, right = [], []
    for index in tqdm(range(keys), "sampling", unit="key", leave=False):
        key = scalefp.Key.from_bits(draw.integers(0, 2, model.config.n_bits).astype(np.uint8))
        pixels = to_uint8(model.instantiate(key).sample(images, seed=seed * keys + index))
        made.append(pixels)
        read = model.decode(pixels[:8], search=False).logits > 0
        right.append(float((read == key.bits).mean()))
    return torch.cat(made), float(np.mean(right))


def measure_run(run: Path, data: torch.Tensor, extractor: Any, options: Any) -> dict[str, Any]:
    """Figures of one run; half of the data is the reference, the other half its floor."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    model = load_model(run / "release.safetensors")
    settings = model.training["options"]
    reference = extract(extractor, data, BATCH)
    images, accuracy = sample(model, options.keys, len(data) // options.keys, options.seed)
    features = extract(extractor, images, BATCH)
    precision, recall = precision_recall(reference, features)
    return {
        "run": run.name,
        "digest": model.digest,
        "fingerprint": settings["fingerprint"],
        "seed": settings["seed"],
        "images_seen": log[-1]["images"],
        "bit_accuracy": accuracy,
        "distance": frechet_distance(Statistics.of(features), Statistics.of(reference)),
        "precision": precision,
        "recall": recall,
        "diversity": feature_diversity(features),
        "pictures": images[:: max(1, len(images) // 16)][:16],
    }


def table(results: dict[str, Any]) -> str:
    """The rows as Markdown, and the cost of each seed."""
    head = ["keys", "seed", "images seen", "feature distance", "precision", "recall", "diversity",
            "bit accuracy"]  # fmt: skip
    lines = []
    for row in results["runs"]:
        accuracy = f"{row['bit_accuracy']:.4f}" if row["fingerprint"] else ""
        lines.append([
            "yes" if row["fingerprint"] else "no", str(row["seed"]), f"{row['images_seen']:,}",
            f"{row['distance']:.1f}", f"{row['precision']:.3f}", f"{row['recall']:.3f}",
            f"{row['diversity']:.3f}", accuracy,
        ])  # fmt: skip
    costs = (f"seed {seed} {cost:+.1%}" for seed, cost in results["relative_cost"].items())
    return (
        f"{markdown_table(head, lines)}\n\n"
        f"One half of the data against the other: {results['floor']:.1f}.\n\n"
        f"Relative cost of the keys: {', '.join(costs)}.\n"
    )


def costs(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Relative cost of the keys in feature distance, seed by seed."""
    distances = {(row["fingerprint"], row["seed"]): row["distance"] for row in rows}
    seeds = sorted(seed for with_keys, seed in distances if with_keys)
    return {
        str(seed): distances[True, seed] / distances[False, seed] - 1
        for seed in seeds
        if (False, seed) in distances
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All runs below the folder; pictures of each become pictures.png."""
    extractor = choose_extractor("mobilenet", None)
    assert extractor is not None  # it would have said that its weights are missing
    runs = sorted(path.parent for path in options.runs.glob("*/release.safetensors"))
    if not runs:
        raise UserError(f"{options.runs} holds no trained release: run the multirun first")
    first = load_model(runs[0] / "release.safetensors")
    source = first.training["options"]["data.source"]
    pixels = data_pixels(source, first.config.resolution)
    halves = [pixels[0::2], pixels[1::2]]
    one, other = (Statistics.of(extract(extractor, half, BATCH)) for half in halves)
    bar = tqdm(runs, "runs", unit="run")
    rows = [measure_run(run, halves[1], extractor, options) for run in bar]
    rows.sort(key=lambda row: (row["seed"], not row["fingerprint"]))
    pictures = torch.cat([row.pop("pictures") for row in rows])
    make_folder(options.out)
    save_png(options.out / "pictures.png", grid(pictures, columns=16))
    return {
        "data": source,
        "images_each": len(halves[1]),
        "extractor": getattr(extractor, "name", type(extractor).__name__),
        "floor": frechet_distance(one, other),
        "runs": rows,
        "relative_cost": costs(rows),
    }


EXPERIMENT = Experiment(HERE, measure, table)


def main() -> None:
    """Measure all runs, and write results, table and pictures."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("runs", type=Path, help="folder of the multirun")
    parser.add_argument("--keys", type=int, default=50, help="instances sampled from")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
