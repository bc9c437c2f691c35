"""Are all targets for a stranger's GAN met by keys that are bound to the picture?

    python experiments/binding/bound_dcgan.py --release runs/dcgan_bound/release.safetensors

writes results.json and table.md into dcgan/ beside this file: pictures, each under a key of its
own, read from files after what happens to files; and what keys cost. What was measured before it
was stopped is kept in --parts. To read a picture takes ten seconds of a core, up to four times as
long where it is not explained at first.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from scalefp.config import ModelConfig
from scalefp.data.images import to_float, to_pil, to_uint8
from scalefp.evaluation.features import extract, mobilenet_features
from scalefp.evaluation.finetune import train_on
from scalefp.evaluation.single_files import (
    drawn_key,
    inverting,
    mean,
    milliseconds_a_key,
    read_file,
)
from scalefp.experiment import Experiment, accuracy_rows, accuracy_table
from scalefp.metrics import Statistics, frechet_distance, psnr
from scalefp.networks.discriminator import Discriminator
from scalefp.perturb import PERTURBATIONS
from scalefp.pretrained.drawn import ATTEMPTS
from scalefp.pretrained.release import InvertingModel

# What happens to a file, the perturbation and its strength, and the target.
POINTS: tuple[tuple[str, str | None, float, float | None], ...] = (
    ("as it is", None, 0, 0.998),
    ("JPEG 80", "jpeg", 80, 0.98),
    ("JPEG 50", "jpeg", 50, 0.95),
    ("half size and back", "resize", 0.5, 0.98),
    ("noise of 0.1", "noise", 0.1, None),
    ("crop to half the area", "crop", 0.7071, 0.95),
    ("rotated by 10 degrees", "rotation", 10, 0.95),
)
COMPARED, EACH = 600, 20  # pictures whose features are compared, and those of a key
# A copy that its recipient trains on: images after which is looked, those of a step, clean ones
# that he has, pictures by which is looked, those that are read, and dB to lose.
STAGES, BATCH, CLEAN, LOOKED, TUNED, LOST = tuple(range(0, 1025, 32)), 32, 600, 32, 4, 3.0
KEYS_TIMED = 20


@torch.inference_mode()
def after(
    model: InvertingModel, seed: int, number: int, name: str | None, strength: float
) -> dict[str, float]:
    """What is read of a picture's file after a change."""
    key = drawn_key(model.n_bits, seed, number)
    latents = model.inputs.draw(number + 1, torch.Generator().manual_seed(seed))[-1:]
    (file,) = to_pil(to_uint8(model.instantiate(key)(latents).clamp(-1, 1)))
    if name is not None:
        file = PERTURBATIONS[name].apply(file, strength, np.random.default_rng(seed))
    return read_file(model, file, key)


@torch.inference_mode()
def fidelity(model: InvertingModel, seed: int) -> list[float]:
    """PSNR of pictures of several keys to the original's, dB."""
    source, found = torch.Generator().manual_seed(seed + 3), list[float]()
    for number in range(COMPARED // EACH):
        latents = model.inputs.draw(EACH, source)
        made = model.instantiate(drawn_key(model.n_bits, seed, 6000 + number))(latents).clamp(-1, 1)
        found += psnr(to_float(to_uint8(made)), model.original(latents).clamp(-1, 1)).tolist()
    return found


@torch.inference_mode()
def features(model: InvertingModel, seed: int) -> dict[str, Any]:
    """Fréchet distance of features to the original's pictures: of others of the original
    (``spread``), and of recipients' ones."""
    extractor = mobilenet_features()
    source = torch.Generator().manual_seed(seed + 1)

    def statistics(copies: list[Any]) -> Statistics:
        made = [to_uint8(copy(model.inputs.draw(EACH, source)).clamp(-1, 1)) for copy in copies]
        return Statistics.of(extract(extractor, torch.cat(made)))

    plain = [model.original] * (COMPARED // EACH)
    keyed = [model.instantiate(drawn_key(model.n_bits, seed, 4000 + n)) for n in range(len(plain))]
    reference = statistics(plain)
    return {
        "extractor": extractor.name, "images": EACH * len(plain),
        "spread": frechet_distance(statistics(plain), reference),
        "distance": frechet_distance(statistics(keyed), reference),
    }  # fmt: skip


def trained_on(model: InvertingModel, seed: int) -> dict[str, Any]:
    """What is read after a recipient trained his copy on as a GAN against clean pictures of the
    original, until its pictures have lost 3 dB. They are more than he would have."""
    key, source = drawn_key(model.n_bits, seed, 3000), torch.Generator().manual_seed(seed + 2)
    instance = model.instantiate(key)
    with torch.inference_mode():
        looked = model.inputs.draw(LOOKED, source)
        original = model.original(looked).clamp(-1, 1)
        clean = to_uint8(model.original(model.inputs.draw(CLEAN, source)).clamp(-1, 1))
    network = instance.network.requires_grad_(True)
    torch.manual_seed(seed)
    critic = Discriminator(ModelConfig(resolution=model.resolution))
    kept, files = list[tuple[int, float]](), list[Image.Image]()
    stages = train_on(
        network, lambda: instance(model.inputs.draw(BATCH, source)), critic, clean, STAGES,
        seed=seed, batch=BATCH,
    )  # fmt: skip
    for stage in stages:
        with torch.inference_mode():
            made = to_uint8(instance(looked).clamp(-1, 1))
        kept.append((stage, float(psnr(to_float(made), original).mean())))
        files = to_pil(made[:TUNED])
        if kept[-1][1] <= kept[0][1] - LOST:
            break
    (images, reached), found = kept[-1], [read_file(model, file, key) for file in files]
    return {"images": images, "psnr_before": kept[0][1], "psnr": reached, "read": found}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All that is asked of a stranger's generator."""
    model = inverting(options.release, drawn=True)
    seed, numbers = options.seed, range(options.pictures)
    parts = EXPERIMENT.parts(options, {"release": model.digest, "seed": seed})
    timed = [drawn_key(model.n_bits, seed, 5000 + n) for n in range(KEYS_TIMED)]
    figures: dict[str, Callable[[], Any]] = {
        "key": partial(milliseconds_a_key, model, timed),
        "fidelity": partial(fidelity, model, seed),
        "features": partial(features, model, seed),
        "trained on": partial(trained_on, model, seed),
    }
    readings = {
        f"{what}, {n}": partial(after, model, seed, n, name, strength)
        for n in numbers
        for what, name, strength, _ in POINTS
    }
    found = parts.measure(readings | figures, "dcgan")
    by_what = {what: [found[f"{what}, {n}"] for n in numbers] for what, *_ in POINTS}
    kept = found["fidelity"]
    everything = {**by_what, "trained on": found["trained on"]["read"]}
    return {
        "n_bits": model.n_bits, "side": model.resolution, "pictures": options.pictures,
        "release": model.digest, "seed": seed, "steps": model.config.steps,
        "starts": model.config.starts, "rounds": model.config.rounds, "attempts": ATTEMPTS,
        "psnr": float(np.mean(kept)), "psnr_low5": float(np.quantile(kept, 0.05)),
        "milliseconds_a_key": found["key"], "features": found["features"],
        "trained_on": found["trained on"],
        "named": {what: mean(readings, "named") for what, readings in everything.items()},
        "rows": accuracy_rows(
            {what: [one["right"] for one in readings] for what, readings in by_what.items()},
            {what: target for what, _, _, target in POINTS},
        ),
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """The rows as Markdown."""
    named = "; ".join(f"{what} {share:.0%}" for what, share in results["named"].items())
    apart, tuned = results["features"], results["trained_on"]
    said = [
        f"{results['n_bits']} bits, {results['pictures']} pictures of {results['side']} pixels, "
        "each under a key of its own, as 8-bit files. To the original's pictures "
        f"{results['psnr']:.1f} dB (5% below {results['psnr_low5']:.1f}; of {COMPARED} pictures); "
        f"target 34. Read from {results['starts']} starts in {results['steps']} steps and "
        f"{results['rounds']} rounds, begun at most {results['attempts']} times.",
        f"A key takes {results['milliseconds_a_key']:.1f} ms of a processor; target 10.",
        f"Fréchet distance of features ({apart['extractor']}; {apart['images']} pictures) from "
        f"the original's pictures: {apart['spread']:.1f} of others of the original, "
        f"{apart['distance']:.1f} of recipients' ({apart['distance'] / apart['spread']:.3f} times "
        "that; target 1.1).",
        f"A copy trained on with {tuned['images']} images, from {tuned['psnr_before']:.1f} to "
        f"{tuned['psnr']:.1f} dB to the original's pictures: {mean(tuned['read']):.3f} of its bits "
        f"are read, of {len(tuned['read'])} pictures.",
        f"Named among 10^6 keys at fpr 1e-6, single files: {named}.",
    ]
    return "\n\n".join([accuracy_table(results["rows"]), *said]) + "\n"


EXPERIMENT = Experiment(Path(__file__).parent / "dcgan", measure, table)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__, in_parts=True)
    parser.add_argument("--release", required=True, help="file that experiment=dcgan_bound wrote")
    parser.add_argument("--pictures", type=int, default=16, help="that are read in each row")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
