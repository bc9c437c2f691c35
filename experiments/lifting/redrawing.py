"""Is one image enough to lift a fingerprint, for who draws it again with a copy of his own?

    python experiments/lifting/redrawing.py --model emoji

A recipient has one image of another's. All copies draw nearly the same picture of a latent, so he
looks for the latent whose picture by his own copy comes closest to hers. What is left between the
two is mostly what her key writes and his does not, and he adds it to other pictures. He needs no
decoder, release or key.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.data.images import to_float, to_pil
from scalefp.evaluation.lifting import eight_bit, mean_psnr
from scalefp.evaluation.samples import (
    EvaluateConfig,
    LiftingConfig,
    Samples,
    from_files,
    read_logits,
    reading_figures,
)
from scalefp.experiment import Experiment, made, markdown_table
from scalefp.loading import load_model
from scalefp.metrics import psnr

RATE = 0.1  # of Adam, on the latent
STRENGTHS = (1.0, 1.5, 2.0)  # times the difference
ISSUED, FPR = 1_000_000, 1e-6


def redrawn(instance: nn.Module, pictures: Tensor, z: Tensor, *, steps: int, rate: float) -> Tensor:
    """How an instance draws pictures [b, 3, R, R] in [-1, 1], as near as it comes to each.

    By gradient steps on the latents, from ``z`` [b, dz] on.
    """
    z = z.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([z], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (instance(z) - pictures).square().mean((1, 2, 3)).sum().backward()
        optimizer.step()
    with torch.no_grad():
        drawn: Tensor = instance(z).clamp(-1, 1)
    return drawn


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Of pairs of recipients: whose key is read where a difference was laid on his pictures."""
    model = load_model(options.model)
    config = EvaluateConfig(
        seed=options.seed, keys=2 * options.pairs, issued=[ISSUED], pools=[1], fpr=FPR,
        lifting=LiftingConfig(pictures=options.pictures),
    )  # fmt: skip
    samples, pairs, count = Samples(model, config), options.pairs, options.pictures
    hers, his, differences, closeness = [], [], [], []
    for pair in tqdm(range(pairs), "redrawing"):
        victim, copy = samples.instance(pair), samples.instance(pairs + pair)
        seeds = np.random.default_rng([options.seed, pair]).integers(0, 2**31, 3).tolist()
        known = to_float(from_files(victim.sample(count, seed=seeds[0])))
        draw = torch.Generator().manual_seed(seeds[1])
        start = torch.randn(count, copy.config.latent_dim, generator=draw)
        again = redrawn(copy, known, start, steps=options.steps, rate=RATE)
        hers.append(known)
        his.append(to_float(from_files(copy.sample(count, seed=seeds[2]))))
        differences.append(known - again)
        closeness.append(float(psnr(again, known).mean()))

    def read(pictures: list[Tensor], first: int) -> dict[str, Any]:
        """Figures of the keys from the first on in the pictures of each pair."""
        logits = np.stack(
            [
                read_logits(model, to_pil(one), count, config.batch_size, "reading", thorough=False)
                for one in pictures
            ]
        )
        return reading_figures(logits, samples.bits[first : first + pairs], config)

    rows = []
    for strength in STRENGTHS:
        forged = [
            eight_bit(one + strength * difference)
            for one, difference in zip(his, differences, strict=True)
        ]
        rows.append(
            {
                "strength": strength,
                "victim": read(forged, 0),
                "own": read(forged, pairs),
                "psnr": mean_psnr(forged, his),
            }
        )
    return {
        "release": model.digest,
        "seed": options.seed,
        "pairs": pairs,
        "pictures": count,
        "steps": options.steps,
        "before": {"victim": read(his, 0), "own": read(his, pairs)},
        "redrawn_psnr": float(np.mean(closeness)),
        "rows": rows,
    }


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All releases as one page."""
    parts = ["# One image, drawn again with a copy of one's own"]
    head = ["added", "victim's bits", "victim named", "own bits", "he named", "dB to his picture"]
    for name, release in results.items():
        lines = []
        rows = [{"strength": 0.0, "psnr": None, **release["before"]}, *release["rows"]]
        for row in rows:
            figures = []
            for whose in ("victim", "own"):
                named = row[whose]["attributed"]["1"]["soft"][str(ISSUED)]
                figures += [f"{row[whose]['mean']:.3f}", f"{named:.0%}"]
            lines.append(
                [
                    f"{row['strength']:g} times" if row["strength"] else "nothing",
                    *figures,
                    f"{row['psnr']:.1f}" if row["psnr"] else "",
                ]
            )
        parts += [
            f"## `{name}`",
            f"Release `{release['release'][:16]}`; {release['pairs']} pairs of recipients, "
            f"{release['pictures']} images of each victim, each lifted alone, redrawn in "
            f"{release['steps']} steps at {release['redrawn_psnr']:.1f} dB; named at fpr {FPR:g} "
            f"among {ISSUED:,} issued keys, single images, soft form; {made(release)}",
            markdown_table(head, lines),
        ]
    return "\n\n".join(parts) + "\n"


EXPERIMENT = Experiment(
    Path(__file__).parent, measure, markdown, named_by="model",
    results_file="redrawing.json", page_file="redrawing.md",
)  # fmt: skip


def main() -> None:
    """Measure one release, and write results and table."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji", help="bundled name or path of a release")
    parser.add_argument("--pairs", type=int, default=3, help="of a victim and another recipient")
    parser.add_argument("--pictures", type=int, default=8, help="images of each victim")
    parser.add_argument("--steps", type=int, default=100, help="on the latent")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
