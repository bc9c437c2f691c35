"""Why does one generator copy a mark and another not? What it can draw, without any adversary.

What a marker writes is nearly the same in every image: a fixed pattern. Each generator is fitted to
that pattern alone, by its mean squared error, and what it draws is laid on clean images and read.
What cannot be drawn even so cannot be copied from marked data.

    python experiments/artificial-fingerprints/transfer_reason.py --marker artificial-emoji
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from generators.dcgan import Dcgan
from generators.ours import Ours, draw
from scalefp.artificial.marker import Marker
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_float, to_uint8
from scalefp.experiment import Experiment, made, markdown_table
from scalefp.key import Key
from scalefp.loading import load_marker
from scalefp.metrics import bit_accuracy
from transfer import key_of, make_learner
from transfer_config import TransferConfig

GENERATORS = ("ours", "ours_maps", "dcgan")
BATCH = 16
DEVIATION = 0.25  # of the pattern that is fitted, in [-1, 1]: a mark itself is too faint to fit


@dataclass
class Fitted:
    """A generator before it is fitted, as :func:`fit` sees it.

    Attributes:
        draw: so many images of random latents, [b, 3, R, R], with gradients.
        optimizer: of its weights, as in the training on images.
    """

    draw: Callable[[int, torch.Generator], Tensor]
    optimizer: torch.optim.Optimizer


def generator_to_fit(name: str, data: ImageSet, seed: int, total: int) -> Fitted:
    """One of GENERATORS as it is before its first image."""
    config = TransferConfig(generator=name, seed=seed, images={name: total})
    learner = make_learner(config, data)
    if isinstance(learner, Dcgan):
        return Fitted(partial(learner.draw, learner.generator), learner.generator_optimizer)
    assert isinstance(learner, Ours)
    drawn = partial(draw, learner.state.generator, learner.config.model)
    return Fitted(drawn, learner.state.reader_optimizer)


def explained(images: Tensor, pattern: Tensor) -> float:
    """Share of the pattern's energy that images [b, 3, R, R] hold: 1 = they are the pattern."""
    return float(1 - (images - pattern).square().mean() / pattern.square().mean())


def fit(fitted: Fitted, pattern: Tensor, steps: int, seed: int) -> Tensor:
    """Images of a generator fitted to ``pattern`` [3, R, R], whatever the latent, [64, 3, R, R]."""
    chance = torch.Generator().manual_seed(seed)
    energy = pattern.square().mean()
    for _ in tqdm(range(steps), "fit", unit="step", leave=False):
        fitted.optimizer.zero_grad(set_to_none=True)
        loss = (fitted.draw(BATCH, chance) - pattern).square().mean() / energy
        loss.backward()
        fitted.optimizer.step()
    with torch.no_grad():
        return torch.cat([fitted.draw(BATCH, chance) for _ in range(64 // BATCH)])


def fine_share(pattern: Tensor) -> float:
    """Share of the energy of [3, R, R] in waves of less than four pixels."""
    power = torch.fft.fft2(pattern).abs().square()
    waves = torch.fft.fftfreq(pattern.shape[-1])
    fine = (waves[:, None].square() + waves.square()).sqrt() > 1 / 4
    return float(power[:, fine].sum() / power.sum())


def read(marker: Marker, images: Tensor, key: Key) -> float:
    """Share of the key's bits that single images in [-1, 1] are read with, from 8 bits."""
    reading = marker.decode(to_uint8(images.clamp(-1, 1)), search=False, progress=False)
    return float(bit_accuracy(reading.logits, key.bits).mean())


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What is fixed in a mark, and which generators can draw that."""
    marker = load_marker(options.marker)
    data = ImageSet(options.data, marker.config.resolution)
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(options.seed))
    clean = data.batch(chosen[: options.images])
    key = key_of(TransferConfig(seed=options.seed), marker.config.n_bits)
    floats = to_float(clean)
    residual = to_float(marker.mark(clean, key)) - floats
    pattern = residual.mean(dim=0)
    strength = float(residual.square().mean().sqrt() / pattern.square().mean().sqrt())
    gain = DEVIATION / float(pattern.std())
    rows = []
    for name in GENERATORS:
        fitted = generator_to_fit(name, data, options.seed, options.steps * BATCH)
        drawn = fit(fitted, pattern * gain, options.steps, options.seed)
        laid_on = floats[: len(drawn)] + drawn * (strength / gain)
        row = {"explained": explained(drawn, pattern * gain)}
        rows.append({"generator": name, **row, "bit_accuracy": read(marker, laid_on, key)})
    return {
        "digest": marker.digest,
        "resolution": marker.config.resolution,
        "data": Path(options.data).name,
        "seed": options.seed,
        "images": options.images,
        "steps": options.steps,
        "fixed": float(pattern.square().mean() / residual.square().mean()),
        "fine": fine_share(pattern),
        "marked": read(marker, floats + residual, key),
        "pattern": read(marker, floats + pattern * strength, key),
        "rows": rows,
    }


def report(results: Mapping[str, Any]) -> str:
    """All markers as Markdown."""
    parts = ["# Which generators can draw what a marker writes?"]
    for name, figures in results.items():
        head = ["drawn by", "of the pattern", "bit accuracy, laid on clean images"]
        lines = [
            ["the marker, for each image", "", f"{figures['marked']:.3f}"],
            ["the marker, its mean", "100.0%", f"{figures['pattern']:.3f}"],
        ]
        for row in figures["rows"]:
            share = f"{row['explained']:.1%}"
            lines.append([f"`{row['generator']}`, fitted", share, f"{row['bit_accuracy']:.3f}"])
        parts += [
            f"## {name}",
            f"{figures['fixed']:.1%} of what is written into {figures['images']} images of "
            f"{figures['data']} is the same in all of them; {figures['fine']:.1%} of that lies in "
            f"waves of less than four pixels. Generators are fitted in {figures['steps']:,} steps "
            f"of {BATCH}.",
            markdown_table(head, lines, right={1, 2}),
            made(figures),
        ]
    return "\n\n".join(parts) + "\n"


EXPERIMENT = Experiment(
    Path(__file__).parent / "transfer-reason", measure, report, named_by="marker"
)


def main() -> None:
    """Measure one marker, and write results and table."""
    parser = EXPERIMENT.parser(__doc__)
    parser.add_argument("--marker", default="artificial-emoji", help="bundled name or path")
    parser.add_argument("--data", default="emoji64", help="images to mark: name, folder or zip")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=400, help="of each fit")
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
