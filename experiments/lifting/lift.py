"""Can one recipient's fingerprint be lifted from her images and laid on others, or washed out?

    python experiments/lifting/lift.py --model emoji

Attackers with 1 to 4,000 images of a victim's instance, with and without a copy of their own,
estimate what her key does to a picture in four ways. They lay the estimate on pictures of the data
and on their own, take it off hers, blend images of two instances, choose among unrelated pictures,
and ask the service again and again. All of it is ``scalefp.evaluation.lifting``, which
``scalefp evaluate`` runs at a smaller size.
"""

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lifting_report import markdown, plots
from scalefp.data.images import save_png, to_pil
from scalefp.evaluation.estimators import ESTIMATORS
from scalefp.evaluation.lifting import Knowledge, Lifting, lifting_parts, lifting_results
from scalefp.evaluation.samples import EvaluateConfig, LiftingConfig, Samples
from scalefp.evaluation.sheets import sheet
from scalefp.experiment import Experiment
from scalefp.loading import load_model

IMAGES = [1, 16, 64, 256, 1000, 4000]  # of the victim's instance
STRENGTHS = [0.5, 1.0, 2.0, 3.0]  # times the estimate
SHOWN = 8  # columns of the sheet


def draw_sheet(lifting: Lifting, path: Path) -> None:
    """Pictures of the data, and with the mean of 1 and of 256 images laid on them."""
    pictures = lifting.data[:SHOWN]
    rows = {"data": [("", picture) for picture in to_pil(pictures)]}
    for images in (1, 256):
        estimate = lifting.estimates(Knowledge("mean", images, own_copy=True))[0]
        for strength in STRENGTHS[1:]:
            changed = (pictures + strength * estimate(pictures)).clamp(-1, 1)
            name = f"{images} image{'s' * (images > 1)}, {strength:g} times"
            rows[name] = [("", picture) for picture in to_pil(changed)]
    save_png(path, sheet(rows))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one release, and its sheet."""
    model = load_model(options.model)
    config = EvaluateConfig(
        seed=options.seed,
        keys=2 * options.victims,
        unrelated_images=options.unrelated,
        lifting=LiftingConfig(
            victims=options.victims,
            estimators=options.estimators,
            images=IMAGES[: options.sizes],
            strengths=STRENGTHS,
            pictures=options.pictures,
            queries=options.queries,
        ),
    )
    config.check()
    samples = Samples(model, config)
    parts = lifting_parts(model, samples, config)
    found = {}
    with tqdm(parts.items(), "lifting", unit="part") as bar:
        for name, part in bar:
            bar.set_postfix_str(name)
            found[name] = part()
    draw_sheet(Lifting(model, samples, config), options.out / f"{options.name}-pictures.png")
    return {
        "release": model.digest,
        "n_bits": model.config.n_bits,
        "resolution": model.config.resolution,
        "seed": options.seed,
        "victims": options.victims,
        "pictures": options.pictures,
        "pools": [pool for pool in config.pools if pool <= options.pictures],
        "queries": options.queries,
        "unrelated": options.unrelated,
        **(lifting_results(found, config) or {}),
    }


EXPERIMENT = Experiment(Path(__file__).parent, measure, markdown, plots, named_by="model")


def main() -> None:
    """Measure one release, and write results, table, plots and the sheet of pictures."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji", help="bundled name or path of a release")
    parser.add_argument("--victims", type=int, default=2, help="and as many attackers")
    parser.add_argument("--pictures", type=int, default=32, help="of each kind, for each victim")
    parser.add_argument("--queries", type=int, default=1000, help="questions about one picture")
    parser.add_argument("--unrelated", type=int, default=7000, help="pictures to pick from")
    parser.add_argument(
        "--estimators", nargs="+", choices=list(ESTIMATORS), default=list(ESTIMATORS),
        help="ways to estimate (default: all; learned takes most of the time)",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", type=int, default=len(IMAGES), help=f"how many of {IMAGES} images known"
    )
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
