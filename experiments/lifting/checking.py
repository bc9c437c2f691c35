"""Does a lift check tell a holder's own pictures from those that her fingerprint was laid on?

    scalefp release bind emoji --out bound.safetensors
    python experiments/lifting/checking.py --model bound.safetensors

writes checks.json, checks.md and checks.png beside this file, or to --out. A recipient has pictures
of another's copy, and a copy of his own. He does what worked against the bundled release, and what
nobody can do: he adds exactly what her copy makes of a latent and his does not. Or he trains all
weights of his copy until it makes her pictures. Every picture that names her is held against the
bits that are bound to pictures of her copy, which takes half a minute of a core.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.attribution.evidence import log_p_soft
from scalefp.data.images import grid, to_float, to_pil, to_uint8
from scalefp.evaluation.redrawing import nearest_inputs, redrawn
from scalefp.experiment import Experiment, made, markdown_table
from scalefp.key import Key
from scalefp.loading import load_model
from scalefp.metrics import psnr
from scalefp.perturb import PERTURBATIONS
from scalefp.pretrained.binding import without_bound_bits
from scalefp.pretrained.checking import binding_of, lift_check
from scalefp.release.instance import Instance
from scalefp.release.model import Model

ISSUED, FPR = 10**6, 1e-6  # keys among which one is named, and how often an innocent one is
CHANGES: list[tuple[str, str | None, float]] = [
    ("as they are", None, 0),
    ("JPEG 50", "jpeg", 50),
    ("noise of 0.1", "noise", 0.1),
    ("half size and back", "resize", 0.5),
]
REDRAWING = 100  # steps on a latent
FITTING, AT_ONCE = 200, 8  # steps on a copy, and pictures in each
WEIGHTS_RATE, LATENTS_RATE = 1e-4, 1e-2  # with ten times the first it draws nothing any more
PAIRS = 8  # keys whose pictures are made with bound bits and without
SHEET = "checks.png"
Draw = Callable[[int], Tensor]  # so many latents [n, dz]


def files_of(pictures: Tensor) -> list[Image.Image]:
    """Pictures [b, 3, R, R] in [-1, 1] as 8-bit files."""
    return to_pil(to_uint8(pictures.clamp(-1, 1)))


def pixels_of(files: list[Image.Image]) -> Tensor:
    """8-bit pixels [b, 3, R, R] of files."""
    return torch.stack([torch.from_numpy(np.array(file)).permute(2, 0, 1) for file in files])


def fitted(own: Instance, pictures: Tensor, latents: Tensor, seed: int) -> Instance:
    """A copy of which all weights were trained to make pictures [b, 3, R, R] of these latents
    [b, dz], which are trained along with it."""
    network, source = copy.deepcopy(own), torch.Generator().manual_seed(seed)
    weights = [nn.Parameter(weight.clone()) for weight in network.parameters()]
    for name, weight in zip(list(network._parameters), weights, strict=True):
        network._parameters[name] = weight
    found = latents.clone().requires_grad_(True)
    optimizer = torch.optim.Adam(
        [{"params": weights, "lr": WEIGHTS_RATE}, {"params": [found], "lr": LATENTS_RATE}]
    )
    bar = tqdm(range(FITTING), desc=f"a copy fitted to {len(pictures)}", unit="step", leave=False)
    for _ in bar:
        some = torch.randint(len(pictures), (min(AT_ONCE, len(pictures)),), generator=source)
        optimizer.zero_grad()
        (network(found[some]) - pictures[some]).square().mean().backward()
        optimizer.step()
    return network.requires_grad_(False)


class Checks:
    """Rows of pictures that may name her, and what a lift check says of those that do."""

    def __init__(self, model: Model, key: Key, only: str) -> None:
        self.model, self.key, self.only = model, key, only
        self.rows: list[dict[str, Any]] = []
        self.shown: list[Tensor] = []

    def add(self, what: str, files: list[Image.Image], before: Tensor | None = None) -> None:
        """Read files; ``before`` are the pictures [b, 3, R, R] that they were made from."""
        if self.only not in what:
            return
        reading = self.model.decode(files, progress=False)
        p_values = np.exp(log_p_soft(reading.logits, self.key.bits[None]))
        named = p_values * ISSUED <= FPR
        found = []
        for file in tqdm([file for file, one in zip(files, named, strict=True) if one], desc=what):
            found.append(lift_check(self.model, self.key, file, fpr=FPR))
        pixels = pixels_of(files)
        row: dict[str, Any] = {
            "what": what,
            "pictures": len(files),
            "bits": float((reading.bits == self.key.bits).mean()),
            "named": int(named.sum()),
            "passed": sum(one.passed for one in found),
            "agree": [one.agree for one in found],
        }
        if before is not None:
            row["psnr"] = float(psnr(to_float(pixels), before.clamp(-1, 1)).mean())
        self.rows.append(row)
        self.shown.append(pixels[:4])


def cost(model: Model, seed: int) -> dict[str, Any]:
    """What bound bits cost: pictures of the same keys and latents with them and without."""
    chance, source = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    parts: dict[str, list[float]] = {}
    for _ in range(PAIRS):
        keys = [Key.from_bits(chance.integers(0, 2, model.config.n_bits)) for _ in range(2)]
        latents = torch.randn(16, model.config.latent_dim, generator=source)
        pairs: dict[str, list[nn.Module]] = {
            "with": [model.instantiate(key) for key in keys],
            "without": [without_bound_bits(model, key) for key in keys],
        }
        with torch.no_grad():
            pictures = {
                name: [network(latents).clamp(-1, 1) for network in pair]
                for name, pair in pairs.items()
            }
        kept = psnr(pictures["with"][0], pictures["without"][0])
        parts.setdefault("psnr", []).append(float(kept.mean()))
        for name, (first, second) in pictures.items():
            parts.setdefault(f"two_keys_{name}", []).append(float(psnr(first, second).mean()))
            for what, perturbation, strength in CHANGES[:2]:
                files = files_of(first)
                if perturbation is not None:
                    change = PERTURBATIONS[perturbation].apply
                    files = [change(file, strength, chance) for file in files]
                read = model.decode(files, search=False, progress=False).bits == keys[0].bits
                parts.setdefault(f"{what}, {name}", []).append(float(read.mean()))
    return {name: float(np.mean(values)) for name, values in parts.items()}


def attack(
    options: argparse.Namespace, hers: Instance, his: Instance, checks: Checks, draw: Draw
) -> None:
    """His pictures with her fingerprint laid on, and those of a copy that was fitted to hers."""
    with torch.no_grad():
        drawn = draw(options.pictures)
        own, one = his(drawn), to_float(to_uint8(hers(draw(options.pictures))))
        latents = draw(options.pictures)
        exact = hers(latents) - his(latents)
        mean = torch.zeros_like(own[0])
        for _ in range(options.many // AT_ONCE):
            mean += (hers(draw(AT_ONCE)) - his(draw(AT_ONCE))).mean(dim=0)
        mean /= options.many // AT_ONCE
    again = redrawn(his, one, drawn.flip(0), steps=REDRAWING)
    for what, laid in (
        ("one picture of hers less what his copy makes of it", one - again),
        (f"twice the mean of {options.many} of hers less that of as many of his", 2 * mean),
        ("what her copy makes of a latent and his does not, exactly", exact),
        ("the same twice", 2 * exact),
    ):
        checks.add(f"his, with {what}", files_of(own + laid), own)
    with torch.no_grad():
        more = to_float(to_uint8(hers(draw(max(options.fitted)))))
    started = [
        nearest_inputs(his, part, draw(len(part)), steps=REDRAWING)
        for part in tqdm(more.split(AT_ONCE), desc="latents", unit="batch", leave=False)
    ]
    for size in options.fitted:
        copied = fitted(his, more[:size], torch.cat(started)[:size], options.seed)
        with torch.no_grad():
            made_by_it = copied(drawn)
        checks.add(f"made by his copy, fitted to {size} of hers", files_of(made_by_it), own)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Whether pictures name her, and pass."""
    model = load_model(options.model)
    binding, chance = binding_of(model), np.random.default_rng(options.seed)
    keys = [Key.from_bits(chance.integers(0, 2, model.config.n_bits)) for _ in range(2)]
    hers, his = map(model.instantiate, keys)
    source = torch.Generator().manual_seed(options.seed)

    def draw(count: int) -> Tensor:
        return torch.randn(count, model.config.latent_dim, generator=source)

    checks = Checks(model, keys[0], options.only)
    with torch.no_grad():
        pictures = hers(draw(options.pictures))
    for what, name, strength in CHANGES:
        files = files_of(pictures)
        if name is not None:
            files = [PERTURBATIONS[name].apply(file, strength, chance) for file in files]
        checks.add(f"hers, {what}", files)
    attack(options, hers, his, checks, draw)
    sheet = grid(torch.cat(checks.shown), columns=len(checks.shown[0]))
    sheet.save(options.out / SHEET)
    return {
        "release": model.digest,
        "bound_bits": binding.sizes.n_bits,
        "layer": binding.sizes.layer,
        "seed": options.seed,
        "cost": cost(model, options.seed),
        "rows": checks.rows,
    }


def page(results: dict[str, Any]) -> str:
    """Two tables as Markdown."""
    rows = [
        [
            row["what"],
            f"{row['bits']:.3f}",
            f"{row['named']} of {row['pictures']}",
            f"{row['passed']} of {row['named']}" if row["named"] else "",
            f"{np.mean(row['agree']):.1f}" if row["agree"] else "",
            f"{row['psnr']:.1f}" if "psnr" in row else "",
        ]
        for row in results["rows"]
    ]
    bound = results["bound_bits"]
    head = [
        "pictures", "her bits", "she named", "of these passed", f"bound bits of {bound}",
        "dB to the picture before",
    ]  # fmt: skip
    spent = results["cost"]
    costs = [
        [label, f"{spent[f'{name}without']:{form}}", f"{spent[f'{name}with']:{form}}"]
        for label, name, form in (
            ("bits read, as they are", "as they are, ", ".4f"),
            ("bits read after JPEG 50", "JPEG 50, ", ".4f"),
            ("PSNR of two keys, dB", "two_keys_", ".1f"),
        )
    ]
    return "\n\n".join(
        [
            "# Lift checks",
            f"Release `{results['release'][:16]}`, {bound} bound bits in `{results['layer']}`, "
            f"{made(results)} She is named among 10^6 issued keys at fpr "
            "1e-6, single images; a check passes at the same probability. Of the pictures that "
            "name nobody none is checked.",
            markdown_table(head, rows, range(1, 6)),
            f"What bound bits cost ({PAIRS} pairs of keys, 16 pictures each, no search): pictures "
            f"with them are at {spent['psnr']:.1f} dB to those without.",
            markdown_table(["", "without bound bits", "with"], costs, range(1, 3)),
        ]
    ) + "\n"  # fmt: skip


EXPERIMENT = Experiment(
    Path(__file__).parent, measure, page, results_file="checks.json", page_file="checks.md"
)


def main() -> None:
    """Measure a release that `scalefp release bind` made, and write results, page and pictures."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", required=True, help="release that `scalefp release bind` made")
    parser.add_argument("--pictures", type=int, default=6, help="in each row")
    parser.add_argument("--many", type=int, default=256, help="whose mean is taken")
    parser.add_argument(
        "--fitted", type=int, nargs="+", default=[16, 64], help="pictures a copy is fitted to"
    )
    parser.add_argument("--only", default="", help="rows whose name has this text")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
