"""Can 128 bits be read from a decoder's pictures, without training, by encoding them again?

    python experiments/content-bound/read_again.py --taef2 FOLDER --images photos256.zip

writes results.json and table.md beside this file. A key changes the weights of the last layer of
TAEF2's decoder; the reader encodes and decodes the picture, and asks which change of these weights
explains best what is left of it. Nothing is trained.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.data.images import to_float, to_pil, to_uint8
from scalefp.data.source import Source, resolve_source
from scalefp.errors import UserError
from scalefp.experiment import Experiment, accuracy_rows, accuracy_table
from scalefp.metrics import psnr
from scalefp.perturb import PERTURBATIONS
from scalefp.pretrained.taef2 import load_taef2

N_BITS = 128
SIDE = 256
LUMA = (0.299, 0.587, 0.114)  # in this direction of colour a key changes pictures
FITTED = 24  # pictures whose features decide along which directions
# Directions of the last layer's input, from the strongest: those before are few and coarse, those
# behind are fine, and what files and autoencoders lose.
FIRST = 296
SMALLEST = 1e-7  # of the variances along directions, beside the largest
RIDGE = 0.02  # of the least squares, beside the mean variance
# What happens to a file, the perturbation and its strength, and the target for TAEF2.
POINTS: tuple[tuple[str, str | None, float, float | None], ...] = (
    ("as it is", None, 0, 0.99),
    ("JPEG 80", "jpeg", 80, 0.98),
    ("JPEG 50", "jpeg", 50, 0.95),
    ("half size and back", "resize", 0.5, 0.97),
    ("noise of 0.1", "noise", 0.1, None),
)


@dataclass
class Coder:
    """TAEF2, taken apart before its last layer. Pictures are [1, 3, H, W] in [0, 1]."""

    encoder: nn.Module
    body: nn.Module  # of the decoder
    last: nn.Conv2d

    def features(self, picture: Tensor) -> Tensor:
        """What the last layer gets for each pixel of the picture decoded again, [576, H W]."""
        inside: Tensor = self.body(self.encoder(picture))
        return F.unfold(inside, 3, padding=1)[0]

    def colours(self, features: Tensor) -> Tensor:
        """What the last layer makes of them, [3, H W]."""
        assert self.last.bias is not None
        return self.last.weight.flatten(1) @ features + self.last.bias[:, None]


def load(folder: Path) -> Coder:
    """TAEF2 from its two published files."""
    encoder, decoder = load_taef2(folder)
    *body, last = decoder.children()
    assert isinstance(last, nn.Conv2d)
    return Coder(encoder, nn.Sequential(*body), last)


def rounded(colours: Tensor, side: int) -> Tensor:
    """Colours [3, H W] in [0, 1] as a picture of 8 bits, [1, 3, H, W]."""
    return (colours.clamp(0, 1) * 255).round().div(255).view(1, 3, side, side)


def basis(coder: Coder, pictures: Tensor) -> Tensor:
    """Directions [576, 576] along which the features of pictures have mean square 1, apart from
    each other; from the weakest to the strongest."""
    gram = torch.zeros(576, 576)
    for picture in tqdm(pictures, desc="directions", unit="img"):
        features = coder.features(picture[None])
        gram += features @ features.T / features.shape[1] / len(pictures)
    variances, directions = torch.linalg.eigh(gram)
    along: Tensor = (directions / variances.clamp_min(variances[-1] * SMALLEST).sqrt()).T
    return along


def read(coder: Coder, directions: Tensor, picture: Tensor) -> Tensor:
    """How far the last layer was moved along each direction, [576], by least squares."""
    features = coder.features(picture)
    left = picture[0].flatten(1) - coder.colours(features)
    luma = torch.tensor(LUMA)
    along = directions @ features
    gram = along @ along.T / along.shape[1]
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    moved: Tensor = torch.linalg.solve(gram, along @ (luma @ left) / along.shape[1])
    return moved


def changed(file: Image.Image, name: str | None, strength: float) -> Tensor:
    """A picture after one of the table's real operations."""
    if name is not None:
        file = PERTURBATIONS[name].apply(file, strength, np.random.default_rng(0))
    pixels = torch.from_numpy(np.asarray(file.convert("RGB")).copy()).permute(2, 0, 1)
    return (to_float(pixels[None]) + 1) / 2


def photographs(source: str, count: int, seed: int) -> Tensor:
    """Middles of pictures drawn by the seed, [count, 3, SIDE, SIDE] in [0, 1]."""
    pictures = Source(resolve_source(source))
    found: list[Tensor] = []
    for index in np.random.default_rng(seed).permutation(len(pictures.names)):
        pixels = np.array(pictures.read(int(index)))
        top, left = ((side - SIDE) // 2 for side in pixels.shape[:2])
        if min(top, left) >= 0:
            cut = pixels[top : top + SIDE, left : left + SIDE]
            found.append(torch.from_numpy(cut).permute(2, 0, 1).float() / 255)
        if len(found) == count:
            return torch.stack(found)
    raise UserError(f"{source} has {len(found)} pictures of {SIDE} pixels, and {count} are needed")


@torch.inference_mode()
def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Bits read from pictures of keys of their own, and from others on which a key was laid."""
    coder = load(options.taef2)
    photos = photographs(options.images, FITTED + options.pictures, options.seed)
    directions = basis(coder, photos[:FITTED])
    used = slice(FIRST - N_BITS, FIRST)
    luma = torch.tensor(LUMA)
    # Each bit moves the weights by as much; together they change pictures by --psnr on the average.
    amount = 10 ** (-options.psnr / 20) / (N_BITS * luma.square().mean()).sqrt()
    chance = torch.Generator().manual_seed(options.seed)
    right: dict[str, list[float]] = {what: [] for what, *_ in POINTS}
    lifted: list[float] = []
    fidelity: list[float] = []
    before: tuple[Tensor, Tensor] | None = None  # what a key changed of the last picture, the key
    for photo in tqdm(photos[FITTED:], desc="read", unit="img"):
        signs = torch.randint(0, 2, (N_BITS,), generator=chance).float() * 2 - 1
        features = coder.features(photo[None])
        original = coder.colours(features)
        change = luma[:, None] * (amount * signs @ directions[used] @ features)
        made = rounded(original + change, SIDE)
        whole = made * 2 - 1
        fidelity += psnr(whole, original.clamp(0, 1).view_as(made) * 2 - 1).tolist()
        file = to_pil(to_uint8(whole))[0]

        def agreeing(picture: Tensor, signs: Tensor) -> float:
            logits = read(coder, directions, picture)[used]
            return float((logits * signs > 0).float().mean())

        for what, name, strength, _ in POINTS:
            right[what].append(agreeing(changed(file, name, strength), signs))
        if before is not None:  # an attacker who knows exactly what her key changed of one picture
            lifted.append(agreeing(rounded(original + before[0], SIDE), before[1]))
        before = change, signs
    return {
        "n_bits": N_BITS, "side": SIDE, "pictures": options.pictures, "seed": options.seed,
        "psnr": float(np.mean(fidelity)), "psnr_low5": float(np.quantile(fidelity, 0.05)),
        "lifted": float(np.mean(lifted)),
        "rows": accuracy_rows(right, {what: target for what, _, _, target in POINTS}),
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """The rows as Markdown."""
    note = (
        f"{results['n_bits']} bits, {results['pictures']} photographs of {results['side']} pixels, "
        f"each under a key of its own, as 8-bit files. To the original's pictures "
        f"{results['psnr']:.1f} dB (5% below {results['psnr_low5']:.1f}); target 36. What a key "
        f"changed of one picture, laid on the next: {results['lifted']:.3f} of its bits are read "
        "(.5 is chance)."
    )
    return f"{accuracy_table(results['rows'])}\n\n{note}\n"


EXPERIMENT = Experiment(Path(__file__).parent, measure, table)


def main() -> None:
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--taef2", type=Path, required=True, help="folder of its two files")
    parser.add_argument("--images", required=True, help="folder or zip of photographs")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--psnr", type=float, default=36, help="of what a key changes, on average")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
