"""Does re-making a picture tell whether its fingerprint was lifted?

    python experiments/lifting/remaking.py --model emoji

The owner can ask whether the copy that an attribution names draws the picture at all: he looks for
the latent whose picture comes closest. An honest picture is re-made; one that was laid under a
stolen fingerprint may not be. Measured is how well that tells them apart.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from scalefp.data.images import to_float, to_pil, to_tensor
from scalefp.errors import UserError
from scalefp.evaluation.estimators import Knowledge
from scalefp.evaluation.lifting import Lifting, eight_bit
from scalefp.evaluation.redrawing import redrawn
from scalefp.evaluation.samples import EvaluateConfig, LiftingConfig, Samples
from scalefp.experiment import Experiment, made, markdown_table, new_figure
from scalefp.loading import load_model
from scalefp.metrics import FloatArray, psnr
from scalefp.perturb import PERTURBATIONS
from scalefp.release.instance import Instance
from scalefp.release.model import Model

STEPS, RATE = 120, 0.05  # of Adam, on the latent
HONEST = {"as it is": None, "JPEG 50": ("jpeg", 50.0), "cropped to 0.8": ("crop", 0.8)}
LIFTED = ((1, 2.0), (16, 1.0), (16, 2.0), (1000, 2.0))  # images known, strength
PASSED = 0.99  # of the honest pictures as JPEG 50, at the threshold of the table


def remade(instance: Instance, decoder: torch.nn.Module, pictures: Tensor) -> FloatArray:
    """How close an instance comes to pictures [b, 3, R, R] in [-1, 1]: PSNR in dB [b].

    From the latent that the decoder reads, by gradient steps on it.
    """
    with torch.no_grad():
        z = decoder(pictures)[1]
    return psnr(redrawn(instance, pictures, z, steps=STEPS, rate=RATE), pictures)


def changed(pictures: Tensor, how: tuple[str, float] | None) -> Tensor:
    """Pictures after a change of scalefp.perturb, at the size they had."""
    if how is None:
        return eight_bit(pictures)
    draw = np.random.default_rng(0)
    files = [PERTURBATIONS[how[0]].apply(one, how[1], draw) for one in to_pil(pictures)]
    return to_float(to_tensor(files, pictures.shape[-1]))


def kinds(lifting: Lifting, count: int) -> dict[str, Tensor]:
    """The pictures of each kind; the fingerprint in all but the last is the first instance's."""
    hers, his = lifting.images(0, 2, count), lifting.images(lifting.victims, 3, count)
    found = {f"honest, {name}": changed(hers, how) for name, how in HONEST.items()}
    for images, strength in LIFTED:
        (estimate,) = lifting.estimates(Knowledge("mean", images, own_copy=True))
        what = f"lifted from {images:,} image{'s' * (images > 1)}, {strength:g} times"
        for onto, pictures in (("the data", lifting.data), ("another copy's", his)):
            found[f"{what}, onto {onto}"] = eight_bit(pictures + strength * estimate(pictures))
    return found | {"the data, untouched": lifting.data}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The dB of every picture of every kind."""
    model = load_model(options.model)
    if not isinstance(model, Model):
        raise UserError("only generators of this package are searched for a latent")
    lifted = LiftingConfig(victims=1, pictures=options.pictures)
    config = EvaluateConfig(seed=options.seed, keys=2, lifting=lifted)
    config.check()
    lifting = Lifting(model, Samples(model, config), config)
    instance = lifting.samples.instance(0)
    found = {}
    for name, pictures in tqdm(kinds(lifting, options.pictures).items(), "re-making"):
        found[name] = [round(float(one), 2) for one in remade(instance, model.decoder, pictures)]
    return {
        "release": model.digest,
        "seed": options.seed,
        "pictures": options.pictures,
        "steps": STEPS,
        "decibels": found,
    }


def told_apart(honest: list[float], other: list[float]) -> float:
    """The chance that an honest picture is re-made better than another (area under the ROC)."""
    pairs = np.subtract.outer(honest, other)
    return float((pairs > 0).mean() + (pairs == 0).mean() / 2)


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All figures as one page."""
    parts = ["# Re-making pictures: is their fingerprint lifted?"]
    for name, release in results.items():
        decibels = release["decibels"]
        honest = [kind for kind in decibels if kind.startswith("honest")]
        limit = float(np.quantile(decibels["honest, JPEG 50"], 1 - PASSED))
        rows = []
        for kind, values in decibels.items():
            areas = [f"{told_apart(decibels[one], values):.2f}" for one in honest]
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
            spread = f"{middle:.1f} ({low:.1f} to {high:.1f})"
            rows.append([kind, spread, f"{np.mean(np.less(values, limit)):.0%}", *areas])
        head = ["picture", "re-made, dB: median (5% to 95%)", f"below {limit:.1f} dB"]
        parts += [
            f"## `{name}`",
            f"Release `{release['release'][:16]}`; {release['pictures']} pictures of each kind, "
            f"{release['steps']} steps on the latent; {made(release)} Told apart: the chance that "
            "an honest picture is re-made better than one of the row; 0.5 is none.",
            markdown_table([*head, *(f"told from {one}" for one in honest)], rows),
            f"![Share of pictures kept by the least dB asked for]({name}-remaking.png)",
        ]
    return "\n\n".join(parts) + "\n"


def plot(release: Mapping[str, Any]) -> Figure:
    """The share of pictures of each kind that are re-made at so many dB."""
    figure = new_figure(9, 5)
    axes = figure.subplots()
    for kind, values in release["decibels"].items():
        line = "-" if kind.startswith("honest") else "--" if "another" in kind else ":"
        axes.plot(np.sort(values), 1 - np.arange(len(values)) / len(values), line, label=kind)
    axes.set_xlabel("least PSNR of the re-made picture asked for, dB")
    axes.set_ylabel("share of pictures that reach it")
    axes.legend(fontsize="x-small", loc="lower left")
    return figure


def plots(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
    """One for each release."""
    return {f"{name}-remaking.png": plot(release) for name, release in results.items()}


EXPERIMENT = Experiment(
    Path(__file__).parent, measure, markdown, plots, named_by="model",
    results_file="remaking.json", page_file="remaking.md",
)  # fmt: skip


def main() -> None:
    """Measure one release, and write results, table and plot."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--model", default="emoji", help="bundled name or path of a release")
    parser.add_argument("--pictures", type=int, default=48, help="of each kind")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
