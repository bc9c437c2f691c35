"""Can one recipient's fingerprint be lifted from her images and laid on others, or washed out?

    python experiments/lifting/lift.py --model emoji

Attackers with 1 to 4,000 images of a victim's instance, with and without a copy of their own,
estimate what her key does to a picture in four ways. They lay the estimate on pictures of the data
and on their own, take it off hers, blend images of two instances, choose among unrelated pictures,
and ask the service again and again. All of it is ``scalefp.evaluation.attacks``, which
``scalefp evaluate`` runs at a smaller size.
"""

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lifting_report import markdown, plots
from scalefp.data.images import save_png, to_pil
from scalefp.errors import UserError
from scalefp.evaluation.attacks import lifting_parts, lifting_results
from scalefp.evaluation.estimators import ESTIMATORS, Knowledge, knowledges
from scalefp.evaluation.lifting import Lifting
from scalefp.evaluation.samples import EvaluateConfig, LiftingConfig, Samples
from scalefp.evaluation.sheets import sheet
from scalefp.experiment import Experiment, load_results
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


SAME = ("seed", "victims", "pictures")  # of figures that stand in one table


def check_earlier(options: argparse.Namespace) -> None:
    """Raise UserError if estimators alone cannot stand beside what was measured before."""
    if not options.estimates_only:
        return
    earlier = load_results(options.out / EXPERIMENT.results_file).get(options.name)
    if earlier is None:
        raise UserError(f"measure {options.name} whole first, without --estimates-only")
    if any(earlier[what] != getattr(options, what) for what in SAME):
        raise UserError(f"measure {options.name} as before, with the same {', '.join(SAME)}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one release, and its sheet."""
    check_earlier(options)
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
            redrawn=0,  # which redrawing.py measures
            checked=0,  # and checking.py
        ),
    )
    config.check()
    samples = Samples(model, config)
    parts = lifting_parts(model, samples, config)
    if options.estimates_only:
        known = {f"lifting, {one.name}" for one in knowledges(config)}
        parts = {name: part for name, part in parts.items() if name in known}
    found = {}
    with tqdm(parts.items(), "lifting", unit="part") as bar:
        for name, part in bar:
            bar.set_postfix_str(name)
            found[name] = part()
    common = {
        "release": model.digest,
        "n_bits": model.config.n_bits,
        "resolution": model.config.resolution,
        "seed": options.seed,
        "victims": options.victims,
        "pictures": options.pictures,
        "pools": [pool for pool in config.pools if pool <= options.pictures],
    }
    if options.estimates_only:
        return common | {"rows": [row for rows in found.values() for row in rows]}
    draw_sheet(Lifting(model, samples, config), options.out / f"{options.name}-pictures.png")
    return {
        **common,
        "queries": options.queries,
        "unrelated": options.unrelated,
        **(lifting_results(found, config) or {}),
    }


def beside_other_estimators(
    earlier: dict[str, Any], name: str, figures: dict[str, Any]
) -> dict[str, Any]:
    """Estimators measured alone take their place among the earlier figures of that release."""
    if "blends" in figures:
        return earlier | {name: figures}
    before = earlier[name]
    if before["release"] != figures["release"]:
        raise UserError(f"{name} is another release than before: measure it whole")
    measured = {row["estimator"] for row in figures["rows"]}
    kept = [row for row in before["rows"] if row["estimator"] not in measured]
    command = f"{before['command']}; {figures['command']}"
    seconds = before["cpu_seconds"] + figures["cpu_seconds"]
    rows = {"rows": kept + figures["rows"], "command": command, "cpu_seconds": seconds}
    return earlier | {name: before | rows}


EXPERIMENT = Experiment(
    Path(__file__).parent, measure, markdown, plots, named_by="model",
    merge=beside_other_estimators,
)  # fmt: skip


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
    parser.add_argument(
        "--estimates-only", action="store_true",
        help="only these estimators; the release's other figures stay as they were measured",
    )  # fmt: skip
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
