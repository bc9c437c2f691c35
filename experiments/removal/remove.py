"""What does it take to train the fingerprint out of an instance, and what do the pictures lose?

    python experiments/removal/remove.py --model emoji

A recipient trains his instance on, as a GAN, with 64, 512 or all pictures of the data or with what
the instance itself makes; or he trains a fresh network to draw what the instance draws. After each
stage the key is read and the pictures are compared with the data. Or he trains nothing, and sends
his pictures through an autoencoder that others have trained. ``scalefp evaluate`` has the
changes that need no training (noise, pruning, rounding, averaging).
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from reencoding import ENLARGED, Reencoded
from scalefp.data.images import save_png, to_pil
from scalefp.evaluation.features import choose_extractor
from scalefp.evaluation.finetune import distill, fine_tune
from scalefp.evaluation.quality import data_pixels
from scalefp.evaluation.removal import Attempt, Tampered
from scalefp.evaluation.samples import EvaluateConfig, Samples, from_files
from scalefp.evaluation.sheets import sheet
from scalefp.experiment import Experiment, made, markdown_table, new_figure
from scalefp.loading import load_model
from scalefp.pretrained.taef2 import load_taef2
from scalefp.release.instance import Instance

STAGES = [0, 256, 1024, 4096]  # images trained on
ALL = 7000  # pictures of the data: as good as all of the bundled set
POOLS, ISSUED, FPR = [1, 4, 16], 1_000_000, 1e-6
SHOWN = 8  # pictures in a row of the sheet
ATTACKERS = ("64", "512", "data", "own", "fresh")  # what they train with: see attackers()

Stages = Iterator[tuple[int, Instance]]


def attackers(
    instance: Instance, data: Tensor, stages: list[int], seed: int, wanted: Sequence[str]
) -> dict[str, Callable[[], Stages]]:
    """Who of ATTACKERS trains, by the name in the table: -> (images trained on, instance then)."""

    def tuned(pictures: Tensor) -> Stages:
        return fine_tune(instance, pictures, stages, seed=seed)

    def own() -> Stages:
        return tuned(from_files(instance.sample(len(data), seed=seed + 1)))

    known: dict[str, tuple[str, Callable[[], Stages]]] = {
        "64": ("64 of the data", lambda: tuned(data[:64])),
        "512": ("512 of the data", lambda: tuned(data[:512])),
        "data": (f"{len(data):,} of the data", lambda: tuned(data)),
        "own": (f"{len(data):,} of his own", own),
        "fresh": ("a fresh network", lambda: distill(instance, stages[1:], seed=seed)),
    }
    return dict(known[short] for short in wanted)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Rows for each attacker and stage, and the sheet of pictures."""
    config = EvaluateConfig(
        seed=options.seed,
        keys=2,
        tamper_keys=2,
        tamper_images=options.images // 2,
        feature_images=options.images,
        pools=POOLS,
        issued=[ISSUED],
        fpr=FPR,
    )
    config.check()
    model = load_model(options.model)
    samples = Samples(model, config)
    extractor = choose_extractor(config.features, config.feature_weights)
    tampered = Tampered(model, samples, extractor, config)
    instance, stages = samples.instance(0), STAGES[: options.stages]
    data = data_pixels(config, options.data, model.config.resolution)
    rows, pictures = [], {}
    if options.taef2 is not None:
        coder = load_taef2(options.taef2)
        for enlarged in ENLARGED:
            name = "an autoencoder" + (f", {enlarged} times enlarged" if enlarged > 1 else "")
            changed = Reencoded(instance, coder, enlarged)
            rows.append({"attacker": name, **tampered.figures(Attempt(name, 0), [changed])})
            shown = to_pil(from_files(changed.sample(SHOWN, seed=options.seed)))
            pictures[name] = [("", picture) for picture in shown]
    trainings = attackers(instance, data, stages, options.seed, options.attackers)
    with tqdm(trainings.items(), "removal") as bar:
        for name, run in bar:
            bar.set_postfix_str(name)
            for images, changed in run():
                attempt = Attempt(name, images)
                rows.append({"attacker": name, **tampered.figures(attempt, [changed])})
            shown = to_pil(from_files(changed.sample(SHOWN, seed=options.seed)))
            pictures[name] = [("", picture) for picture in shown]
    before = to_pil(from_files(instance.sample(SHOWN, seed=options.seed)))
    rows_of_sheet = {"untouched": [("", picture) for picture in before], **pictures}
    save_png(options.out / f"{options.name}-pictures.png", sheet(rows_of_sheet))
    return {
        "release": model.digest,
        "n_bits": model.config.n_bits,
        "resolution": model.config.resolution,
        "seed": options.seed,
        "images": options.images,
        "features": getattr(extractor, "name", None),
        "rows": rows,
    }


def table(release: Mapping[str, Any]) -> str:
    """One line for each attacker and stage."""
    lines = []
    for row in release["rows"]:
        shares = [
            f"{row['attributed'][str(pool)]['soft'][str(ISSUED)]:.0%}"
            for pool in POOLS
            if str(pool) in row["attributed"]
        ]
        distance = f"{row['distance']:.0f} ({row['loss']:+.0%})" if "loss" in row else ""
        figures = [f"{row['mean']:.3f}", " / ".join(shares), f"{row['psnr']:.1f}", distance]
        lines.append([row["attacker"], f"{row['strength']:,.0f}", *figures])
    head = ["by training with, or by", "images trained on", "bits read", "named, 1 / 4 / 16 images"]
    return markdown_table([*head, "PSNR to untouched, dB", "feature distance"], lines)


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All figures as one page."""
    parts = [
        "# Removing the fingerprint by training or by an autoencoder",
        f"Named: at fpr {FPR:g} among {ISSUED:,} issued keys, soft form, 8-bit pictures read as "
        "they are. Feature distance: of the instance's pictures to the data, and how much of it "
        "came with the attack. No fingerprint is unremovable; the curve is the result.",
    ]
    for name, release in results.items():
        parts += [
            f"## `{name}`: {release['n_bits']} bits, {release['resolution']} px",
            f"Release `{release['release'][:16]}`; one instance, {release['images']:,} pictures a "
            f"stage; {release['features']}; {made(release)}",
            table(release),
            f"![Bits read and quality lost by images trained on]({name}.png)",
            f"![Pictures after the last stage]({name}-pictures.png)",
        ]
    return "\n\n".join(parts) + "\n"


def plot(release: Mapping[str, Any]) -> Figure:
    """Bits against images trained on, and against quality where that is known."""
    figure = new_figure(11, 4)
    left, right = figure.subplots(1, 2, sharey=True)
    for attacker in dict.fromkeys(row["attacker"] for row in release["rows"]):
        rows = [row for row in release["rows"] if row["attacker"] == attacker]
        bits = [row["mean"] for row in rows]
        left.plot([row["strength"] for row in rows], bits, "o-", label=attacker)
        quality = [row.get("distance", row["psnr"]) for row in rows]
        right.plot(quality, bits, "o-", label=attacker)
    for axes in (left, right):
        axes.axhline(0.5, color="gray", linewidth=0.8)
    left.set_xscale("symlog", linthresh=STAGES[1])
    left.set_xlabel("images trained on")
    left.set_ylabel("bits read")
    known = "distance" in release["rows"][0]
    right.set_xlabel("feature distance to the data" if known else "PSNR to untouched, dB")
    right.legend(fontsize="small")
    return figure


def plots(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
    """One for each release."""
    return {f"{name}.png": plot(release) for name, release in results.items()}


EXPERIMENT = Experiment(Path(__file__).parent, measure, markdown, plots, named_by="model")


def main() -> None:
    """Measure one release, and write results, table, plot and the sheet of pictures."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji", help="bundled name or path of a release")
    parser.add_argument("--images", type=int, default=1000, help="read and compared at each stage")
    parser.add_argument("--data", type=int, default=ALL, help="most pictures that he has")
    parser.add_argument(
        "--taef2", type=Path, metavar="FOLDER",
        help="of the files of TAEF2, taef2_encoder.pth and taef2_decoder.pth: re-encode as well",
    )  # fmt: skip
    parser.add_argument(
        "--attackers", nargs="+", choices=ATTACKERS, default=list(ATTACKERS),
        help="train with 64, 512 or all pictures of the data, with his own, or a fresh network",
    )  # fmt: skip
    parser.add_argument("--stages", type=int, default=len(STAGES), help=f"how many of {STAGES}")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
