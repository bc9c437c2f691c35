"""How well are keys read that were put into a generator that others trained, and at what price?

    python experiments/pretrained/adopted_generator.py --model runs/dcgan/release.safetensors

writes results.json, table.md and pictures.png beside this file: keys that training did not see,
files of 8 bits, the real operations. The weights of the generator have to be where its release
says, as in training.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scalefp.data.images import to_float, to_pil, to_uint8
from scalefp.errors import UserError
from scalefp.experiment import Experiment, accuracy_rows, accuracy_table, markdown_table
from scalefp.key import Key
from scalefp.loading import load_generating
from scalefp.metrics import bit_accuracy, psnr
from scalefp.perturb import PERTURBATIONS
from scalefp.pretrained.adopted import draw
from scalefp.pretrained.release import PretrainedModel
from scalefp.pretrained.source import make

FPR, ISSUED = 1e-6, 1_000_000
# What happens to a file, the perturbation and its strength, and the target for 128 bits.
POINTS: tuple[tuple[str, str | None, float, float | None], ...] = (
    ("as it is", None, 0, 0.998),
    ("JPEG 80", "jpeg", 80, 0.98),
    ("JPEG 50", "jpeg", 50, 0.95),
    ("half size and back", "resize", 0.5, 0.98),
    ("noise of 0.111", "noise", 0.111, None),
    ("blur, sigma 1 of 64", "blur_sigma", 1.0, None),
    ("crop to half the area", "crop", 0.7071, 0.95),
    ("rotated by 10 degrees", "rotation", 10, 0.95),
)
SHOWN = 8
STRENGTHS = (2.0, 1.4, 1.0, 0.7, 0.5)  # by which what a key changes is multiplied, for the curve
CURVE_KEYS = 10


def pictures(original: Tensor, made: list[Tensor], file: Path) -> None:
    """Rows: the original, each key's, and what each key changes, times 10, around grey."""
    rows = [original, *made, *((one - original) * 10 for one in made)]
    strips = [torch.cat(list(to_uint8(row[:SHOWN].clamp(-1, 1))), dim=2) for row in rows]
    sheet = torch.cat(strips, dim=1)
    Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(file)


def perturbed(files: list[Image.Image], name: str | None, strength: float) -> list[Image.Image]:
    """The files after one of the table's real operations, from the same randomness each time."""
    if name is None:
        return files
    chance = np.random.default_rng(0)
    return [PERTURBATIONS[name].apply(file, strength, chance) for file in files]


def curve(model: PretrainedModel, z: Tensor, original: Tensor, seed: int) -> list[dict[str, Any]]:
    """Bit accuracy of clean files against fidelity, with what a key changes stronger and weaker."""
    keyed = [part for part, _ in model.parent.layers() if part.deltas is not None]
    learned = [part.deltas.clone() for part in keyed if part.deltas is not None]
    chance = np.random.default_rng(seed + 1)
    keys = chance.integers(0, 2, (CURVE_KEYS, model.n_bits), dtype=np.uint8)
    rows = []
    for strength in STRENGTHS:
        right, fidelity = [], []
        with torch.inference_mode():
            for part, deltas in zip(keyed, learned, strict=True):
                part.deltas = torch.nn.Parameter(deltas * strength, requires_grad=False)
            for bits in keys:
                made = to_uint8(model.instantiate(Key.from_bits(bits))(z).clamp(-1, 1))
                fidelity += psnr(to_float(made), original).tolist()
                logits = model.decode(made, progress=False).logits
                right += bit_accuracy(logits, bits).tolist()
        mean = {"psnr": float(np.mean(fidelity)), "mean": float(np.mean(right))}
        rows.append({"strength": strength, **mean})
    return rows


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one release."""
    model = load_generating(options.model)
    if not isinstance(model, PretrainedModel):
        raise UserError(f"{options.model} is the release of a generator of this project")
    chance = np.random.default_rng(options.seed)
    inputs = make(model.origin["inputs"], "inputs")
    z = draw(inputs, options.images, torch.Generator().manual_seed(options.seed))
    model.parent  # noqa: B018  prepared before the clock runs
    accuracy: dict[str, list[float]] = {what: [] for what, *_ in POINTS}
    fidelity: list[float] = []
    seconds: list[float] = []
    shown = []
    with torch.inference_mode():
        instance = model.instantiate(Key.random(model.n_bits))
        original = instance.pictures.of(model.parent.original(z)).clamp(-1, 1)
    for _ in range(options.keys):
        bits = chance.integers(0, 2, model.n_bits, dtype=np.uint8)
        begun = time.perf_counter()
        instance = model.instantiate(Key.from_bits(bits))
        seconds.append(time.perf_counter() - begun)
        with torch.inference_mode():
            made = instance(z).clamp(-1, 1)
        whole = to_uint8(made)
        fidelity += psnr(to_float(whole), original).tolist()
        files = to_pil(whole)
        for what, name, strength, _ in POINTS:
            reading = model.decode(perturbed(files, name, strength), progress=False)
            accuracy[what] += bit_accuracy(reading.logits, bits).tolist()
        shown.append(made)
    pictures(original, shown[:2], options.out / "pictures.png")
    return {
        "release": model.digest,
        "n_bits": model.n_bits,
        "training_images": model.training.get("images"),
        "keys": options.keys,
        "images_per_key": options.images,
        "seed": options.seed,
        "psnr": float(np.mean(fidelity)),
        "psnr_low5": float(np.quantile(fidelity, 0.05)),
        "milliseconds_a_key": 1000 * float(np.median(seconds)),
        "rows": accuracy_rows(accuracy, {what: target for what, _, _, target in POINTS}),
        "curve": curve(model, z, original, options.seed),
    }


def table(results: dict[str, Any]) -> str:
    """The rows as Markdown."""
    note = (
        f"{results['n_bits']} bits, {results['keys']} keys that training did not see, "
        f"{results['images_per_key']} pictures each, as 8-bit files. To the original's pictures "
        f"{results['psnr']:.1f} dB (5% below {results['psnr_low5']:.1f}); target 34. A key takes "
        f"{results['milliseconds_a_key']:.0f} ms."
    )
    strengths = [
        [f"{row['strength']:g}", f"{row['psnr']:.1f}", f"{row['mean']:.4f}"]
        for row in results["curve"]
    ]
    against = markdown_table(
        ["strength", "PSNR to the original, dB", "bit accuracy, clean files"], strengths, {0, 1, 2}
    )
    return f"{accuracy_table(results['rows'], 'target (128 bits)')}\n\n{note}\n\n{against}\n"


EXPERIMENT = Experiment(Path(__file__).parent, measure, table)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", required=True, help="release of an adopted generator")
    parser.add_argument("--keys", type=int, default=50)
    parser.add_argument("--images", type=int, default=16, help="for each key")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
