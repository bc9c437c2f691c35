"""Are keys read by inversion from pictures of TAEF2's decoder, and do they stay with the picture?

    python experiments/inversion/invert.py --images photos256.zip

writes results.json and table.md beside this file. Photographs are decoded by instances
of the bundled release `taef2`, each under a key of its own, and read from files after what happens
to files. What was measured before it was stopped is kept in --parts.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from scalefp.data.images import to_float, to_uint8
from scalefp.evaluation.features import extract, mobilenet_features
from scalefp.evaluation.single_files import (
    drawn_key,
    file_of,
    inverting,
    mean,
    milliseconds_a_key,
    photographs,
    read_file,
)
from scalefp.experiment import Experiment, accuracy_rows, accuracy_table, content_digest
from scalefp.key import Key
from scalefp.metrics import Statistics, frechet_distance, psnr
from scalefp.perturb import PERTURBATIONS
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.pretrained.inversion import Inverter
from scalefp.pretrained.release import InvertingModel

SIDE = 256
# A copy fitted to a victim's pictures: rate of Adam, rounds, her pictures and those that are read.
FITTING_RATE, ROUNDS, HERS, FORGED = 3e-3, 30, 3, 2
# A copy that its recipient trains on: rate of Adam, dB to lose, steps between looks, most steps,
# photographs that are looked at and read.
TUNING_RATE, LOST, LOOK, MOST_STEPS, TUNED = 1e-5, 3.0, 2, 200, 2
COMPARED, PART, EACH = 192, 128, 16  # photographs a set for features, their sides, those of a key
KEYS_TIMED = 20
HALF = 0.5**0.5  # of the sides, which leaves half of the area

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def real(name: str, strength: float) -> Change:
    """One of the package's operations on files."""
    return lambda file, chance: PERTURBATIONS[name].apply(file, strength, chance)


def cut(file: Image.Image, chance: np.random.Generator) -> Image.Image:
    """Half of the area at any place, in its pixels as they are."""
    side = round(HALF * SIDE)
    left, top = (int(chance.integers(0, SIDE - side + 1)) for _ in range(2))
    return file.crop((left, top, left + side, top + side))


# What happens to a file, how, and the target for TAEF2.
POINTS: tuple[tuple[str, Change, float | None], ...] = (
    ("as it is", lambda file, chance: file, 0.99),
    ("JPEG 80", real("jpeg", 80), 0.98),
    ("JPEG 50", real("jpeg", 50), 0.95),
    ("half size and back", real("resize", 0.5), 0.97),
    ("crop to half the area", cut, 0.95),
    ("crop to half the area, JPEG 80",
     lambda file, chance: real("jpeg", 80)(cut(file, chance), chance), None),
    ("rotated by 10 degrees", real("rotation", 10), 0.90),
    ("noise of 0.1", real("noise", 0.1), None),
)  # fmt: skip


class Shown:
    """A photograph as a recipient decodes it."""

    def __init__(self, model: InvertingModel, photo: Tensor, key: Key) -> None:
        self.model, self.key = model, key
        self.original = model.reconstruct(photo)
        self.made = to_float(to_uint8(model.instantiate(key).reconstruct(photo)))

    def after(self, change: Change, seed: int) -> dict[str, float]:
        """What is read of its file after a change, and the dB that the key cost."""
        file = change(file_of(self.made), np.random.default_rng(seed))
        fidelity = float(psnr(self.made, self.original)[0])
        return {"psnr": fidelity, **read_file(self.model, file, self.key)}

    def lifted(self, photo: Tensor) -> dict[str, float]:
        """What is read of another photograph on which somebody laid exactly what the key changed of
        this one."""
        laid = self.model.reconstruct(photo) + self.made - self.original
        return read_file(self.model, file_of(laid.clamp(-1, 1)), self.key)


def large(model: InvertingModel, photos: Sequence[Tensor], seed: int) -> Any:
    """What is read of a mosaic of four photographs, of twice the side."""
    rows = [torch.cat([*photos[n : n + 2]], dim=3) for n in (0, 2)]
    whole, key = torch.cat(rows, dim=2), drawn_key(model.n_bits, seed, 1000)
    return Shown(model, whole, key).after(lambda file, chance: file, seed)


def fitted(model: InvertingModel, pictures: Tensor, rounds: int) -> PretrainedInstance:
    """A copy made by somebody who has nothing but a victim's pictures [b, 3, H, W] and the original
    autoencoder: the layer that keys change, fitted until it makes these pictures, by Adam."""
    network = copy.deepcopy(model.parent.network)
    layer = network.get_submodule(model.parent.names[0])
    weights = list(layer.requires_grad_(True).parameters())
    optimizer = torch.optim.Adam(weights, lr=FITTING_RATE)
    inverter = model.inverter
    assert isinstance(inverter, Inverter)
    latents = [inverter.encoder(one[None]) for one in pictures]
    for _ in range(rounds):
        for one, seen in zip(latents, pictures, strict=True):
            left = (inverter.pictures.of(network(one)) - seen).square().mean()
            optimizer.zero_grad()
            left.backward()
            optimizer.step()
    network.requires_grad_(False)
    return PretrainedInstance(network, model.origin, model.resolution)


def forged(model: InvertingModel, photos: Sequence[Tensor], seed: int) -> list[dict[str, float]]:
    """What names a victim in pictures of a copy that was fitted to a few of hers; she made them of
    the first photographs, and the copy is tried on the others."""
    key = drawn_key(model.n_bits, seed, 2000)
    hers = model.instantiate(key)
    pictures = torch.cat([to_float(to_uint8(hers.reconstruct(one))) for one in photos[:HERS]])
    forger = fitted(model, pictures, ROUNDS)
    return [read_file(model, file_of(forger.reconstruct(photo)), key) for photo in photos[HERS:]]


def trained_on(model: InvertingModel, photos: Sequence[Tensor], seed: int) -> dict[str, Any]:
    """What is read after a recipient trained his whole decoder on photographs to make them again,
    by Adam on their pixels, until his pictures lie 3 dB further from the original's.

    The first photographs are looked at, on the others it is trained.
    """
    key = drawn_key(model.n_bits, seed, 3000)
    instance, inverter = model.instantiate(key), model.inverter
    assert isinstance(inverter, Inverter)
    shown, rest = photos[:TUNED], photos[TUNED:]
    originals = [model.reconstruct(one) for one in shown]

    def away() -> float:
        made = [instance.reconstruct(one) for one in shown]
        return float(np.mean([psnr(a, b) for a, b in zip(made, originals, strict=True)]))

    network: nn.Module = instance.network
    begun = reached = away()
    optimizer, steps = torch.optim.Adam(network.requires_grad_(True).parameters(), TUNING_RATE), 0
    while steps < MOST_STEPS and reached > begun - LOST:
        for _ in range(LOOK):
            one = rest[steps % len(rest)]
            left = (inverter.pictures.of(network(inverter.encoder(one))) - one).square().mean()
            optimizer.zero_grad()
            left.backward()
            optimizer.step()
            steps += 1
        with torch.no_grad():
            reached = away()
    network.requires_grad_(False)
    files = [file_of(instance.reconstruct(one)) for one in shown]
    found = [read_file(model, file, key) for file in files]
    return {"steps": steps, "psnr": reached, "psnr_before": begun, "read": found}


def features(model: InvertingModel, photos: Sequence[Tensor], seed: int) -> dict[str, Any]:
    """Fréchet distance of features to the original's pictures of the first half of the photographs:
    of the original's pictures of the other half (``spread``), and of recipients' ones."""
    extractor, half = mobilenet_features(), len(photos) // 2

    def statistics(made: list[Tensor]) -> Statistics:
        return Statistics.of(extract(extractor, torch.cat([to_uint8(one) for one in made])))

    reference = statistics([model.reconstruct(one) for one in photos[:half]])
    spread = statistics([model.reconstruct(one) for one in photos[half:]])
    copies = [
        model.instantiate(drawn_key(model.n_bits, seed, 4000 + n)) for n in range(half // EACH + 1)
    ]
    keyed = statistics([copies[n // EACH].reconstruct(one) for n, one in enumerate(photos[half:])])
    return {
        "extractor": extractor.name, "images": half, "side": PART,
        "spread": frechet_distance(spread, reference),
        "distance": frechet_distance(keyed, reference),
    }  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Bits read from pictures of keys of their own, and from others on which a key was laid."""
    model = inverting(options.release, drawn=False)
    source, seed = options.images, options.seed
    photos = photographs(source, max(options.pictures + 1, 4), seed, SIDE)
    others = photographs(source, HERS + max(FORGED, TUNED + 3), seed + 1, SIDE)
    settings = {"release": model.digest, "images": content_digest(source), "seed": seed}

    def shown(number: int) -> Shown:
        return Shown(model, photos[number], drawn_key(model.n_bits, seed, number))

    def after(number: int, change: Change) -> dict[str, float]:
        return shown(number).after(change, seed)

    def lifted(number: int) -> dict[str, float]:
        return shown(number).lifted(photos[number + 1])

    numbers = range(options.pictures)
    parts = EXPERIMENT.parts(options, settings)
    timed = [drawn_key(model.n_bits, 5000 + n) for n in range(KEYS_TIMED)]
    figures: dict[str, Callable[[], Any]] = {
        "key": partial(milliseconds_a_key, model, timed),
        "features": lambda: features(
            model, photographs(source, 2 * COMPARED, seed + 2, PART), seed
        ),
        "trained on": lambda: trained_on(model, others, seed),
        "large": lambda: large(model, photos, seed),
        "fitted": lambda: forged(model, others[: HERS + FORGED], seed),
        **{f"lifted, {n}": partial(lifted, n) for n in numbers},
    }
    readings = {
        f"{what}, {n}": partial(after, n, change) for n in numbers for what, change, _ in POINTS
    }
    found = parts.measure(readings | figures, "invert")
    by_what = {what: [found[f"{what}, {n}"] for n in numbers] for what, *_ in POINTS}
    laid = [found[f"lifted, {n}"] for n in numbers]
    targets = {what: target for what, _, target in POINTS}
    fidelity = [one["psnr"] for one in by_what["as it is"]]
    everything = {**by_what, "lifted": laid, "fitted copy": found["fitted"],
                  "trained on": found["trained on"]["read"]}  # fmt: skip
    return {
        "n_bits": model.n_bits, "side": SIDE, "pictures": options.pictures, "seed": seed,
        "release": model.digest, "steps": model.config.steps,
        "psnr": float(np.mean(fidelity)), "psnr_low5": float(np.quantile(fidelity, 0.05)),
        "lifted": mean(laid), "lifted_most": max(one["right"] for one in laid),
        "fitted": mean(found["fitted"]), "fitted_from": HERS,
        "named": {what: mean(readings, "named") for what, readings in everything.items()},
        "milliseconds_a_key": found["key"], "large": found["large"],
        "features": found["features"], "trained_on": found["trained on"],
        "rows": accuracy_rows(
            {what: [one["right"] for one in readings] for what, readings in by_what.items()},
            targets,
        ),
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """The rows as Markdown."""
    named = "; ".join(f"{what} {share:.0%}" for what, share in results["named"].items())
    note = (
        f"{results['n_bits']} bits, {results['pictures']} photographs of {results['side']} pixels, "
        f"each under a key of its own, as 8-bit files, {results['steps']} steps. To the original's "
        f"pictures {results['psnr']:.1f} dB (5% below {results['psnr_low5']:.1f}); target 36. What "
        f"a key changed of one picture, laid on the next: {results['lifted']:.3f} of its bits are "
        f"read, {results['lifted_most']:.3f} at the most (.5 is chance). A copy fitted to "
        f"{results['fitted_from']} pictures of a victim: {results['fitted']:.3f} of her bits are "
        "read from its pictures."
    )
    parts = [accuracy_table(results["rows"]), note, *further(results)]
    return (
        "\n\n".join([*parts, f"Named among 10^6 keys at fpr 1e-6, single files: {named}."]) + "\n"
    )


def further(results: dict[str, Any]) -> list[str]:
    """What is said of keys, large pictures, features and training, as far as it was measured."""
    said = [f"A key takes {results['milliseconds_a_key']:.0f} ms of a processor; target 10."]
    if (large := results.get("large")) is not None:
        said.append(
            f"A mosaic of four photographs, of {2 * results['side']} pixels: "
            f"{large['right']:.3f} at {large['psnr']:.1f} dB."
        )
    if (tuned := results.get("trained_on")) is not None:
        said.append(
            f"A copy trained on for {tuned['steps']} steps, from {tuned['psnr_before']:.1f} to "
            f"{tuned['psnr']:.1f} dB to the original's pictures: {mean(tuned['read']):.3f} of its "
            "bits are read."
        )
    if (apart := results.get("features")) is not None:
        said.append(
            f"Fréchet distance of features ({apart['extractor']}; {apart['images']} photographs of "
            f"{apart['side']} pixels) from the original's pictures of others: "
            f"{apart['spread']:.2f} of the original's, {apart['distance']:.2f} of recipients' "
            f"({apart['distance'] / apart['spread']:.3f} times that; target 1.1)."
        )
    return said


EXPERIMENT = Experiment(Path(__file__).parent, measure, table)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__, in_parts=True)
    parser.add_argument("--release", default="taef2", help="bundled name or file")
    parser.add_argument("--images", required=True, help="folder or zip of photographs")
    parser.add_argument("--pictures", type=int, default=6)
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
