"""Hamming distance of two keys beside the distance of their images and of the decoder's logits.

python experiments/key-geometry/key_geometry.py --model emoji
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import scalefp
from scalefp.data.images import save_png, to_pil
from scalefp.experiment import Experiment, Plots, markdown_table, new_figure
from scalefp.key import Key
from scalefp.metrics import psnr_of

HERE = Path(__file__).parent
SHOWN = 10  # times a difference is enlarged in the picture


def flipped(key: Key, order: np.ndarray[Any, Any], count: int) -> Key:
    """The key with the first ``count`` bits of ``order`` turned over."""
    bits = key.bits.copy()
    bits[order[:count]] ^= 1
    return Key.from_bits(bits)


def grid(rows: list[list[torch.Tensor]]) -> Image.Image:
    """Images [3, H, W] in [-1, 1], in rows, as one picture of twice their size."""
    whole = torch.cat([torch.cat(row, dim=2) for row in rows], dim=1)
    picture = to_pil(whole.clamp(-1, 1)[None])[0]
    return picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """PSNR of images and mean distance of logits, for each distance of keys."""
    model: Any = scalefp.load(options.model)
    n_bits = model.config.n_bits
    distances = [n_bits * step // options.steps for step in range(options.steps + 1)]
    draw = np.random.default_rng(options.seed)
    tables: dict[int, list[list[float]]] = {distance: [] for distance in distances}
    shown: list[torch.Tensor] = []
    for number in range(options.latents):
        key = Key.from_hex(draw.bytes(n_bits // 8).hex())
        order = draw.permutation(n_bits)
        keys = [flipped(key, order, distance) for distance in distances]
        images = torch.cat([model.instantiate(k).sample(1, seed=number) for k in keys])
        logits = model.decode(images).logits
        for i, distance in enumerate(distances):
            assert (keys[i].bits != key.bits).sum() == distance
            error = float((images[i] - images[0]).square().mean())
            moved = float(np.sqrt(np.square(logits[i] - logits[0]).mean()))
            read = float(((logits[i] > 0) != (logits[0] > 0)).sum())
            tables[distance].append([error, moved, read])
        if number == 0:
            shown = list(images)
    differences = [SHOWN * (image - shown[0]) for image in shown]
    save_png(options.out / f"{Path(options.model).stem}-grid.png", grid([shown, differences]))
    rows = []
    for distance, values in tables.items():
        error, moved, read = np.mean(values, axis=0)
        psnr = psnr_of(float(error)) if error else None
        rows.append({"distance": distance, "psnr": psnr, "logits": moved, "bits_read": read})
    return {"model": options.model, "seed": options.seed, "latents": options.latents, "rows": rows}


def markdown(results: dict[str, Any]) -> str:
    rows = [
        [
            str(row["distance"]),
            "" if row["psnr"] is None else f"{row['psnr']:.1f}",
            f"{row['logits']:.2f}",
            f"{row['bits_read']:.1f}",
        ]
        for row in results["rows"]
    ]
    columns = ["key bits that differ", "PSNR of the images, dB", "root mean square of logits"]
    table = markdown_table([*columns, "bits read that differ"], rows, right=range(4))
    return (
        f"{results['date']}, {results['hardware']}, release `{results['model']}`, seed "
        f"{results['seed']}, {results['latents']} latents, a key for each.\n\n{table}\n"
    )


def plots(results: dict[str, Any]) -> Plots:
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    rows = results["rows"]
    at = [row["distance"] for row in rows]
    left.plot(at[1:], [row["psnr"] for row in rows[1:]], "o-")
    left.set(xlabel="key bits that differ", ylabel="PSNR of the images, dB")
    right.plot(at, [row["logits"] for row in rows], "o-")
    right.set(xlabel="key bits that differ", ylabel="root mean square of logits")
    return {"geometry.png": figure}


EXPERIMENT = Experiment(HERE, measure, markdown, plots)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--latents", type=int, default=48)
    parser.add_argument("--steps", type=int, default=8, help="distances beside 0")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
