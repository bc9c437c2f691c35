"""Does a fingerprint that is bound to its picture stay with it, and who can still lay it on others?

    scalefp instantiate --model emoji --key 0123456789abcdef0123456789abcdef --out plain.safetensors
    scalefp train experiment=bound
    python experiments/binding/bind.py --release runs/bound/release.safetensors

writes results.json, table.md and pictures.png beside this file, or to --out. A recipient has
pictures of another's copy, and a copy of his own. He lays on pictures of his what her key changes,
as in experiments/lifting/, or fits his copy to her pictures. To read a picture takes a minute of a
core.
"""

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scalefp.attribution.evidence import log_p_soft
from scalefp.data.images import to_float, to_pil, to_uint8
from scalefp.evaluation.redrawing import nearest_inputs, redrawn
from scalefp.evaluation.single_files import inverting
from scalefp.experiment import Experiment, markdown_table
from scalefp.key import Key
from scalefp.metrics import psnr
from scalefp.perturb import PERTURBATIONS
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.pretrained.release import InvertingModel

ISSUED, FPR = 10**6, 1e-6  # keys among which one is named, and how often an innocent one is
REDRAWING = 100  # steps on a latent
FITTING, FITTING_RATE = 200, 1e-3  # steps on the weights of a copy, and on latents along with them


# What happens to a file, the perturbation and its strength.
POINTS: tuple[tuple[str, str | None, float], ...] = (
    ("as it is", None, 0),
    ("JPEG 50", "jpeg", 50),
    ("half size and back", "resize", 0.5),
    ("noise of 0.1", "noise", 0.1),
)


class Readings:
    """How one kind of picture after another is read, and shown."""

    def __init__(self, model: InvertingModel, kinds: int, each: int) -> None:
        self.model, self.rows = model, list[dict[str, Any]]()
        self.shown: list[Tensor] = []
        self.bar = tqdm(total=kinds * each, desc="read", unit="file")

    def _key(self, logits: np.ndarray, keys: list[Key]) -> dict[str, float]:
        """Share of the bits of keys that are read, and of pictures of which they are named."""
        bits = np.stack([key.bits for key in keys])
        p = [np.exp(log_p_soft(one[None], b[None])[0]) for one, b in zip(logits, bits, strict=True)]
        right = ((logits > 0) == (bits > 0)).mean()
        return {"bits": float(right), "named": float(np.mean(np.array(p) * ISSUED <= FPR))}

    def add(
        self, what: str, files: list[Image.Image], hers: list[Key], his: Key | None = None,
        before: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Read files that may name her or him.

        Args:
            hers: of each file the key that is looked for.
            before: what the files were made from, [b, 3, R, R] in [-1, 1].
        """
        logits = []
        for file in files:
            logits.append(self.model.decode(file, progress=False).logits[0])
            self.bar.update()
        read = np.stack(logits)
        pixels = torch.stack([torch.from_numpy(np.array(f)).permute(2, 0, 1) for f in files])
        row: dict[str, Any] = {"what": what, "hers": self._key(read, hers)}
        if his is not None:
            row["his"] = self._key(read, [his] * len(files))
        if before is not None:
            row["psnr"] = float(np.mean(psnr(to_float(pixels), before).tolist()))
        self.rows.append(row)
        self.shown.append(pixels)


def fitted(
    copied: PretrainedInstance, layer: str, pictures: Tensor, latents: Tensor
) -> PretrainedInstance:
    """His copy after its keyed layer was fitted to pictures [b, 3, R, R] of hers, by Adam, latents
    [b, dz] along with it from where his copy draws nearly these pictures."""
    network = copy.deepcopy(copied.network)
    weights = list(network.get_submodule(layer).requires_grad_(True).parameters())
    found = latents.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([*weights, found], lr=FITTING_RATE)
    changed = copied.around(network)
    for step in tqdm(range(FITTING), desc=f"fit a copy to {len(pictures)}", unit="step"):
        some = torch.arange(8 * step, 8 * step + min(8, len(pictures))) % len(pictures)
        left = (changed(found[some]) - pictures[some]).square().mean()
        optimizer.zero_grad()
        left.backward()
        optimizer.step()
    network.requires_grad_(False)
    return changed


class Attack:
    """A victim's pictures, another recipient's copy and pictures, and what he makes of them."""

    def __init__(self, model: InvertingModel, each: int, many: int, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self.keys = [Key.from_bits(chance.integers(0, 2, model.n_bits)) for _ in range(2)]
        self.her_copy, self.his_copy = map(model.instantiate, self.keys)
        self.source = torch.Generator().manual_seed(seed)
        self.many = many
        draw = partial(self.her_copy.inputs, source=self.source)
        with torch.no_grad():
            self.hers = self.pictures_of(self.her_copy, draw(each))
            self.drawn = draw(each)
            self.his = self.pictures_of(self.his_copy, self.drawn)
            self.mean = self._mean(self.her_copy, draw) - self._mean(self.his_copy, draw)
            latents = draw(each)
            self.exact = self.her_copy(latents) - self.his_copy(latents)

    @staticmethod
    def pictures_of(copied: PretrainedInstance, latents: Tensor) -> Tensor:
        """As 8-bit files hold them."""
        return to_float(to_uint8(copied(latents)))

    def _mean(self, copied: PretrainedInstance, draw: Callable[[int], Tensor]) -> Tensor:
        """Of many pictures of a copy."""
        parts = [8] * (self.many // 8)
        bar = tqdm(parts, desc=f"{self.many} pictures", unit="batch", delay=2)
        return torch.stack([self.pictures_of(copied, draw(n)).mean(dim=0) for n in bar]).mean(dim=0)


def files_of(pictures: Tensor) -> list[Image.Image]:
    """Pictures [b, 3, R, R] in [-1, 1] as 8-bit files."""
    return to_pil(to_uint8(pictures.clamp(-1, 1)))


def survive(attack: Attack, readings: Readings) -> None:
    """Read her pictures after what happens to files."""
    chance, hers = np.random.default_rng(0), [attack.keys[0]] * len(attack.hers)
    for what, name, strength in POINTS:
        files = files_of(attack.hers)
        if name is not None:
            files = [PERTURBATIONS[name].apply(file, strength, chance) for file in files]
        readings.add(what, files, hers)


def lift(model: InvertingModel, attack: Attack, readings: Readings, sizes: list[int]) -> None:
    """Read his pictures with her key laid on, and those of his copy fitted to hers."""
    (her_key, his_key), his = attack.keys, attack.his
    hers = [her_key] * len(his)
    one = attack.hers
    again = redrawn(attack.his_copy, one, attack.drawn.flip(0), steps=REDRAWING)
    for what, change in (
        ("what her key changed of another picture, exactly", attack.exact),
        ("one picture of hers, less what his copy makes of it", one - again),
        (f"twice the mean of {attack.many}, less that of as many of his", 2 * attack.mean),
    ):
        laid = his + change
        readings.add(f"laid on his pictures: {what}", files_of(laid), hers, his_key, his)
    washed = one - attack.mean
    what = f"taken off her pictures: the mean of {attack.many}, less that of his"
    readings.add(what, files_of(washed), hers, his_key, one)
    with torch.no_grad():
        latents = attack.her_copy.inputs(max(sizes), attack.source)
        more = attack.pictures_of(attack.her_copy, latents)
    drawn = attack.his_copy.inputs(len(more), attack.source)
    latents = nearest_inputs(attack.his_copy, more, drawn, steps=REDRAWING)
    for size in sizes:
        forger = fitted(attack.his_copy, model.parent.names[0], more[:size], latents[:size])
        with torch.no_grad():
            made = forger(attack.drawn)
        what = f"made by his copy, fitted to {size} of her pictures"
        readings.add(what, files_of(made), hers, his_key, his)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Her key, and his, as they are read from all these pictures."""
    model = inverting(options.release, drawn=True)
    attack = Attack(model, options.pictures, options.many, options.seed)
    readings = Readings(model, len(POINTS) + 4 + len(options.fitted), options.pictures)
    survive(attack, readings)
    lift(model, attack, readings, options.fitted)
    readings.bar.close()
    height, width = readings.shown[0].shape[2:]
    sheet = torch.stack([row[:4] for row in readings.shown])  # [kinds, 4, 3, R, R]
    pixels = sheet.permute(0, 3, 1, 4, 2).reshape(len(sheet) * height, -1, 3)
    Image.fromarray(pixels.numpy()).save(options.out / "pictures.png")
    with torch.no_grad():
        plain = model.original(attack.drawn)
    return {
        "n_bits": model.n_bits, "side": model.resolution, "pictures": options.pictures,
        "release": model.digest, "seed": options.seed, "steps": model.config.steps,
        "starts": model.config.starts, "rounds": model.config.rounds,
        "psnr": float(np.mean(psnr(attack.his, plain.clamp(-1, 1)).tolist())),
        "rows": readings.rows,
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """The rows as Markdown."""

    def cells(read: dict[str, float] | None) -> list[str]:
        return ["", ""] if read is None else [f"{read['bits']:.3f}", f"{read['named']:.0%}"]

    rows = [
        [
            row["what"], *cells(row["hers"]), *cells(row.get("his")),
            f"{row['psnr']:.1f}" if "psnr" in row else "",
        ]
        for row in results["rows"]
    ]  # fmt: skip
    head = ["pictures", "her bits", "she named", "his bits", "he named", "dB to the picture before"]
    note = (
        f"{results['n_bits']} bits, {results['pictures']} pictures of {results['side']} pixels in "
        f"each row, as 8-bit files; a copy's pictures are at {results['psnr']:.1f} dB to the "
        f"original's. Read from {results['starts']} starts in {results['steps']} steps and "
        f"{results['rounds']} rounds. Named among 10^6 keys at fpr 1e-6, single files."
    )
    return f"{markdown_table(head, rows, range(1, 6))}\n\n{note}\n"


EXPERIMENT = Experiment(Path(__file__).parent, measure, table)


def main() -> None:
    """Measure a release of experiment=bound, and write results, table and pictures."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--release", required=True, help="file that experiment=bound wrote")
    parser.add_argument("--pictures", type=int, default=4, help="that are read in each row")
    parser.add_argument("--many", type=int, default=256, help="whose mean is taken")
    parser.add_argument(
        "--fitted",
        type=int,
        nargs="+",
        default=[1, 4, 16],
        help="pictures that a copy is fitted to",
    )
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
