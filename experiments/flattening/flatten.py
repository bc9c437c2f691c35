"""Does a recipient erase the fingerprint by flattening the constant maps of an instance?

    python experiments/flattening/flatten.py --model emoji

writes results.json and results.md beside this file: one row for each share of the maps removed. A
release without maps draws the same at every share. The same change stands among others, with
plots, in the report of ``scalefp evaluate``.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

import scalefp
from scalefp.evaluation.features import choose_extractor
from scalefp.evaluation.removal import Tampered, attempts
from scalefp.evaluation.samples import EvaluateConfig, Samples
from scalefp.experiment import Experiment, markdown_table
from scalefp.loading import load_model

POOLS, ISSUED, FPR = [1, 4], 1_000_000, 1e-6


def measure_shares(model: scalefp.Model, config: EvaluateConfig) -> list[dict[str, Any]]:
    """Figures of the untouched instances, then of each share of the maps removed."""
    extractor = choose_extractor(config.features, config.feature_weights)
    tampered = Tampered(model, Samples(model, config), extractor, config)
    tries = tqdm(attempts(config), "flattening", unit="strength")
    return [tampered.nothing(), *(tampered.attempt(attempt) for attempt in tries)]


def table(release: Mapping[str, Any]) -> str:
    """One line for each share of the maps removed."""
    shares = [f"attributed, {pool} image(s)" for pool in POOLS]
    head = ["maps removed", "bit accuracy", *shares, "PSNR to untouched, dB", "feature distance"]
    lines = []
    for row in release["rows"]:
        attributed = [row["attributed"][str(pool)]["soft"][str(ISSUED)] for pool in POOLS]
        distance = f"{row['distance']:.1f} ({row['loss']:+.1%})" if "loss" in row else ""
        cells = [f"{row['strength']:.0%}", f"{row['mean']:.4f}", *(f"{s:.1%}" for s in attributed)]
        lines.append([*cells, f"{row['psnr']:.1f}", distance])
    return markdown_table(head, lines)


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All releases as one page."""
    parts = [
        "# Flattening the constant maps of an instance",
        f"Attributed at fpr {FPR:g} among {ISSUED:,} issued keys, soft form. A PSNR of 100 dB says "
        "that every picture is what it was.",
    ]
    for name, release in results.items():
        parts += [
            f"## `{name}`",
            f"Release `{release['release'][:16]}`; {release['keys']} keys, "
            f"{release['images_per_key']} images each; seed {release['seed']}; "
            f"{release['date'][:10]}; {release['hardware']}.",
            table(release),
        ]
    return "\n\n".join(parts) + "\n"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one release."""
    config = EvaluateConfig(
        seed=options.seed,
        keys=options.keys,
        tamper_keys=options.keys,
        tamper_images=options.images,
        tamperings=["flatten"],
        pools=POOLS,
        issued=[ISSUED],
        fpr=FPR,
    )
    model = load_model(options.model)
    return {
        "release": model.digest,
        "keys": options.keys,
        "images_per_key": options.images,
        "seed": options.seed,
        "rows": measure_shares(model, config),
    }


EXPERIMENT = Experiment(
    Path(__file__).parent, measure, markdown, named_by="model", page_file="results.md"
)


def main() -> None:
    """Measure one release, and write results and table."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji", help="bundled name or path of a release")
    parser.add_argument("--keys", type=int, default=50)
    parser.add_argument("--images", type=int, default=10, help="images of each instance")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
