"""How well is a key read by inversion, by how many bits it has and how much it changes?

    python experiments/inversion/bits.py --images photos256.zip --release FILE --name NAME

puts the figures of one release into bits.json and bits.md beside this file: photographs that its
copies decoded, each under a key of its own, read from files without a search.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from invert import POINTS as CHANGES
from invert import SIDE, Shown
from scalefp.evaluation.single_files import (
    drawn_key,
    file_of,
    inverting,
    mean,
    photographs,
    read_file,
)
from scalefp.experiment import Experiment, made, markdown_table, new_figure
from scalefp.metrics import psnr

POINTS = [(what, change) for what, change, _ in CHANGES[:3]]  # nothing, JPEG 80 and 50


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What is read of one release's pictures, and how far they are from the original's."""
    model, seed = inverting(options.release, drawn=False), options.seed
    photos = photographs(options.images, options.pictures, seed, SIDE)
    kept, found = list[float](), {what: list[dict[str, float]]() for what, _ in POINTS}
    with tqdm(total=len(photos) * len(POINTS), desc="bits", unit="file") as bar:
        for number, photo in enumerate(photos):
            key = drawn_key(model.n_bits, seed, number)
            shown = Shown(model, photo, key)
            kept.append(float(psnr(shown.made, shown.original)[0]))
            for what, change in POINTS:
                file = change(file_of(shown.made), np.random.default_rng(seed))
                found[what].append(read_file(model, file, key, search=False))
                bar.update()
    return {
        "release": model.digest, "n_bits": model.n_bits, "side": SIDE, "seed": seed,
        "pictures": len(photos), "psnr": float(np.mean(kept)),
        "right": {what: mean(readings) for what, readings in found.items()},
        "named": {what: mean(readings, "named") for what, readings in found.items()},
    }  # fmt: skip


def in_order(results: Mapping[str, Any]) -> list[Any]:
    """Those of fewer bits first, then those that keep more of the picture."""
    return sorted(results.values(), key=lambda one: (one["n_bits"], -one["psnr"]))


def markdown(results: Mapping[str, Any]) -> str:
    """A row for each release."""
    head = ["bits", "PSNR to the original's, dB"]
    for what, _ in POINTS:
        head += [what, "named"]
    rows, about = [], []
    for one in in_order(results):
        cells = [f"{one['n_bits']}", f"{one['psnr']:.1f}"]
        for what, _ in POINTS:
            cells += [f"{one['right'][what]:.3f}", f"{one['named'][what]:.0%}"]
        rows.append(cells)
        about.append(
            f"- {one['n_bits']} bits at {one['psnr']:.1f} dB: release `{one['release'][:16]}`, "
            f"{one['pictures']} photographs of {one['side']} pixels; {made(one)}"
        )
    parts = [
        "# Bits and strength of keys that are read by inversion",
        "Shares of bits that are read from single 8-bit files, without a search; named among "
        "10^6 keys at fpr 1e-6.",
        markdown_table(head, rows),
        "\n".join(about),
        "![Bits read against dB, after each change](bits.png)",
    ]
    return "\n\n".join(parts) + "\n"


def plot(results: Mapping[str, Any]) -> Figure:
    """Bits read against dB: a panel for each change of the file."""
    figure = new_figure(10, 3.4)
    panels = figure.subplots(1, len(POINTS), sharey=True)
    for panel, (what, _) in zip(panels, POINTS, strict=True):
        for n_bits in sorted({one["n_bits"] for one in results.values()}):
            of = [one for one in in_order(results) if one["n_bits"] == n_bits]
            kept = [one["psnr"] for one in of]
            panel.plot(kept, [one["right"][what] for one in of], "o-", label=f"{n_bits} bits")
        panel.set_title(what)
        panel.set_xlabel("PSNR to the original's, dB")
    panels[0].set_ylabel("bits read")
    panels[0].legend(fontsize="small")
    return figure


EXPERIMENT = Experiment(
    Path(__file__).parent, measure, markdown, lambda results: {"bits.png": plot(results)},
    named_by="release", results_file="bits.json", page_file="bits.md",
)  # fmt: skip


def main() -> None:
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--images", type=Path, required=True, help="photographs: a folder or zip")
    parser.add_argument("--release", default="taef2", help="bundled name or path of a release")
    parser.add_argument("--pictures", type=int, default=6, help="that are read in each row")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
