"""Does the fast training step learn what the textbook's step learns?

The `tiny` training, several seeds, twice: as it is (bfloat16 where the hardware has it,
channels-last, scaled activations), and the same equations by the textbook's means (float32,
channels-first, one grouped convolution with weights of each sample's own). Same seeds, same images,
same keys. The curves of both should differ no more than those of two seeds.

    python experiments/performance/equal_losses.py [--images 6400] [--seeds 3]
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from scalefp.config import TrainConfig
from scalefp.data.dataset import ImageSet
from scalefp.data.images import to_uint8
from scalefp.evaluation.features import choose_extractor, extract
from scalefp.experiment import Experiment, markdown_table, new_figure
from scalefp.metrics import kid
from scalefp.networks import layers
from scalefp.training.compose import compose_training
from scalefp.training.distributed import World
from scalefp.training.precision import pick_precision
from scalefp.training.state import TrainingState
from scalefp.training.step import Step

WINDOW = 20  # steps that a point of a curve is the mean of
PICTURES = 256  # generated and real, for the feature distance
POINTS = 5  # feature distances along a training
TITLES = {
    "bit_accuracy": "bit accuracy of the active bits",
    "discriminator": "discriminator's loss",
    "feature_distance": "MobileNetV2 kernel distance",
}
TERMS = {
    "bit_accuracy": ("bit_accuracy",),
    "discriminator": ("discriminator_real", "discriminator_fake"),
}
COLOURS = {"ours": "tab:blue", "textbook": "tab:orange"}


def grouped_modulation(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    maps: Tensor | None = None,
    *,
    demodulate: bool = True,
    gain: float = 1.0,
) -> Tensor:
    """``layers.modulated_conv2d`` by one grouped convolution, as StyleGAN2's code has it."""
    padding, (b, _, height, width) = weight.shape[-1] // 2, x.shape
    own = weight * scales[:, None, :, None, None]  # [b, O, I, k, k]
    factors = own.new_ones(b, len(weight), 1, 1)
    if demodulate:
        squares = own.square().sum(dim=(2, 3, 4)) + layers.DEMODULATION_FLOOR
        factors = (squares.rsqrt() * gain)[:, :, None, None]
    own = own * factors[:, :, None]
    x = F.conv2d(x.reshape(1, -1, height, width), own.flatten(0, 1), padding=padding, groups=b)
    x = x.reshape(b, -1, height, width)
    if maps is None:
        return x
    patterns = maps * (scales - 1)[:, :, None, None]
    return x + F.conv2d(patterns, weight, padding=padding) * factors


@contextmanager
def textbook() -> Iterator[None]:
    """Within, networks compute by the textbook's means."""
    with (
        patch.object(layers, "modulated_conv2d", grouped_modulation),
        patch.object(torch, "channels_last", torch.contiguous_format),
    ):
        yield


@torch.inference_mode()
def generated(state: TrainingState, config: TrainConfig) -> Tensor:
    """uint8 pictures of the averaged generator, always of the same latents and keys."""
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(PICTURES, config.model.latent_dim, generator=draw)
    bits = torch.randint(0, 2, (PICTURES, config.model.n_bits), generator=draw)
    batches = zip(z.split(32), bits.split(32), strict=True)
    return torch.cat([to_uint8(state.average_generator(*batch)) for batch in batches])


def run(config: TrainConfig, data: ImageSet, precision: torch.dtype, real: np.ndarray) -> Any:
    """Curves of one training: for each figure a list of (images, value)."""
    state, world = (
        TrainingState.build(config, torch.device("cpu")),
        World(0, 1, torch.device("cpu")),
    )
    extractor = choose_extractor("mobilenet", None)
    assert extractor is not None
    batch, total = config.optimizer.batch, config.schedule.total_images
    curves: dict[str, list[tuple[int, float]]] = {name: [] for name in TITLES}
    recent: list[dict[str, float]] = []
    step = Step(config, state, data, world, precision)
    for images in tqdm(range(0, total, batch), unit="step", leave=False):
        state.progress.images = images
        recent.append(world.average_terms(step()))
        seen = images + batch
        if len(recent) == WINDOW:
            for name, parts in TERMS.items():
                total_of = [sum(terms[part] for part in parts) for terms in recent]
                curves[name].append((seen, float(np.mean(total_of))))
            recent = []
        if seen * POINTS // total > images * POINTS // total:
            features = extract(extractor, generated(state, config))
            curves["feature_distance"].append((seen, kid(features, real, subset_size=PICTURES)))
    return curves


def agreement(curves: dict[str, list[Any]]) -> dict[str, dict[str, float]]:
    """For each figure the difference of the two means in units of its standard error, over seeds.

    Each curve counts by its mean over its second half.
    """
    found = {}
    for name in TITLES:
        ends = {}
        for who, runs in curves.items():
            tails = [[value for _, value in run[name][len(run[name]) // 2 :]] for run in runs]
            ends[who] = np.array([np.mean(tail) for tail in tails])
        ours, theirs = ends["ours"], ends["textbook"]
        error = np.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / len(ours))
        found[name] = {
            "ours": float(ours.mean()),
            "textbook": float(theirs.mean()),
            "difference_in_standard_errors": float((ours.mean() - theirs.mean()) / error),
        }
    return found


def table(results: Mapping[str, Any]) -> str:
    """Both means of each figure, and how far they are apart."""
    rows = [
        [
            title,
            f"{found['ours']:.4g}",
            f"{found['textbook']:.4g}",
            f"{found['difference_in_standard_errors']:+.1f}",
        ]
        for title, found in ((TITLES[name], one) for name, one in results["agreement"].items())
    ]
    head = ["mean over the second half", *COLOURS, "difference in standard errors"]
    return markdown_table(head, rows, right={1, 2, 3}) + "\n"


def plots(results: Mapping[str, Any]) -> dict[str, Figure]:
    """One panel a figure, one line a training."""
    figure, curves = new_figure(12, 3.6), results["curves"]
    axes = figure.subplots(1, len(TITLES))
    for axis, (name, title) in zip(axes, TITLES.items(), strict=True):
        for who, runs in curves.items():
            for number, curve in enumerate(runs):
                label = who if number == 0 else None
                axis.plot(
                    *zip(*curve[name], strict=True), color=COLOURS[who], alpha=0.7, label=label
                )
        axis.set(title=title, xlabel="images")
        axis.grid(alpha=0.3)
    axes[0].legend()
    return {"equal-losses.png": figure}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Curves of all trainings, and how well they agree."""
    length = f"schedule.total_images={options.images}"
    config = compose_training(["experiment=tiny", length, "run.device=cpu"])
    fast = pick_precision(config.run, torch.device("cpu"))
    data = ImageSet(config.data.source, config.model.resolution)
    extractor = choose_extractor("mobilenet", None)
    assert extractor is not None
    chosen = np.random.default_rng(0).choice(len(data), PICTURES, replace=False)
    real = extract(extractor, data.batch(chosen))

    curves: dict[str, list[Any]] = {"ours": [], "textbook": []}
    for seed in range(options.seeds):
        for who, precision in (("ours", fast), ("textbook", torch.float32)):
            with textbook() if who == "textbook" else nullcontext():
                curves[who].append(run(replace(config, seed=seed), data, precision, real))
    return {
        "images": options.images,
        "seeds": options.seeds,
        "precision_of_ours": str(fast).removeprefix("torch."),
        "agreement": agreement(curves),
        "curves": curves,
    }


EXPERIMENT = Experiment(
    Path(__file__).parent,
    measure,
    table,
    plots,
    results_file="equal-losses.json",
    page_file="equal-losses.md",
)


def main() -> None:
    """Train, and write curves, table and plot."""
    parser = EXPERIMENT.parser(__doc__, seeded=False)
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--seeds", type=int, default=3)
    EXPERIMENT.run(parser)


if __name__ == "__main__":
    main()
