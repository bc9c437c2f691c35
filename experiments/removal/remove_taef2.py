"""What is left of a key in a copy of TAEF2's decoder that its recipient changes or trains on?

    python experiments/removal/remove_taef2.py --images photos256.zip

writes taef2.json, taef2.md and taef2.png beside this file. One copy of the bundled release `taef2`
is changed; photographs that it then decodes are read by inversion from 8-bit files, and compared
with what it made of them before. Curves measured before it was stopped are kept in --parts.
"""

import argparse
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from scalefp.data.dataset import sample_indices
from scalefp.data.images import to_pil, to_uint8
from scalefp.evaluation.copies import tampered, trainable_copy
from scalefp.evaluation.quality import decibels
from scalefp.evaluation.single_files import drawn_key, inverting, mean, photographs, read_file
from scalefp.evaluation.tamper import tamper
from scalefp.experiment import Experiment, content_digest, made, markdown_table, new_figure
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.pretrained.release import InvertingModel

SIDE = 128  # pixels a side of all pictures
# Changes of all weights that need no training (scalefp/evaluation/tamper.py), and their strengths.
CHANGES: dict[str, tuple[float, ...]] = {
    "noise": (0.02, 0.05, 0.1, 0.2),
    "prune": (0.1, 0.2, 0.3),
    "integer": (8, 6, 5),
}
KEYED_NOISE = (0.05, 0.1, 0.2, 0.4)  # in the layer alone that keys change
# Training on, by Adam on squared errors of pixels: what with, the rate, and pictures seen after
# which is looked; so many in a step, drawn from so many.
TRAININGS = (("photographs", 1e-5), ("photographs", 1e-4), ("his own pictures", 1e-4))
SEEN, BATCH, POOL = (8, 32, 128, 512), 4, 192

Stages = Iterator[tuple[float, PretrainedInstance]]


def changes(instance: PretrainedInstance, name: str, seed: int) -> Stages:
    """An instance after each strength of one of CHANGES."""
    for strength in CHANGES[name]:
        draw = torch.Generator().manual_seed(seed)
        yield strength, tampered([instance], name, strength, draw)


def keyed_noise(instance: PretrainedInstance, layer: str, seed: int) -> Stages:
    """An instance after noise of rising strength in one layer."""
    for strength in KEYED_NOISE:
        network, draw = copy.deepcopy(instance.network), torch.Generator().manual_seed(seed)
        weights = tamper([network.get_submodule(layer)], "noise", strength, draw).state_dict()
        network.get_submodule(layer).load_state_dict(weights)
        yield strength, instance.around(network)


def trained_on(
    instance: PretrainedInstance, photos: Sequence[Tensor], rate: float, own: bool, seed: int
) -> Stages:
    """A copy after each of SEEN, which its recipient trains to make pictures again that the
    published encoder encoded: photographs [1, 3, H, W], or what his copy had made of them."""
    pictures = torch.cat([instance.reconstruct(one) if own else one for one in photos])
    latents = torch.cat([instance.encoder(one[None]) for one in pictures])
    pupil = trainable_copy(instance)
    optimizer, seen = torch.optim.Adam(pupil.network.parameters(), rate), 0
    for stage in SEEN:
        while seen < stage:
            rows = torch.from_numpy(sample_indices(len(pictures), seed, seen, BATCH))
            optimizer.zero_grad()
            (pupil(latents[rows]) - pictures[rows]).square().mean().backward()
            optimizer.step()
            seen += BATCH
        yield stage, pupil


def curve(
    model: InvertingModel, shown: Sequence[Tensor], seed: int, stages: Callable[[], Stages]
) -> list[dict[str, float]]:
    """At each stage bits read and share named, dB to the untouched copy's pictures, and dB to the
    photographs [1, 3, H, W] themselves: means over these."""
    key = drawn_key(model.n_bits, seed)
    photos, before = torch.cat([*map(to_uint8, shown)]), files_of(model.instantiate(key), shown)
    rows = []
    for strength, instance in stages():
        after = files_of(instance, shown)
        found = [read_file(model, file, key, search=False) for file in to_pil(after)]
        rows.append({
            "strength": strength, "right": mean(found), "named": mean(found, "named"),
            "psnr": float(decibels(after, before).mean()),
            "psnr_to_photographs": float(decibels(after, photos).mean()),
        })  # fmt: skip
    return rows


@torch.no_grad()
def files_of(instance: PretrainedInstance, photos: Sequence[Tensor]) -> Tensor:
    """What an instance makes of photographs, as files hold it: uint8 [b, 3, H, W]."""
    return torch.cat([to_uint8(instance.reconstruct(one)) for one in photos])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """A curve for each way to change a copy."""
    model = inverting("taef2", drawn=False)
    seed = options.seed
    photos = photographs(options.images, options.pictures + POOL, seed, SIDE)
    shown, known = photos[: options.pictures], photos[options.pictures :]
    instance = model.instantiate(drawn_key(model.n_bits, seed))
    curves: dict[str, Callable[[], Stages]] = {
        "untouched": lambda: iter([(0.0, instance)]),
        **{name: partial(changes, instance, name, seed) for name in CHANGES},
        "noise, keyed layer": partial(keyed_noise, instance, model.parent.names[0], seed),
        **{
            f"{what}, rate {rate:g}": partial(
                trained_on, instance, known, rate, what != "photographs", seed
            )
            for what, rate in TRAININGS
        },
    }
    settings = {
        "release": model.digest, "images": content_digest(options.images),
        "pictures": options.pictures, "seed": seed,
    }  # fmt: skip
    work = {name: partial(curve, model, shown, seed, stages) for name, stages in curves.items()}
    found = EXPERIMENT.parts(options, settings).measure(work, "removal, taef2")
    return {
        "release": model.digest, "n_bits": model.n_bits, "side": SIDE, "seed": seed,
        "pictures": options.pictures, "curves": found,
    }  # fmt: skip


def markdown(results: Mapping[str, Any]) -> str:
    """The rows as a page."""
    rows = [
        [
            name, f"{row['strength']:,g}", f"{row['right']:.3f}", f"{row['named']:.0%}",
            f"{row['psnr']:.1f}", f"{row['psnr_to_photographs']:.1f}",
        ]
        for name, found in results["curves"].items()
        for row in found
    ]  # fmt: skip
    head = ["change, or training with", "strength, or pictures seen", "bits read", "named"]
    head += ["PSNR to untouched, dB", "PSNR to the photographs, dB"]
    parts = [
        "# Removing a key from a copy of `taef2`",
        f"{results['n_bits']} bits; release `{results['release'][:16]}`; one copy, "
        f"{results['pictures']} photographs of {results['side']} pixels in each row, as 8-bit "
        f"files read as they are; {made(results)} Named: single files, at fpr 1e-6 "
        f"among 10^6 keys. Training with {POOL} pictures, {BATCH} in a step.",
        markdown_table(head, rows, range(1, len(head))),
        "![Bits read by what the pictures lost](taef2.png)",
    ]
    return "\n\n".join(parts) + "\n"


def plot(results: Mapping[str, Any]) -> Figure:
    """Bits read against what the pictures lost, a line for each way."""
    figure = new_figure(11, 4)
    for axes, name, label in zip(
        figure.subplots(1, 2, sharey=True), ("psnr", "psnr_to_photographs"),
        ("PSNR to what the copy made before, dB", "PSNR to the photographs, dB"), strict=True,
    ):  # fmt: skip
        for what, rows in results["curves"].items():
            values = [row[name] for row in rows]
            if what != "untouched":
                axes.plot(values, [row["right"] for row in rows], "o-", label=what)
            elif name != "psnr":
                axes.axvline(values[0], color="gray", linewidth=0.8, linestyle=":", label=what)
        axes.axhline(0.5, color="gray", linewidth=0.8)
        axes.set_xlabel(label)
    axes.legend(fontsize="small")
    figure.axes[0].set_ylabel("bits read")
    return figure


EXPERIMENT = Experiment(
    Path(__file__).parent, measure, markdown, lambda results: {"taef2.png": plot(results)},
    results_file="taef2.json", page_file="taef2.md",
)  # fmt: skip


def main() -> None:
    parser = EXPERIMENT.parser(__doc__, in_parts=True)
    parser.add_argument("--images", required=True, help="folder or zip of photographs")
    parser.add_argument("--pictures", type=int, default=4, help="that are read in each row")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
