"""Detection and attribution over 1, 10 and 100 instances: our reading beside learned classifiers.

python experiments/detection/detect.py --model emoji --parts runs/detection
"""

from __future__ import annotations

import argparse
import base64
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

import scalefp
from detection_report import plots, report
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_pil
from scalefp.experiment import Experiment, content_digest
from trial import METHODS, Trial

COUNTS = (1, 10, 100)
STEPS = {1: 2500, 10: 5000, 100: 16_000}  # images that an attribution CNN is trained on


def thumbnails(trial: Trial) -> dict[str, str]:
    """One image of each kind as a PNG file in base 64, for the plot."""
    found = {}
    for kind, (images, _) in trial.test.items():
        file = BytesIO()
        to_pil(images[:1])[0].save(file, "PNG", optimize=True)
        found[kind] = base64.b64encode(file.getvalue()).decode()
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    model: Any = scalefp.load(options.model)
    real = torch.from_numpy(ImageSet(options.data, model.config.resolution).pixels)
    options.steps = STEPS
    settings = {"training": options.training, "test": options.test, "steps": list(STEPS.values())}
    settings |= {"model": model.digest, "data": content_digest(options.data)}
    parts = EXPERIMENT.parts(options, settings)
    rows = []
    shown: dict[str, str] = {}
    for seed in options.seeds:
        for count in options.counts:
            trial = Trial(model, real, count, seed, options)
            work = {
                f"{count} instances seed {seed} {method}": partial(trial.measure, method)
                for method in METHODS
            }
            found = parts.measure(work, f"{count} instances, seed {seed}")
            for method, figures in zip(METHODS, found.values(), strict=True):
                rows.append({"seed": seed, "count": count, "method": method, **figures})
            shown = shown or parts.get("thumbnails", partial(thumbnails, trial))
    return {
        "model": options.model,
        "release": model.digest,
        "data": Path(options.data).name,
        "seeds": options.seeds,
        "training": options.training,
        "test": options.test,
        "steps": {str(count): STEPS[count] for count in options.counts},
        "shown": shown,
        "rows": rows,
        "measured_s": sum(row["cpu_s"] for row in rows),
    }


EXPERIMENT = Experiment(Path(__file__).parent, measure, report, plots)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__, seeded=False, in_parts=True)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--data", default="emoji64", help="real images: bundled, folder or zip")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, choices=COUNTS)
    parser.add_argument("--training", type=int, default=3000, help="images of all instances")
    parser.add_argument("--test", type=int, default=500, help="images of each kind, at least")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
