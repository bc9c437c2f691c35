"""Are keys read by inversion from pictures of TAEF2's decoder, and do they stay with the picture?

    python experiments/inversion/invert.py --images photos256.zip

writes results.json and table.md beside this file. Photographs are decoded by instances
of the bundled release `taef2`, each under a key of its own, and read from files after what happens
to files.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scalefp.attribution.evidence import log_p_soft
from scalefp.data.images import to_float, to_pil, to_uint8
from scalefp.data.source import Source, resolve_source
from scalefp.errors import UserError
from scalefp.experiment import Experiment, accuracy_rows, accuracy_table
from scalefp.key import Key
from scalefp.loading import load_generating
from scalefp.metrics import psnr
from scalefp.perturb import PERTURBATIONS
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.pretrained.inversion import Inverter
from scalefp.pretrained.release import InvertingModel

SIDE = 256
ISSUED, FPR = 10**6, 1e-6  # keys among which one is named, and how often an innocent one is
FITTING_RATE, ROUNDS = 3e-3, 30  # of the copy fitted to a victim's pictures
# What happens to a file, the perturbation and its strength, and the target for TAEF2.
POINTS: tuple[tuple[str, str | None, float, float | None], ...] = (
    ("as it is", None, 0, 0.99),
    ("JPEG 80", "jpeg", 80, 0.98),
    ("JPEG 50", "jpeg", 50, 0.95),
    ("half size and back", "resize", 0.5, 0.97),
    ("noise of 0.1", "noise", 0.1, None),
)


def photographs(source: str, count: int, seed: int) -> list[Tensor]:
    """Middles of pictures drawn by the seed, each [1, 3, SIDE, SIDE] in [-1, 1]."""
    pictures = Source(resolve_source(source))
    found: list[Tensor] = []
    for index in np.random.default_rng(seed).permutation(len(pictures.names)):
        pixels = torch.from_numpy(np.array(pictures.read(int(index)))).permute(2, 0, 1)
        top, left = ((side - SIDE) // 2 for side in pixels.shape[1:])
        if min(top, left) >= 0:
            found.append(to_float(pixels[None, :, top : top + SIDE, left : left + SIDE]))
        if len(found) == count:
            return found
    raise UserError(f"{source} has {len(found)} pictures of {SIDE} pixels, and {count} are needed")


def changed(file: Image.Image, name: str | None, strength: float) -> Image.Image:
    """A file after one of the table's real operations."""
    if name is None:
        return file
    return PERTURBATIONS[name].apply(file, strength, np.random.default_rng(0))


class Readings:
    """Bits read right and evidence, by what happened to the file."""

    def __init__(self, model: InvertingModel) -> None:
        self.model = model
        self.right: dict[str, list[float]] = {}
        self.named: dict[str, list[float]] = {}

    def add(self, what: str, file: Image.Image, key: Key) -> None:
        """Read a file that was made under a key."""
        reading = self.model.decode(file, progress=False)
        p = float(np.exp(log_p_soft(reading.logits, key.bits[None])[0]))
        self.right.setdefault(what, []).append(float((reading.bits[0] == key.bits).mean()))
        self.named.setdefault(what, []).append(float(p * ISSUED <= FPR))


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
    for _ in tqdm(range(rounds), desc="fit a copy", unit="round"):
        for one, seen in zip(latents, pictures, strict=True):
            left = (inverter.pictures.of(network(one)) - seen).square().mean()
            optimizer.zero_grad()
            left.backward()
            optimizer.step()
    network.requires_grad_(False)
    return PretrainedInstance(network, model.origin, model.resolution)


def forge(model: InvertingModel, photos: list[Tensor], readings: Readings) -> None:
    """Read the victim's key from new pictures of a fitted copy; from half of the photographs
    she made pictures, on the others it is tried."""
    key = Key.from_bits(np.random.default_rng(1).integers(0, 2, model.n_bits))
    hers = model.instantiate(key)
    half = len(photos) // 2
    pictures = torch.cat([to_float(to_uint8(hers.reconstruct(one))) for one in photos[:half]])
    forger = fitted(model, pictures, ROUNDS)
    for photo in tqdm(photos[half:], desc="read forgeries", unit="file"):
        file = to_pil(to_uint8(forger.reconstruct(photo)))[0]
        readings.add("fitted copy", file, key)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Bits read from pictures of keys of their own, and from others on which a key was laid."""
    model = load_generating(options.release)
    if not isinstance(model, InvertingModel) or model.config.starts:
        raise UserError(f"{options.release} does not read encoded pictures by inversion")
    photos = photographs(options.images, options.pictures, options.seed)
    chance, readings = np.random.default_rng(options.seed), Readings(model)
    fidelity: list[float] = []
    before: tuple[Tensor, Key] | None = None  # what a key changed of the last picture, the key
    per_picture = len(POINTS) + 1
    with tqdm(total=len(photos) * per_picture, desc="read", unit="file") as bar:
        for photo in photos:
            key = Key.from_bits(chance.integers(0, 2, model.n_bits))
            original = model.reconstruct(photo)
            made = to_uint8(model.instantiate(key).reconstruct(photo))
            change = to_float(made) - original
            fidelity += psnr(to_float(made), original).tolist()
            file = to_pil(made)[0]
            for what, name, strength, _ in POINTS:
                readings.add(what, changed(file, name, strength), key)
                bar.update()
            if before is not None:  # by somebody who knows exactly what her key changed of one
                laid = to_pil(to_uint8((original + before[0]).clamp(-1, 1)))[0]
                readings.add("lifted", laid, before[1])
            bar.update()
            before = change, key
    forge(model, photos, readings)
    lifted, forged = readings.right.pop("lifted"), readings.right.pop("fitted copy")
    named = {what: float(np.mean(shares)) for what, shares in readings.named.items()}
    return {
        "n_bits": model.n_bits, "side": SIDE, "pictures": options.pictures, "seed": options.seed,
        "release": model.digest, "steps": model.config.steps,
        "psnr": float(np.mean(fidelity)), "psnr_low5": float(np.quantile(fidelity, 0.05)),
        "lifted": float(np.mean(lifted)), "lifted_most": max(lifted),
        "fitted": float(np.mean(forged)), "fitted_from": len(photos) // 2, "named": named,
        "rows": accuracy_rows(readings.right, {what: target for what, _, _, target in POINTS}),
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
    return (
        f"{accuracy_table(results['rows'])}\n\n{note}\n\nNamed among 10^6 keys at fpr 1e-6, "
        f"single files: {named}.\n"
    )


EXPERIMENT = Experiment(Path(__file__).parent, measure, table)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--release", default="taef2", help="bundled name or file")
    parser.add_argument("--images", required=True, help="folder or zip of photographs")
    parser.add_argument("--pictures", type=int, default=6)
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
