"""Is the key still read from a generator trained on marked data, once its weights were changed?

The generators, DCGANs of one training each with a key of its own, know nothing of fingerprints.
Their weights are tampered with as those of instances are (``scalefp.evaluation.tamper``), and
trained on with clean images; the bits that are left are held against what the pictures lose.

    python experiments/artificial-fingerprints/transfer.py -m generator=dcgan data=faces \\
        "seed=range(10)" sources.faces=faces128.zip images.dcgan=30000 folder=runs/ten-keys
    python experiments/artificial-fingerprints/generator_tampering.py --jobs runs/ten-keys \\
        --marker runs/ten-keys/marker-faces/release.safetensors --data faces128.zip
"""

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from generators.dcgan import LATENT, Dcgan, Generator
from generators.kept import FILE, load_dcgan
from jobs import Job, find_jobs
from scalefp.data.dataset import ImageSet
from scalefp.evaluation.features import choose_extractor
from scalefp.evaluation.plots import plot_tampering
from scalefp.evaluation.published import tampered_curves
from scalefp.evaluation.removal import (
    FINE_TUNING,
    UNTOUCHED,
    Attempt,
    Tampered,
    accuracy_at_loss,
    attempts,
    losses_met,
)
from scalefp.evaluation.samples import EvaluateConfig
from scalefp.evaluation.tamper import TAMPERINGS
from scalefp.evaluation.targets import LOSS
from scalefp.experiment import Experiment, Parts, content_digest, made, markdown_table
from scalefp.loading import load_marker

TRIED = [name for name in TAMPERINGS if name != "flatten"]  # which is of constant maps
RENEWED = "statistics"  # of batch normalization, and nothing else
WARM_UP_IMAGES = 2048  # that the recipient's discriminator sees before the generator moves
STATISTICS_IMAGES = 512


class Generators:
    """The generators of some jobs, as :class:`scalefp.evaluation.samples.Samples` gives instances.

    Attributes:
        bits: [K, n], the keys of their training data.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.bits = np.stack([job.key.bits for job in jobs])
        self._networks = [load_dcgan(job.folder)[0] for job in jobs]

    def instance(self, k: int) -> Generator:
        """The generator of key ``k``."""
        return self._networks[k]


def renew_statistics(network: Generator, seed: int) -> Generator:
    """Measure the statistics of batch normalization anew, from images of the changed weights.

    Whoever changes weights can do this without any data, and weights that were averaged or pruned
    need it.
    """
    z = torch.randn(STATISTICS_IMAGES, LATENT, 1, 1, generator=torch.Generator().manual_seed(seed))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the last batch alone
    with torch.no_grad():
        network.train()(z)
    return network.eval()


def train_on(
    network: Generator, data: ImageSet, images: Sequence[int], seed: int
) -> Iterator[tuple[int, Generator]]:
    """Go on with a generator's training, on clean data.

    The recipient has the generator and knows how it was trained, but has no discriminator: his own
    starts from nothing and learns first.

    Args:
        data: images at the generator's resolution.
        images: counts of images, ascending, at which the generator is handed out.
        seed: of discriminator, order of the data and latents.

    Yields:
        (images the generator was trained on, a generator of its own, averaged over training).
    """
    waiting = list(images)
    learner = Dcgan(data, WARM_UP_IMAGES + waiting[-1], seed)
    assert isinstance(learner.average, Generator)
    for part in (learner.generator, learner.average):
        part.load_state_dict(network.state_dict())
    seen = 0
    with tqdm(total=learner.total, desc="fine-tuning", unit="img", delay=2, leave=False) as bar:
        while waiting:
            if seen - WARM_UP_IMAGES >= waiting[0]:
                yield waiting.pop(0), copy.deepcopy(learner.average)
                continue
            if seen < WARM_UP_IMAGES:
                learner.step_discriminator(seen)
            else:
                learner.step(seen)
            seen += learner.batch
            bar.update(learner.batch)


# Measuring.


def measure_changes(
    tampered: Tampered, generators: Generators, parts: Parts, config: EvaluateConfig
) -> list[dict[str, Any]]:
    """A row for every strength of every change of weights."""

    def figures(attempt: Attempt, networks: Sequence[Any]) -> dict[str, Any]:
        renewals: list[Any] = [renew_statistics(network, config.seed) for network in networks]
        return tampered.figures(attempt, renewals)

    def renewed() -> dict[str, Any]:
        copies = [copy.deepcopy(generators.instance(k)) for k in range(config.keys)]
        return figures(Attempt(RENEWED, 1.0), copies)

    def changed(attempt: Attempt) -> dict[str, Any]:
        return figures(attempt, tampered.changed(attempt))

    work = {RENEWED: renewed} | {each.name: partial(changed, each) for each in attempts(config)}
    return list(parts.measure(work, "tampering").values())


def measure_training(
    tampered: Tampered, generators: Generators, config: EvaluateConfig
) -> list[dict[str, Any]]:
    """A row for every number of images that the first generators were trained on with."""
    data = ImageSet(config.data, tampered.model.config.resolution)
    stages = [0, *config.finetune_images]
    runs = [
        train_on(generators.instance(k), data, stages, config.seed + k)
        for k in range(min(config.finetune_keys, config.keys))
    ]
    rows = []
    for stage in zip(*runs, strict=True):
        handed_out: list[Any] = [network for _, network in stage]
        rows.append(tampered.figures(Attempt(FINE_TUNING, float(stage[0][0])), handed_out))
    return rows


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of the generators trained on one marker's data."""
    marker = load_marker(options.marker)
    jobs = find_jobs(options.jobs, marker, generator="dcgan", marked=True)[: options.generators]
    config = EvaluateConfig(
        seed=options.seed,
        data=options.data,
        keys=len(jobs),
        tamper_keys=len(jobs),
        tamper_images=options.images,
        feature_images=options.feature_images,
        features=options.features,
        issued=[1, 1000, 1_000_000],
        tamperings=options.tamperings,
        finetune_images=options.finetune_images,
        finetune_keys=options.finetune_keys,
    )
    config.check()
    generators = Generators(jobs)
    # The measurements know of reader and generators what release and instances have, too.
    reader: Any = marker
    samples: Any = generators
    extractor = choose_extractor(config.features, config.feature_weights)
    tampered = Tampered(reader, samples, extractor, config)
    files = [content_digest(job.folder / FILE) for job in jobs]
    told = {name: getattr(config, name) for name in ("seed", "tamper_images", "feature_images")}
    told |= {"finetune": [config.finetune_images, config.finetune_keys], "files": files}
    parts = EXPERIMENT.parts(options, told | {"data": Path(options.data).name})

    untouched = parts.get(UNTOUCHED, tampered.nothing)
    rows = measure_changes(tampered, generators, parts, config)
    if config.finetune_images:
        rows += parts.get(FINE_TUNING, partial(measure_training, tampered, generators, config))
    return {
        "digest": marker.digest,
        "n_bits": marker.config.n_bits,
        "data": Path(options.data).name,
        "generators": len(jobs),
        "training_images": jobs[0].settings["images"],
        "seed": options.seed,
        "fpr": config.fpr,
        "extractor": getattr(extractor, "name", None),
        "untouched": untouched,
        "rows": rows,
        "at_loss": losses_met(untouched, rows, LOSS),
    }


# The table.


def _line(row: Mapping[str, Any]) -> list[str]:
    found, (low, high) = row["attributed"], row["ci95"]
    shares = [f"{found[pool]['soft']['1']:.0%}" for pool in ("1", "16") if pool in found]
    return [
        row["tampering"],
        f"{row['strength']:g}",
        f"{row['mean']:.3f} ({low:.3f} - {high:.3f})",
        f"{found['16']['accuracy']:.3f}" if "16" in found else "",
        " / ".join(shares),
        f"{row['psnr']:.1f}",
        f"{row['loss']:+.1%}" if "loss" in row else "",
    ]


def _at_loss(figures: Mapping[str, Any]) -> str:
    """What is read where the pictures have lost so much, beside what was published."""
    published = {}
    for name in figures["at_loss"]:
        for curve in tampered_curves(name):
            points = zip(curve.strengths, curve.losses, curve.accuracies, strict=True)
            first, *rest = ({"strength": x, "loss": y, "mean": z} for x, y, z in points)
            published[name] = f"{accuracy_at_loss(first, rest, LOSS)['accuracy']:.2f}"
    rows = []
    for name, found in figures["at_loss"].items():
        strength = f"{found['strength']:.3g} {TAMPERINGS[name].unit}"
        reached = f"{found['accuracy']:.3f}"
        if not found["reached"]:
            reached += f" at {found['loss']:+.1%}"
        rows.append([name, strength, reached, published.get(name, "")])
    return markdown_table(["change", "strength there", "bit accuracy", "published"], rows)


def report(results: Mapping[str, Any]) -> str:
    """All figures as one page."""
    parts = [
        "# Changing the weights of generators trained on marked data",
        "DCGANs at 32x32, each trained on data marked by another key. Bit accuracy of single "
        "8-bit images (95% intervals, bootstrapped over generators) and of 16 together; found: "
        "share of single images, and of 16, that name the key, if it is the only one. Loss: by how "
        "much further the images are from clean data in feature distance; below 0 they have come "
        "nearer. After every change but fine-tuning the statistics of batch normalization were "
        "measured anew. Published: Yu et al., ICCV 2021, noise on ProGAN, loss in FID.",
    ]
    head = ["change of weights", "strength", "bit accuracy of 1", "of 16 images", "found, 1 / 16"]
    head += ["PSNR to untouched, dB", "loss"]
    for name, figures in results.items():
        lines = [_line(row) for row in [figures["untouched"], *figures["rows"]]]
        parts += [
            f"## `{name}`: {figures['generators']} generators of "
            f"{figures['training_images']:,} images, {figures['n_bits']} bits",
            f"Marker `{figures['digest'][:16]}`; {made(figures)}",
            markdown_table(head, lines),
            f"![Bit accuracy against feature distance]({name}.png)",
        ]
        if figures["at_loss"]:
            parts += [f"Where the pictures have lost {LOSS:.0%}:", _at_loss(figures)]
    return "\n\n".join(parts) + "\n"


def plots(results: Mapping[str, Any]) -> dict[str, Figure]:
    """One for each marker's data."""
    return {
        f"{name}.png": plot_tampering(figures["untouched"], figures["rows"])
        for name, figures in results.items()
    }


EXPERIMENT = Experiment(
    Path(__file__).parent / "tampering", measure, report, plots, named_by="data"
)


def main() -> None:
    """Measure the generators on one marker's data, and write results, table and plot."""
    parser = EXPERIMENT.parser(__doc__, in_parts=True)
    parser.add_argument("--jobs", type=Path, required=True, help="folder of transfer.py")
    parser.add_argument("--marker", required=True, help="path of the data's marker")
    parser.add_argument("--data", required=True, help="clean images: name, folder or zip")
    parser.add_argument("--generators", type=int, help="the first so many (default: all)")
    parser.add_argument("--images", type=int, default=64, help="of each generator")
    parser.add_argument("--tamperings", nargs="*", default=TRIED, choices=TRIED)
    parser.add_argument(
        "--finetune-images", type=int, nargs="*", default=[1000, 3000, 10_000], metavar="N"
    )
    parser.add_argument("--finetune-keys", type=int, default=2, help="generators trained on")
    parser.add_argument("--features", default="auto", help="auto, mobilenet or none")
    parser.add_argument("--feature-images", type=int, default=1024, help="of the clean data")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
