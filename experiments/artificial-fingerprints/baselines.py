"""Do marks of other tools survive the training of a generator? Embed, train, read.

Every image of a data set is marked with one message, a generator is trained on the marked files,
and the message is read from what it makes: the published baselines, and our marker beside them, on
the same images, by the same code. The message is also read from the files themselves, from their
pixels saved once more, after JPEG 90, and from images and samples in which it never was.

    python experiments/artificial-fingerprints/baselines.py --marker artificial-emoji
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scalefp.attribution.evidence import log_binomial_tail
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_pil, to_tensor, to_uint8
from scalefp.errors import UserError
from scalefp.evaluation.quality import decibels
from scalefp.experiment import Experiment, made, markdown_table
from scalefp.loading import load_marker
from stego import TOOLS, Bits, Found, Ours, Tool, as_file
from transfer import make_learner, train
from transfer_config import TransferConfig

OURS = "scalefp"
STAGES = {
    "file": "the marked file itself",
    "again": "its pixels, saved once more",
    "jpeg90": "after JPEG 90",
    "samples": "samples of the generator",
    "clean": "images without the message",
    "clean_samples": "samples without the message",
}
# Yu et al. 2021 and 2022: StyleGAN2 on CelebA, from samples of the generator.
PUBLISHED = {"steghide": "0.535 / 0.53", "outguess": "0.533 / 0.51", OURS: "0.99"}


def accuracy(found: Sequence[Found], bits: Bits) -> dict[str, Any]:
    """Bit accuracy over images: a bit that the tool did not return is guessed, one half right.

    ``missing``: share of the images for which it returned no bit at all; ``p_value``: of the
    rounded mean, as published: that of so many matching bits of one image by chance.
    """
    agree = [np.where(np.isnan(x), 0.5, x == bits).mean() for x in found]
    mean, n_bits = float(np.mean(agree)), len(bits)
    return {
        "images": len(found),
        "accuracy": mean,
        "sd": float(np.std(agree)),
        "missing": float(np.mean([np.isnan(x).all() for x in found])),
        "p_value": math.exp(float(log_binomial_tail(n_bits, round(mean * n_bits)))),
    }


def read_all(tool: Tool, files: Sequence[bytes], bits: Bits, title: str) -> dict[str, Any]:
    """What a tool reads from files."""
    found = [tool.read(file) for file in tqdm(files, title, unit="img", delay=2, leave=False)]
    return accuracy(found, bits)


def generate(pixels: list[Image.Image], options: argparse.Namespace) -> Tensor:
    """Train a generator on pictures and sample it, by the code of transfer.py: uint8."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        for i, image in enumerate(pixels):
            image.save(folder / "data" / f"{i:06d}.png")
        data = ImageSet(folder / "data", options.resolution, progress=False)
        config = TransferConfig(
            generator=options.generator,
            seed=options.seed,
            images={options.generator: options.training_images},
        )
        learner = make_learner(config, data)
        train(learner, config, folder, {})
        return to_uint8(learner.sample(options.samples, seed=options.seed))


def generate_clean(clean: list[Image.Image], options: argparse.Namespace) -> list[str]:
    """Samples of a generator trained on the images as they are, as PNG files in hexadecimal."""
    return [as_file(image, lossy=False).hex() for image in to_pil(generate(clean, options))]


def measure_tool(
    tool: Tool, clean: list[Image.Image], clean_samples: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """All stages of one tool."""
    draw = np.random.default_rng([options.seed, tool.n_bits])
    bits: Bits = draw.integers(0, 2, tool.n_bits, dtype=np.uint8)
    embedded = [tool.embed(image, bits) for image in tqdm(clean, "embed", unit="img", leave=False)]
    files = [file for file in embedded if file is not None]
    if not files:
        raise UserError("not one image could be marked: take a higher --resolution")
    pictures = [Image.open(BytesIO(file)).convert("RGB") for file in files]
    covers = [image for image, file in zip(clean, embedded, strict=True) if file is not None]
    pairs = [to_tensor(some, options.resolution) for some in (pictures, covers)]
    some = range(min(options.samples, len(files)))
    lossy = tool.lossy
    samples = to_pil(generate(pictures, options))
    without = [Image.open(BytesIO(bytes.fromhex(file))) for file in clean_samples]
    stages: dict[str, list[bytes]] = {
        "file": [files[i] for i in some],
        "again": [as_file(pictures[i], lossy=lossy) for i in some],
        "jpeg90": [as_file(pictures[i], lossy=lossy, quality=90) for i in some],
        "samples": [as_file(image, lossy=lossy) for image in samples],
        "clean": [as_file(covers[i], lossy=lossy) for i in some],
        "clean_samples": [as_file(image, lossy=lossy) for image in without],
    }
    return {
        "n_bits": tool.n_bits,
        "marked": len(files),
        "refused": len(clean) - len(files),
        "psnr": float(decibels(*pairs).mean()),
        "stages": {name: read_all(tool, some, bits, name) for name, some in stages.items()},
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All tools on one data set."""
    pixels = ImageSet(options.data, options.resolution).pixels
    order = np.random.default_rng([options.seed, 1]).permutation(len(pixels))[: options.images]
    clean = to_pil(torch.from_numpy(pixels[order]))
    tools: dict[str, Tool] = {}
    absent: dict[str, str] = {}
    for name in options.tools:
        try:
            tools[name] = TOOLS[name](options.resolution, options.bits)
        except UserError as error:
            absent[name] = str(error)
    marker = None if options.marker is None else load_marker(options.marker)
    if marker is not None:
        if marker.config.resolution != options.resolution:
            raise UserError(
                f"{options.marker} marks images of {marker.config.resolution} pixels: "
                f"give --resolution {marker.config.resolution}, or another marker"
            )
        tools[OURS] = Ours(marker)
    parts = EXPERIMENT.parts(options, settings(options))
    samples = parts.get("clean samples", partial(generate_clean, clean, options))
    titles = {
        name: f"{name} {tool.marker.digest[:16]}" if isinstance(tool, Ours) else name
        for name, tool in tools.items()
    }
    work = {
        titles[name]: partial(measure_tool, tool, clean, samples, options)
        for name, tool in tools.items()
    }
    found = parts.measure(work, "tools")
    return {
        "data": Path(options.data).name,
        "resolution": options.resolution,
        "images": len(clean),
        "generator": options.generator,
        "training_images": options.training_images,
        "seed": options.seed,
        "absent": absent,
        "marker": None if marker is None else marker.digest,
        "rows": {name: found[title] for name, title in titles.items()},
    }


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that decides the figures of every part."""
    names = ("data", "images", "resolution", "bits", "generator", "training_images", "samples")
    return {name: getattr(options, name) for name in (*names, "seed")}


# The table.


def _cell(stage: dict[str, Any]) -> str:
    missing = f", {stage['missing']:.0%} nothing" if stage["missing"] else ""
    return f"{stage['accuracy']:.3f}{missing}"


def report(results: dict[str, Any]) -> str:
    """All figures as one page."""
    parts = [
        "# Other tools on the way through a generator",
        "Mean bit accuracy; 0.5 is guessing. A bit that a tool does not return counts as guessed; "
        "*nothing*: share of the images from which it extracts nothing at all. Columns three to "
        "five from the marked images, *samples* from a generator trained on them. The last two "
        "columns are controls, the message was never there: how far they lie from 0.5 is what a "
        "single message may differ by. p: of so many bits matching by chance, as published.",
    ]
    for name, figures in results.items():
        rows = [
            [
                tool,
                f"{row['n_bits']}",
                f"{row['psnr']:.1f}" + (f" ({row['refused']} refused)" if row["refused"] else ""),
                *(_cell(row["stages"][stage]) for stage in STAGES),
                f"{row['stages']['samples']['p_value']:.2g}",
                PUBLISHED.get(tool, ""),
            ]
            for tool, row in figures["rows"].items()
        ]
        head = ["tool", "bits", "PSNR, dB", *STAGES.values(), "p, samples", "published"]
        parts += [
            f"## `{name}`",
            f"{figures['images']:,} images of `{figures['data']}` at {figures['resolution']} px; "
            f"generator `{figures['generator']}`, {figures['training_images']:,} images; "
            f"{made(figures)}",
            markdown_table(head, rows),
            *(f"Left out: {tool}: {why}." for tool, why in figures["absent"].items()),
        ]
    parts.append(
        "Published: StyleGAN2 on CelebA, read from samples (the paper of 2022 / that of 2021)."
    )
    return "\n\n".join(parts) + "\n"


EXPERIMENT = Experiment(Path(__file__).parent / "baselines", measure, report, named_by="data")


def main() -> None:
    """Measure all tools on one data set, and write results and table."""
    parser = EXPERIMENT.parser(__doc__, in_parts=True)
    parser.add_argument("--data", default="emoji64", help="bundled name, folder or zip")
    parser.add_argument("--marker", help="measured beside the tools: bundled name or path")
    parser.add_argument("--tools", nargs="*", default=[*TOOLS], choices=[*TOOLS])
    parser.add_argument("--images", type=int, default=3000, help="of the data, to mark")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--bits", type=int, default=128, help="where the picture holds as many")
    parser.add_argument("--generator", default="dcgan", choices=["ours", "dcgan"])
    parser.add_argument("--training-images", type=int, default=40_000)
    parser.add_argument("--samples", type=int, default=256, help="read at each stage")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
