"""How well are keys read that were put into a generator that others trained, and at what price?

    python experiments/pretrained/adopted_generator.py --model runs/dcgan/release.safetensors

writes results.json, table.md and pictures.png beside this file: keys that training did not see,
files of 8 bits, the real operations; how far pictures with keys lie from the original's in
features; and what is read after recipients trained their copies on. The weights of the generator
have to be where its release says, as in training.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from scalefp.config import ModelConfig
from scalefp.data.images import to_float, to_pil, to_uint8
from scalefp.errors import UserError
from scalefp.evaluation.features import extract, mobilenet_features
from scalefp.evaluation.finetune import train_on
from scalefp.experiment import Experiment, accuracy_rows, accuracy_table, markdown_table
from scalefp.key import Key
from scalefp.loading import load_generating
from scalefp.metrics import Statistics, bit_accuracy, frechet_distance, psnr
from scalefp.networks.discriminator import Discriminator
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
COMPARED = (1.0, 0.5)  # of these, at which features are compared
# Fine-tuning: images of the stages, images that are read at each, and dB to look at.
STAGES, READ, LOST = (0, 64, 256, 1024), 64, 3.0
TRAINED_EACH = 32  # images of a step
EACH = 20  # images of a key, of those whose features are compared
BATCH = 50


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


@contextmanager
def strengthened(model: PretrainedModel, strength: float) -> Iterator[None]:
    """What a key changes is so many times as strong meanwhile."""
    layers = [part for part, _ in model.parent.layers()]
    learned = [(part, part.deltas) for part in layers if part.deltas is not None]
    for part, deltas in learned:
        part.deltas = torch.nn.Parameter(deltas.detach() * strength, requires_grad=False)
    try:
        yield
    finally:
        for part, deltas in learned:
            part.deltas = deltas


def curve(model: PretrainedModel, z: Tensor, original: Tensor, seed: int) -> list[dict[str, Any]]:
    """Bit accuracy of clean files against fidelity, with what a key changes stronger and weaker."""
    chance = np.random.default_rng(seed + 1)
    keys = chance.integers(0, 2, (CURVE_KEYS, model.n_bits), dtype=np.uint8)
    rows = []
    for strength in STRENGTHS:
        right, fidelity = [], []
        with torch.inference_mode(), strengthened(model, strength):
            for bits in keys:
                made = to_uint8(model.instantiate(Key.from_bits(bits))(z).clamp(-1, 1))
                fidelity += psnr(to_float(made), original).tolist()
                logits = model.decode(made, progress=False).logits
                right += bit_accuracy(logits, bits).tolist()
        mean = {"psnr": float(np.mean(fidelity)), "mean": float(np.mean(right))}
        rows.append({"strength": strength, **mean})
    return rows


@torch.inference_mode()
def originals(model: PretrainedModel, count: int, seed: int) -> Tensor:
    """Pictures of the generator that was adopted, uint8 [count, 3, R, R]."""
    source = torch.Generator().manual_seed(seed)
    of = model.instantiate(Key.random(model.n_bits)).pictures.of
    parts = draw(model.inputs, count, source).split(BATCH)
    return torch.cat([to_uint8(of(model.parent.original(z)).clamp(-1, 1)) for z in parts])


def distances(model: PretrainedModel, count: int, seed: int) -> dict[str, Any]:
    """Fréchet distance of features between pictures with keys and the original's, beside that
    between two sets of the original's (``spread``), all of ``count`` pictures."""
    extractor, chance = mobilenet_features(), np.random.default_rng(seed + 2)
    keys = chance.integers(0, 2, (count // EACH, model.n_bits), dtype=np.uint8)
    count = EACH * len(keys)

    def statistics(images: Tensor) -> Statistics:
        return Statistics.of(extract(extractor, images))

    reference = statistics(originals(model, count, seed + 3))
    spread = frechet_distance(statistics(originals(model, count, seed + 4)), reference)
    found = {}
    for strength in COMPARED:
        with strengthened(model, strength):
            made = [
                to_uint8(model.instantiate(Key.from_bits(bits)).sample(EACH, seed=seed + number))
                for number, bits in enumerate(keys, 100)
            ]
        found[f"{strength:g}"] = frechet_distance(statistics(torch.cat(made)), reference)
    return {"extractor": extractor.name, "images": count, "spread": spread, "distance": found}


def at_loss(rows: Sequence[dict[str, float]], lost: float) -> dict[str, float | bool]:
    """Images and bit accuracy at which a row first has so many dB less than the first, between the
    two rows linearly; the last row's where none has."""
    wanted = rows[0]["psnr"] - lost
    for before, row in zip(rows, rows[1:], strict=False):
        if row["psnr"] <= wanted:
            share = (before["psnr"] - wanted) / (before["psnr"] - row["psnr"])
            images, mean = (before[n] + share * (row[n] - before[n]) for n in ("images", "mean"))
            return {"images": images, "mean": mean, "reached": True}
    return {"images": rows[-1]["images"], "mean": rows[-1]["mean"], "reached": False}


def trained_on(
    model: PretrainedModel, bits: NDArray[np.uint8], clean: Tensor, seed: int
) -> list[dict[str, float]]:
    """One recipient's copy as he trains it on.

    Args:
        bits: of its key [n].
        clean: pictures that it is trained on as a GAN, with a discriminator of his own.
    """
    z = draw(model.inputs, READ, torch.Generator().manual_seed(seed))
    instance = model.instantiate(Key.from_bits(bits))
    with torch.inference_mode():
        original = instance.pictures.of(model.parent.original(z)).clamp(-1, 1)
    network = instance.network.requires_grad_(True)
    torch.manual_seed(seed)
    critic = Discriminator(ModelConfig(resolution=model.resolution))
    source = torch.Generator().manual_seed(seed)

    def made() -> Tensor:
        return instance(draw(model.inputs, TRAINED_EACH, source))

    rows: list[dict[str, float]] = []
    stages = train_on(network, made, critic, clean, STAGES, seed=seed, batch=TRAINED_EACH)
    for images in stages:
        with torch.inference_mode():
            files = to_uint8(instance(z).clamp(-1, 1))
        fidelity = float(psnr(to_float(files), original).mean())
        mean = float(bit_accuracy(model.decode(files, progress=False).logits, bits).mean())
        rows.append({"images": images, "psnr": fidelity, "mean": mean})
    return rows


def fine_tuning(model: PretrainedModel, keys: int, count: int, seed: int) -> list[dict[str, Any]]:
    """Copies that recipients train on, each with its ``rows`` and what is read ``at_loss``.

    They are given more than they would have: ``count`` clean pictures of the original.
    """
    clean, chance = originals(model, count, seed + 5), np.random.default_rng(seed + 6)
    found = []
    for number in range(keys):
        bits = chance.integers(0, 2, model.n_bits, dtype=np.uint8)
        rows = trained_on(model, bits, clean, seed + number)
        found.append({"at_loss": at_loss(rows, LOST), "rows": rows})
    return found


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
        "features": distances(model, options.compared, options.seed),
        "fine_tuning": fine_tuning(model, options.tuned, options.compared, options.seed),
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
    parts = [accuracy_table(results["rows"], "target (128 bits)"), note, against]
    return "\n\n".join([*parts, *further(results)]) + "\n"


def further(results: dict[str, Any]) -> list[str]:
    """What is said of features, and of copies that were trained on."""
    features, copies = results["features"], results["fine_tuning"]
    against = ", ".join(
        f"{distance:.1f} ({distance / features['spread']:.2f} times that) with keys of strength "
        f"{strength}"
        for strength, distance in features["distance"].items()
    )
    said = (
        f"Fréchet distance of features ({features['extractor']}; {features['images']:,} pictures) "
        f"from the original's pictures: {features['spread']:.1f} of others of the original, "
        f"{against}; target 1.1 times."
    )
    if not copies:
        return [said]
    rows = [
        [str(number), f"{row['images']:,}", f"{row['psnr']:.1f}", f"{row['mean']:.3f}"]
        for number, copy in enumerate(copies, 1)
        for row in copy["rows"]
    ]
    columns = ["copy", "images it was trained on", "PSNR to the original, dB", "bit accuracy"]
    met = [copy["at_loss"]["mean"] for copy in copies if copy["at_loss"]["reached"]]
    at = (
        f"Where they have lost {LOST:g} dB, {np.mean(met):.3f} is read on the average of "
        f"{len(met)} copies."
        if met
        else f"No copy lost {LOST:g} dB."
    )
    return [said, markdown_table(columns, rows, {0, 1, 2, 3}), at]


EXPERIMENT = Experiment(Path(__file__).parent, measure, table)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", required=True, help="release of an adopted generator")
    parser.add_argument("--keys", type=int, default=50)
    parser.add_argument("--images", type=int, default=16, help="for each key")
    parser.add_argument(
        "--compared", type=int, default=600, help="images whose features are compared"
    )
    parser.add_argument("--tuned", type=int, default=1, help="copies that are trained on")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
