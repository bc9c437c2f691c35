"""Can an adversary tell an instance's images from those of the generator without a key?

    scalefp train experiment=tiny name=owner seed=0
    scalefp train experiment=tiny name=shadow seed=1
    python experiments/secrecy/generator_secrecy.py --model runs/owner/release.safetensors \
      --shadow runs/shadow/release.safetensors --name tiny

- shadow: he trained the method himself (same code and data, other seed), and learns from what his
  own release draws with and without keys;
- informed: he has images of the owner's plain generator, and of eight other instances;
- the key: he has images of the plain generator, and of the very instance that he is to find.

The plain generator is the release with no key bit switched on, or with --twin and --shadow-twin
what was trained in the same way with fingerprint=false.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from generator_secrecy_report import plots, report
from parties import COPIES, THREATS, VICTIMS, Party, Scene
from scalefp.attribution.evidence import log_p_soft
from scalefp.data.images import save_png, to_pil
from scalefp.detection.adversary import (
    DETECTORS,
    Training,
    joined,
    learn,
    learn_from_generators,
)
from scalefp.detection.scores import accuracy_figures, summed
from scalefp.errors import UserError
from scalefp.evaluation.sheets import sheet
from scalefp.experiment import Experiment, content_digest
from scalefp.loading import load_model
from scalefp.release.model import Model

TOGETHER = (1, 4, 16, 64)  # images of one source that are judged together
POOLED = 16  # images that the owner reads together
ISSUED, FPR = 1_000_000, 1e-6  # keys among which he names one, and how surely
FULL = 1.0  # as strong as the release was trained to write
SHOWN = 8


def judged(scene: Scene, threat: str, count: int, name: str, training: Training) -> dict[str, Any]:
    """What one detector of one adversary reaches."""
    examples = scene.examples(threat, count)
    if threat == "shadow" and scene.shadows[0].twin is not None:
        # Two trainings are told apart whatever they are of: his choice is made on a pair that the
        # detector has not seen, or on images of his own release.
        own = joined([shadow.without_twin().examples(count) for shadow in scene.shadows])
        detect, validation = learn_from_generators(name, examples, training, own)
    else:
        detect, validation = learn(name, joined(examples), training)
    clean, marked = (detect(images) for images in scene.tested(threat))
    return {
        "validation": validation,
        **accuracy_figures(clean, marked),
        "together": {str(m): summed(clean, marked, m) for m in TOGETHER},
    }


def draw_sheet(plain: Party, strengths: list[float], path: Path) -> None:
    """The same latents without a key, with one at each strength, and the difference at the full."""
    latents = plain.latents(SHOWN, 9)
    rows = {"without a key": plain.plain(latents)}
    for strength in strengths:
        party = Party(plain.model, plain.seed, strength)
        rows[f"strength {strength:g}"] = party.fingerprinted(latents, party.keys(1, 0))
    first, *_, marked = rows["without a key"], rows[f"strength {strengths[0]:g}"]
    change = (128 + 5 * (marked.int() - first.int())).clamp(0, 255).to(first.dtype)
    rows["difference x 5"] = change
    save_png(path, sheet({title: [("", p) for p in to_pil(x)] for title, x in rows.items()}))


def reading(scene: Scene) -> dict[str, float]:
    """What the owner reads from the same images, one by one, and how far they are from plain."""
    found = scene.owner.model.decode(scene.marked, search=False, progress=False)
    bits = np.repeat([key.bits for key in scene.victims], len(found) // VICTIMS, axis=0)
    plain = scene.owner.plain(scene.owner.latents(scene.images, 1))
    error = (plain.double() - scene.marked.double()).square().mean()
    named = log_p_soft(found.logits, bits) + np.log(ISSUED) <= np.log(FPR)
    pooled = found.logits.reshape(-1, POOLED, bits.shape[1]).sum(axis=1)
    together = log_p_soft(pooled, bits[::POOLED]) + np.log(ISSUED) <= np.log(FPR)
    return {
        "bit_accuracy": float((found.bits == bits).mean()),
        "named": float(named.mean()),
        "named_together": float(together.mean()),
        "psnr": float(10 * (255**2 / error).log10()),
    }


class Others(NamedTuple):
    """What else was trained, beside the owner's release."""

    shadows: list[Model]
    twin: Model | None
    shadow_twins: list[Model]


def others(options: argparse.Namespace, resolution: int) -> Others:
    """The adversary's releases and the twins of all.

    Raises:
        UserError: one draws images of another size, or a twin is missing or of none.
    """
    twins = len(options.shadow_twin)
    if twins != (len(options.shadow) if options.twin else 0):
        raise UserError(
            "--shadow-twin goes with --shadow and --twin, one for each shadow in the same order: "
            "give all, or leave it out"
        )

    def found(name: str, paths: Sequence[str]) -> list[Model]:
        models = [load_model(path) for path in paths]
        if any(model.config.resolution != resolution for model in models):
            raise UserError(
                f"--{name} draws images of another resolution: train one of the owner's"
            )
        return models

    (twin,) = found("twin", [options.twin]) if options.twin else [None]
    return Others(found("shadow", options.shadow), twin, found("shadow-twin", options.shadow_twin))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one release."""
    for option in ("images", "examples"):
        values = getattr(options, option)
        for value in values if isinstance(values, list) else [values]:
            if value % COPIES or value < 2 * COPIES:
                raise UserError(f"--{option} must be multiples of {COPIES} from {2 * COPIES} up")
    model = load_model(options.model)
    beside = others(options, model.config.resolution)
    training = Training(
        images=options.training_images, carriers=model.config.n_bits, seed=options.seed
    )
    settings = {n: getattr(options, n) for n in ("images", "training_images", "seed")}
    settings |= {n: content_digest(getattr(options, n)) for n in ("model", "twin")}
    settings |= {
        n: [content_digest(x) for x in getattr(options, n)] for n in ("shadow", "shadow_twin")
    }
    parts = EXPERIMENT.parts(options, settings)
    rows: list[dict[str, Any]] = []
    readings = []
    for strength in options.strengths:
        scene = Scene(
            model, beside.shadows, images=options.images, seed=options.seed, strength=strength,
            twin=beside.twin, shadow_twins=beside.shadow_twins,
        )  # fmt: skip
        name = "" if strength == FULL else f" at {strength:g}"
        work = {}
        for case in cases(options, strength):
            threat, count, detector = case
            part = partial(judged, scene, threat, count, detector, training)
            work[" ".join(map(str, case)) + name] = (case, part)
        found = parts.measure({title: part for title, (_, part) in work.items()}, "secrecy" + name)
        readings.append({"strength": strength, **reading(scene)})
        for title, (case, _) in work.items():
            fields = dict(zip(("threat", "examples", "detector"), case, strict=True))
            rows.append({"strength": strength, **fields, **found[title]})
    owner = Party(model, options.seed)
    draw_sheet(owner, options.strengths, options.out / f"{options.name}-pictures.png")
    return {
        "digest": model.digest,
        "twin": None if beside.twin is None else beside.twin.digest,
        "shadows": [shadow.digest for shadow in beside.shadows],
        "shadow_twins": [twin.digest for twin in beside.shadow_twins],
        "resolution": model.config.resolution,
        "n_bits": model.config.n_bits,
        "seed": options.seed,
        "images": options.images,
        "training_images": options.training_images,
        "readings": readings,
        "rows": rows,
    }


def cases(options: argparse.Namespace, strength: float) -> Iterator[tuple[str, int, str]]:
    """Adversary, examples and detector; weaker fingerprints meet most examples, and no network."""
    full = strength == FULL
    for threat in THREATS if options.shadow else THREATS[1:]:
        for count in options.examples if full and threat != "shadow" else options.examples[-1:]:
            for detector in options.detectors:
                if full or "network" not in detector:
                    yield threat, count, detector


EXPERIMENT = Experiment(Path(__file__).parent, measure, report, plots, named_by="model")


def main() -> None:
    parser = EXPERIMENT.parser(__doc__, in_parts=True)
    parser.add_argument("--model", default="emoji", help="the owner's: bundled name or path")
    parser.add_argument(
        "--shadow", nargs="*", default=[], metavar="RELEASE",
        help="the adversary's own, one or several; without it no shadow is measured",
    )  # fmt: skip
    parser.add_argument("--twin", help="the owner's without keys: trained with fingerprint=false")
    parser.add_argument(
        "--shadow-twin", nargs="*", default=[], metavar="RELEASE",
        help="the adversary's without keys, in the order of the shadows",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=1024, help="of each class to be judged")
    parser.add_argument(
        "--examples", type=int, nargs="+", default=[16, 64, 1024], help="of each class, to learn"
    )
    parser.add_argument(
        "--training-images", type=int, default=6400, help="that a network is trained on"
    )
    parser.add_argument(
        "--strengths", type=float, nargs="+", default=[FULL], help="of the fingerprint, 1 = trained"
    )
    parser.add_argument("--detectors", nargs="*", default=DETECTORS, choices=DETECTORS)
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
