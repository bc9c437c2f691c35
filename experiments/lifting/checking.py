"""Does a lift check tell a holder's own pictures from those that her fingerprint was laid on?

    scalefp release bind emoji --out bound.safetensors
    for rows in hers moved laid fitted compared limits; do
        python experiments/lifting/checking.py --model bound.safetensors --rows $rows
    done

writes checks.json, checks.md and a picture for each of these beside this file, or to --out. A
recipient has pictures of another's copy, and a copy of his own. He does what worked against the
bundled release, and what nobody can do: he adds exactly what her copy makes of a latent and his
does not (laid). Or he trains all weights of his copy until it makes her pictures (fitted), or
compares it with others and puts one together (compared; how far that could go: limits): see
imitating.py. Every picture that names her is held against the bits that are bound to pictures of
her copy, which takes a minute of a core.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from checking_report import PAIRS, page
from imitating import REDRAWING, compare, fitted, latents_of, nearest_sum, rebuilt
from scalefp.attribution.evidence import log_p_soft
from scalefp.data.images import grid, to_float, to_pil, to_uint8
from scalefp.evaluation.redrawing import redrawn
from scalefp.experiment import Experiment
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
MOVES: list[tuple[str, str | None, float]] = [
    ("crop to half the area", "crop", 0.5**0.5),
    ("turned by 10 degrees", "rotation", 10),
]
AT_ONCE = 8  # pictures of which a mean is taken


def files_of(pictures: Tensor) -> list[Image.Image]:
    """Pictures [b, 3, R, R] in [-1, 1] as 8-bit files."""
    return to_pil(to_uint8(pictures.clamp(-1, 1)))


def pixels_of(files: list[Image.Image]) -> Tensor:
    """8-bit pixels [b, 3, R, R] of files."""
    return torch.stack([torch.from_numpy(np.array(file)).permute(2, 0, 1) for file in files])


class Checks:
    """Rows of pictures that may name her, and what a lift check says of those that do."""

    def __init__(self, model: Model, key: Key) -> None:
        self.model, self.key = model, key
        self.rows: list[dict[str, Any]] = []
        self.shown: list[Tensor] = []

    def add(self, what: str, files: list[Image.Image], before: Tensor | None = None) -> None:
        """Read files; ``before`` are the pictures [b, 3, R, R] that they were made from."""
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


@dataclass
class Case:
    """Who is attacked, by whom, and how much is tried."""

    model: Model
    options: argparse.Namespace

    def __post_init__(self) -> None:
        chance, seed = np.random.default_rng(self.options.seed), self.options.seed
        self.keys = [
            Key.from_bits(chance.integers(0, 2, self.model.config.n_bits))
            for _ in range(1 + max(self.options.copies))
        ]
        self.chance, self.source = chance, torch.Generator().manual_seed(seed)
        self.hers, *self.others = map(self.model.instantiate, self.keys)
        self.his = self.others[0]
        self.checks = Checks(self.model, self.keys[0])

    def draw(self, count: int) -> Tensor:
        """So many latents [n, dz]."""
        return torch.randn(count, self.model.config.latent_dim, generator=self.source)

    @torch.no_grad()
    def files(self, count: int) -> Tensor:
        """So many pictures of hers [n, 3, R, R], as files give them."""
        return to_float(to_uint8(self.hers(self.draw(count))))


def hers(case: Case, changes: list[tuple[str, str | None, float]]) -> None:
    """Her pictures, as they are or changed."""
    pictures = case.files(case.options.pictures)
    for what, name, strength in changes:
        files = files_of(pictures)
        if name is not None:
            files = [PERTURBATIONS[name].apply(file, strength, case.chance) for file in files]
        case.checks.add(f"hers, {what}", files)


def laid(case: Case) -> None:
    """His pictures with her fingerprint laid on."""
    hers, his, draw, options = case.hers, case.his, case.draw, case.options
    with torch.no_grad():
        drawn = draw(options.pictures)
        own, one = his(drawn), case.files(options.pictures)
        latents = draw(options.pictures)
        exact = hers(latents) - his(latents)
        mean = torch.zeros_like(own[0])
        for _ in range(options.many // AT_ONCE):
            mean += (hers(draw(AT_ONCE)) - his(draw(AT_ONCE))).mean(dim=0)
        mean /= options.many // AT_ONCE
    again = redrawn(his, one, drawn.flip(0), steps=REDRAWING)
    for what, added in (
        ("one picture of hers less what his copy makes of it", one - again),
        (f"twice the mean of {options.many} of hers less that of as many of his", 2 * mean),
        ("what her copy makes of a latent and his does not, exactly", exact),
        ("the same twice", 2 * exact),
    ):
        case.checks.add(f"his, with {what}", files_of(own + added), own)


def made_by(case: Case, what: str, network: nn.Module) -> None:
    """Pictures of a copy that imitates hers, beside his of the same latents."""
    drawn = case.draw(case.options.pictures)
    with torch.no_grad():
        case.checks.add(what, files_of(network(drawn)), case.his(drawn))


def fits(case: Case) -> None:
    """Pictures of his copy after it was trained on hers."""
    seed, sizes = case.options.seed, case.options.fitted
    more = case.files(max(sizes))
    started = latents_of(case.his, more, case.source)
    for size in sizes:
        copied, steps = fitted(case.his, more[:size], started[:size], seed)
        made_by(case, f"made by his copy, fitted to {size} of hers in {steps:,} steps", copied)


def comparisons(case: Case) -> None:
    """Pictures of copies that several recipients put together after comparing theirs."""
    seed, copies, known = case.options.seed, case.options.copies, case.options.known
    pictures = case.files(max(known))
    started = latents_of(case.his, pictures, case.source)
    fewest = min(known)
    tries = [(count, fewest, False) for count in copies]
    tries += [(max(copies), size, True) for size in known]
    for count, size, mixed in tries:
        found = compare(case.others[:count])
        made_of = "any mixture of what their bits change" if mixed else "what their bits change"
        network = rebuilt(case.his, found, pictures[:size], started[:size], seed, mixed=mixed)
        made_by(case, f"put together from {count} copies and {size} of hers, by {made_of}", network)


def limits(case: Case) -> None:
    """Pictures of her copy, with the nearest sum of others' bound bits in place of hers: as far as
    they can come who compare copies and find the best numbers."""
    model, binding = case.model, binding_of(case.model)
    secret, tensors = model.folding.secret, model.folding.tensors(case.keys[0])
    like = tensors[binding.name]
    hers, *others = [binding.change(secret, key, like) for key in case.keys]
    for count in case.options.copies:
        nearest = nearest_sum(hers, others[:count], binding.directions)
        network = Instance(model.folding.sizes, {**tensors, binding.name: like + nearest})
        what = f"by her copy, with the nearest sum of what bound bits of {count} others change"
        made_by(case, what, network)


ROWS: dict[str, Callable[[Case], None]] = {
    "hers": partial(hers, changes=CHANGES), "moved": partial(hers, changes=MOVES),
    "laid": laid, "fitted": fits, "compared": comparisons, "limits": limits,
}  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Whether pictures name her, and pass."""
    model = load_model(options.model)
    binding = binding_of(model)
    if options.shared:
        one_for_all = Key.from_bits(np.zeros(model.config.n_bits, np.uint8))
        change: Any = partial(binding.factors, key=one_for_all)
        binding.factors = lambda secret, key: change(secret)  # type: ignore[method-assign]
    case = Case(model, options)
    ROWS[options.rows](case)
    sheet = grid(torch.cat(case.checks.shown), columns=len(case.checks.shown[0]))
    sheet.save(options.out / f"checks-{options.name}.png")
    return {
        "release": model.digest,
        "bound_bits": binding.sizes.n_bits,
        "layer": binding.sizes.layer,
        "seed": options.seed,
        "shared": options.shared,
        "rows": case.checks.rows,
    } | ({"cost": cost(model, options.seed)} if options.rows == "hers" else {})


EXPERIMENT = Experiment(
    Path(__file__).parent, measure, page, named_by="rows", results_file="checks.json",
    page_file="checks.md",
)  # fmt: skip


def main() -> None:
    """Measure a release that `scalefp release bind` made, and write results, page and pictures."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", required=True, help="release that `scalefp release bind` made")
    parser.add_argument("--rows", choices=ROWS, required=True, help="what is measured")
    parser.add_argument("--pictures", type=int, default=6, help="in each row")
    parser.add_argument("--many", type=int, default=256, help="whose mean is taken")
    parser.add_argument(
        "--fitted", type=int, nargs="+", default=[16, 64, 256], help="pictures a copy is fitted to"
    )
    parser.add_argument(
        "--copies", type=int, nargs="+", default=[2, 8, 32], help="copies that are compared"
    )
    parser.add_argument(
        "--known", type=int, nargs="+", default=[16, 64], help="pictures of hers, beside these"
    )
    parser.add_argument(
        "--shared", action="store_true",
        help="let all copies share the directions of their bound bits, which they do not",
    )  # fmt: skip
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
