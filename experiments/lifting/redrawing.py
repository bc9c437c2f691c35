"""Is one image enough to lift a fingerprint, for who draws it again with a copy of his own?

    python experiments/lifting/redrawing.py --model emoji

A recipient has one image of another's. All copies draw nearly the same picture of a latent, so he
looks for the latent whose picture by his own copy comes closest to hers. What is left between the
two is mostly what her key writes and his does not. He adds it to other pictures, or takes it off
hers. He needs no decoder, release or key. ``scalefp evaluate`` measures the same at a smaller size.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalefp.errors import UserError
from scalefp.evaluation.lifting import Lifting
from scalefp.evaluation.redrawing import why_not
from scalefp.evaluation.samples import EvaluateConfig, LiftingConfig, Samples
from scalefp.experiment import Experiment, made, markdown_table
from scalefp.loading import load_model

STRENGTHS = [1.0, 1.5, 2.0]  # times the difference
ISSUED, FPR = 1_000_000, 1e-6
DONE = {
    "own pictures": "added to his own",
    "data": "added to pictures of the data",
    "her pictures": "taken off hers",
}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Of pairs of recipients: whose key is read where a difference was laid on pictures, or taken
    off them."""
    model, pairs = load_model(options.model), options.pairs
    if (reason := why_not(model)) is not None:
        raise UserError(f"nobody draws its pictures again: {reason}")
    config = EvaluateConfig(
        seed=options.seed, keys=2 * pairs, issued=[ISSUED], pools=[1], fpr=FPR,
        lifting=LiftingConfig(
            victims=pairs, strengths=STRENGTHS, pictures=options.pictures,
            redrawn=options.pictures, redrawing_steps=options.steps,
        ),
    )  # fmt: skip
    config.check()
    lifting = Lifting(model, Samples(model, config), config)
    found = lifting.redrawn()
    return {
        "release": model.digest,
        "seed": options.seed,
        "pairs": pairs,
        "pictures": options.pictures,
        "steps": options.steps,
        "redrawn_psnr": found["psnr"],
        "rows": found["rows"],
    }


def _named(figures: Mapping[str, Any] | None) -> list[str]:
    """Bits read, and the share of single images that are named."""
    if figures is None:
        return ["", ""]
    named = figures["attributed"]["1"]["soft"][str(ISSUED)]
    return [f"{figures['mean']:.3f}", f"{named:.0%}"]


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All releases as one page."""
    parts = ["# One image, drawn again with a copy of one's own"]
    head = ["the difference is", "times", "victim's bits", "victim named", "own bits", "he named"]
    head.append("dB to the picture before")
    for name, release in results.items():
        lines = [
            [
                what,
                f"{row['strength']:g}",
                *_named(row),
                *_named(row.get("own")),
                f"{row['psnr']:.1f}",
            ]
            for onto, what in DONE.items()
            for row in release["rows"]
            if row["onto"] == onto
        ]
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
