"""What a new recipient costs: instances made, written, issued and read back, beside retraining.

python experiments/recipient-cost/recipient_cost.py --model emoji
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import scalefp
from scalefp.attribution.evidence import attribute
from scalefp.data.images import save_png, to_pil
from scalefp.experiment import Experiment, markdown_table, wilson
from scalefp.key import Key
from scalefp.registry.registry import Registry

WRITTEN = 100  # files that are written at most: more only fill the disk
LOG = Path(__file__).parents[1] / "emoji" / "log_finish.jsonl"


def measure_instances(model: Any, count: int, folder: Path) -> dict[str, float]:
    """Time and bytes of so many instances of random keys; each is dropped before the next."""
    model.instantiate(Key.random())  # what is prepared once is not counted
    keys = [Key.random() for _ in range(count)]
    started = time.perf_counter()
    for key in keys:
        instance = model.instantiate(key)
    making = time.perf_counter() - started
    memory = sum(tensor.nbytes for tensor in instance.state_dict().values())
    written = min(count, WRITTEN)
    path = folder / "instance.safetensors"
    started = time.perf_counter()
    for key in keys[:written]:
        model.instantiate(key).save(path)
    return {
        "count": count,
        "making_s": making,
        "written": written,
        "making_and_writing_s": time.perf_counter() - started,
        "bytes_in_memory": memory,
        "bytes_in_file": path.stat().st_size,
    }


def read_back(model: Any, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Issue keys, instantiate some of them, and attribute one 8-bit file and all of each."""
    registry = Registry(folder / "keys.db")
    holders = [f"recipient-{number}" for number in range(options.issued)]
    started = time.perf_counter()
    registry.issue_many(holders, model)
    issuing = time.perf_counter() - started
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


def retraining() -> dict[str, float]:
    """What the training of the bundled release took by its own log: images, and images/s."""
    lines = [json.loads(line) for line in LOG.read_text().splitlines()]
    rates = sorted(line["images_per_second"] for line in lines if "images_per_second" in line)
    return {"images": lines[-1]["images"], "images_per_second": rates[len(rates) // 2]}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    model = scalefp.load(options.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "model": options.model,
            "instances": [measure_instances(model, count, folder) for count in options.counts],
            "read_back": read_back(model, options, folder),
            "retraining": retraining(),
        }


def markdown(results: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['count']:,}",
            f"{row['making_s']:.3g}",
            f"{1e3 * row['making_s'] / row['count']:.2f}",
            f"{1e3 * row['making_and_writing_s'] / row['written']:.1f}",
            f"{row['bytes_in_memory']:,}",
            f"{row['bytes_in_file']:,}",
        ]
        for row in results["instances"]
    ]
    columns = ["instances", "s in all", "ms each", "ms each, written", "bytes each in memory"]
    table = markdown_table([*columns, "bytes each in a file"], rows, right=range(6))
    back, training = results["read_back"], results["retraining"]
    shares = []
    for form in ("single", "together"):
        right, wrong, nobody = back[form]
        trials = back["read"] * (back["images"] if form == "single" else 1)
        low, high = wilson(right, trials)
        cells = [f"{right:,} of {trials:,}", f"{low:.3f} to {high:.3f}", str(wrong), str(nobody)]
        shares.append([form, *cells])
    names = ["images", "right holder named", "95%", "another named", "nobody"]
    hours = training["images"] / training["images_per_second"] / 3600
    return (
        f"{results['date']}, {results['hardware']}, release `{results['model']}`, one thread of a "
        f"machine that other work kept busy.\n\n{table}\n\n"
        f"Written: at most {WRITTEN} files of each row.\n\n"
        f"{back['issued']:,} keys issued in one SQLite registry in {back['issuing_s']:.2f} s "
        f"({back['bytes_in_registry']:,} bytes); {back['read']} of them instantiated, "
        f"{back['images']} PNG files each, attributed at fpr 1e-6:\n\n"
        f"{markdown_table(names, shares, right=range(1, 5))}\n\n"
        f"Retraining one generator a recipient: {training['images']:,} images at the median "
        f"{training['images_per_second']:.0f} images/s of the release's own log: {hours:.1f} hours "
        "each (computed, not run).\n"
    )


EXPERIMENT = Experiment(Path(__file__).parent, measure, markdown)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 100, 1000, 10_000])
    parser.add_argument("--issued", type=int, default=10_000)
    parser.add_argument("--read", type=int, default=200)
    parser.add_argument("--images", type=int, default=4, help="of each instance that is read")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
