"""What a new recipient costs: an instance, beside a fine-tuning and beside a training of its own.

python experiments/recipient-cost/recipient_cost.py --model emoji
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import scalefp
from recipient_cost_report import plots, report
from scalefp.attribution.evidence import attribute
from scalefp.data.images import save_png, to_pil
from scalefp.experiment import Experiment
from scalefp.key import Key
from scalefp.loading import load_model
from scalefp.registry.registry import Registry
from scalefp.training.compose import compose_training
from scalefp.training.generator import GeneratorTraining
from scalefp.training.rehearsal import rehearse
from tuning import measure_tuning

WRITTEN = 100  # files that are written at most: more only fill the disk
# A release that one processor core can train: by this and a second part, in all on so many images.
TRAINING = "experiment=emoji_small"
TRAINING_IMAGES = 490_048


def draw_keys(count: int, n_bits: int, *seed: int) -> list[Key]:
    """Keys that are the same in every run: what they cost is asked, nobody is to use them."""
    draw = np.random.default_rng(seed)
    return [Key.from_hex(draw.bytes(n_bits // 8).hex(), n_bits) for _ in range(count)]


def measure_instances(model: Any, count: int, folder: Path, seed: int) -> dict[str, float]:
    """Processor time and bytes of so many instances; each is dropped before the next."""
    keys = draw_keys(count, model.config.n_bits, seed, count)
    model.instantiate(keys[0])  # what is prepared once is not counted
    started = time.process_time()
    for key in keys:
        instance = model.instantiate(key)
    making = time.process_time() - started
    memory = sum(tensor.nbytes for tensor in instance.state_dict().values())
    written = min(count, WRITTEN)
    path = folder / "instance.safetensors"
    started = time.process_time()
    for key in keys[:written]:
        model.instantiate(key).save(path)
    return {
        "count": count,
        "making_s": making,
        "written": written,
        "making_and_writing_s": time.process_time() - started,
        "bytes_in_memory": memory,
        "bytes_in_file": path.stat().st_size,
    }


def read_back(model: Any, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Issue keys, instantiate some of them, and attribute one 8-bit file and all of each."""
    secret = folder / "secret"  # from which the same keys are derived in every run
    secret.write_bytes(options.seed.to_bytes(32))
    secret.chmod(0o600)
    registry = Registry(folder / "keys.db", master=secret)
    holders = [f"recipient-{number}" for number in range(options.issued)]
    started = time.process_time()
    registry.issue_many(holders, model)
    issuing = time.process_time() - started
    tallies = {"single": [0, 0, 0], "together": [0, 0, 0]}  # right, wrong, nobody
    step = options.issued // options.read
    for number, holder in enumerate(holders[::step][: options.read]):
        path = folder / "read.safetensors"
        model.instantiate(registry.find(holder)).save(path)
        images = scalefp.load_instance(path).sample(options.images, seed=options.seed + number)
        files = [folder / f"{i}.png" for i in range(options.images)]
        for file, image in zip(files, to_pil(images), strict=True):
            save_png(file, image)
        reading = model.decode(files)
        for form, part in [*(("single", part) for part in reading), ("together", reading)]:
            named = {found.holder for found in attribute(part, registry)}
            tallies[form][0] += holder in named
            tallies[form][1] += bool(named - {holder})
            tallies[form][2] += not named
    return {
        "issued": options.issued,
        "issuing_s": issuing,
        "bytes_in_registry": (folder / "keys.db").stat().st_size,
        "read": options.read,
        "images": options.images,
        **tallies,
    }


def retraining() -> dict[str, Any]:
    """How fast a small release would be trained here: its first steps, on made pictures."""
    found = rehearse(GeneratorTraining, compose_training([TRAINING]))
    return {
        "command": f"scalefp train --dry-run {TRAINING}",
        "images": TRAINING_IMAGES,
        "images_per_second": found.images_per_second,
        "precision": found.precision,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    model = load_model(options.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "model": options.model,
            "release": model.digest,
            "seed": options.seed,
            "instances": [
                measure_instances(model, count, folder, options.seed) for count in options.counts
            ],
            "read_back": read_back(model, options, folder),
            "tuning": measure_tuning(
                model, draw_keys(options.tuned, model.config.n_bits, options.seed), options.seed
            ),
            "retraining": retraining(),
        }


EXPERIMENT = Experiment(Path(__file__).parent, measure, report, plots)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--counts", type=int, nargs="+", default=[10**k for k in range(6)])
    parser.add_argument("--issued", type=int, default=10_000)
    parser.add_argument("--read", type=int, default=200)
    parser.add_argument("--images", type=int, default=4, help="of each instance that is read")
    parser.add_argument("--tuned", type=int, default=5, help="keys that are fine-tuned for")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
